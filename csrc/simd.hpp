// Sixteen numbers side by side, with the vector types of GCC and Clang: the compiler maps them to
// whatever registers the target of the function has (for floats one of AVX-512, two of AVX2, four
// of SSE2).
#pragma once

#include <cstdint>
#include <cstring>

#include "portable.hpp"

namespace ncut {

constexpr std::int64_t kLanes = 16;

template <class T>
struct Lanes {
  typedef T type __attribute__((vector_size(sizeof(T) * kLanes)));
};

using Floats = Lanes<float>::type;
using Ints = Lanes<std::int32_t>::type;

template <class T>
NCUT_INLINE typename Lanes<T>::type load(const T* from) {
  typename Lanes<T>::type values;
  std::memcpy(&values, from, sizeof(values));
  return values;
}

template <class T>
NCUT_INLINE void store(typename Lanes<T>::type values, T* to) {
  std::memcpy(to, &values, sizeof(values));
}

NCUT_INLINE Floats all_lanes(float value) { return Floats{} + value; }

}  // namespace ncut
