// Signed weights, read as edge weights (their magnitudes).
#pragma once

#include <cmath>

#include "half.hpp"
#include "portable.hpp"

namespace ncut {

template <class T>
struct Magnitude {
  T value;

  NCUT_INLINE operator T() const { return std::abs(value); }
};

template <class T>
struct Wide<Magnitude<T>> {
  using type = T;
};

}  // namespace ncut
