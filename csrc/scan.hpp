// Checks of a block of weights before it is trusted.
#pragma once

#include <cmath>
#include <cstdint>

#include "half.hpp"

namespace ncut {

struct Scan {
  std::int64_t n_nan, n_infinite, n_negative, n_nonzero;
};

// Counts NaN, infinite, negative and non-zero values in one pass.
template <class W>
Scan scan(const W* values, std::int64_t n) {
  Scan counts{0, 0, 0, 0};
  for (std::int64_t i = 0; i < n; ++i) {
    const auto value = static_cast<typename Wide<W>::type>(values[i]);
    counts.n_nan += std::isnan(value);
    counts.n_infinite += std::isinf(value);
    counts.n_negative += value < 0;
    counts.n_nonzero += value != 0;
  }
  return counts;
}

}  // namespace ncut
