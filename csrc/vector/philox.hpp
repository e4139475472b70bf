// Philox4x32-10 for many counters in parallel.
#pragma once

#include "isa.hpp"
#include "rng.hpp"

namespace ncut::NCUT_ISA {
namespace {

void philox(std::uint32_t key0, std::uint32_t key1, std::uint32_t stream, std::uint32_t substream,
            std::uint64_t counter, std::uint32_t* numbers) {
  constexpr int n = kPhiloxCounters;
  std::uint32_t x0[n], x1[n], x2[n], x3[n];
  for (int lane = 0; lane < n; ++lane) {
    const std::uint64_t own = counter + static_cast<std::uint64_t>(lane);
    x0[lane] = static_cast<std::uint32_t>(own);
    x1[lane] = static_cast<std::uint32_t>(own >> 32);
    x2[lane] = stream;
    x3[lane] = substream;
  }
  for (int round = 0; round < 10; ++round) {
    for (int lane = 0; lane < n; ++lane) {
      const std::uint64_t a = std::uint64_t{0xD2511F53U} * x0[lane];
      const std::uint64_t b = std::uint64_t{0xCD9E8D57U} * x2[lane];
      x0[lane] = static_cast<std::uint32_t>(b >> 32) ^ x1[lane] ^ key0;
      x2[lane] = static_cast<std::uint32_t>(a >> 32) ^ x3[lane] ^ key1;
      x1[lane] = static_cast<std::uint32_t>(b);
      x3[lane] = static_cast<std::uint32_t>(a);
    }
    key0 += 0x9E3779B9U;
    key1 += 0xBB67AE85U;
  }
  for (int lane = 0; lane < n; ++lane) {
    numbers[4 * lane] = x0[lane];
    numbers[4 * lane + 1] = x1[lane];
    numbers[4 * lane + 2] = x2[lane];
    numbers[4 * lane + 3] = x3[lane];
  }
}

}  // namespace
}  // namespace ncut::NCUT_ISA
