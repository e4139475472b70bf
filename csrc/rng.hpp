// Philox4x32-10, a counter-based generator: the numbers depend only on (seed, stream, substream),
// never on which thread or process draws them.
// Source: Salmon, Moraes, Dror, Shaw (2011), Parallel random numbers: as easy as 1, 2, 3.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace ncut {

// Number of counters that are converted at a time, in parallel in vector registers.
constexpr int kPhiloxCounters = 64;

class Philox {
 public:
  Philox(std::uint64_t seed, std::uint32_t stream, std::uint32_t substream)
      : key0_(static_cast<std::uint32_t>(seed)),
        key1_(static_cast<std::uint32_t>(seed >> 32)),
        stream_(stream),
        substream_(substream) {}

  std::uint32_t next() {
    if (used_ == kBuffered) refill();
    return buffer_[used_++];
  }

  std::uint64_t next64() {
    const std::uint64_t high = next();
    return (high << 32) | next();
  }

  // Uniform in [0, bound), without bias (Lemire 2019, Fast random integer generation in an
  // interval). bound > 0.
  std::uint32_t below(std::uint32_t bound) {
    std::uint64_t product = std::uint64_t{next()} * bound;
    auto low = static_cast<std::uint32_t>(product);
    if (low < bound) {
      const std::uint32_t threshold = (0U - bound) % bound;
      while (low < threshold) {
        product = std::uint64_t{next()} * bound;
        low = static_cast<std::uint32_t>(product);
      }
    }
    return static_cast<std::uint32_t>(product >> 32);
  }

  // The same for bounds of any size, by rejection from the next power of two.
  std::uint64_t below64(std::uint64_t bound) {
    if (bound <= UINT32_MAX) return below(static_cast<std::uint32_t>(bound));
    std::uint64_t mask = bound - 1;
    for (int shift = 1; shift < 64; shift *= 2) mask |= mask >> shift;
    std::uint64_t draw = next64() & mask;
    while (draw >= bound) draw = next64() & mask;
    return draw;
  }

  // Uniform in [0, 1), 53 bits.
  double uniform() { return static_cast<double>(next64() >> 11) * 0x1p-53; }

  // Standard normal, by Box and Muller; the pair's second number is kept for the next call.
  double normal() {
    if (has_spare_) {
      has_spare_ = false;
      return spare_;
    }
    const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));
    const double angle = 6.283185307179586 * uniform();
    spare_ = radius * std::sin(angle);
    has_spare_ = true;
    return radius * std::cos(angle);
  }

 private:
  static constexpr std::size_t kBuffered = 4 * kPhiloxCounters;

  // The numbers of the next kPhiloxCounters counters, four each.
  void refill();

  std::uint32_t key0_, key1_, stream_, substream_;
  std::uint64_t counter_ = 0;
  std::array<std::uint32_t, kBuffered> buffer_{};
  std::size_t used_ = kBuffered;
  double spare_ = 0.0;
  bool has_spare_ = false;
};

}  // namespace ncut
