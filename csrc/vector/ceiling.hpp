// The processor's peak rates, the reference for kernels.
#pragma once

#include "simd.hpp"

namespace ncut::NCUT_ISA {
namespace {

// Multiply-adds in registers alone, `rounds` times; returns the number of floating-point
// operations. As in the kernels, products are added to as many sums as an inner loop has.
double multiply_adds(std::int64_t rounds) {
  Vector<float> sums[kSums] = {};
  Vector<float> x = all_lanes(0.5F), y = all_lanes(1e-9F);
  for (std::int64_t i = 0; i < rounds; ++i) {
    for (Vector<float>& sum : sums) {
      // Makes the compiler assume that the factor changes each time.
#if defined(__x86_64__)
      asm volatile("" : "+x"(x));
#elif defined(__aarch64__)
      asm volatile("" : "+w"(x));
#endif
      sum += x * y;
    }
  }
  Vector<float> total = {};
  for (const Vector<float>& sum : sums) total += sum;
  volatile float kept = sum_of_lanes<float>(total);
  (void)kept;
  return 2.0 * kSums * kWidth<float> * static_cast<double>(rounds);
}

// The sum of n numbers, a multiple of 4 * kLanes, limited by memory bandwidth.
float read_all(const float* values, std::int64_t n) {
  Vector<float> sums[4] = {};
  for (std::int64_t i = 0; i < n; i += 4 * kWidth<float>) {
    for (int part = 0; part < 4; ++part) sums[part] += load(values + i + part * kWidth<float>);
  }
  return sum_of_lanes<float>((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

}  // namespace
}  // namespace ncut::NCUT_ISA
