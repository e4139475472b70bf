// Vectors as wide as the registers of the instruction set that this is compiled for.
//
// Everything here has internal linkage: the same names exist once per instruction set, and the
// linker must not pick one for all.
#pragma once

#include <cstdint>
#include <cstring>

#include "isa.hpp"
#include "lanes.hpp"
#include "portable.hpp"

namespace ncut::NCUT_ISA {
namespace {

// Numbers in a register.
template <class T>
constexpr int kWidth = kVectorBytes / static_cast<int>(sizeof(T));

// Registers that hold kLanes numbers.
template <class T>
constexpr int kParts = static_cast<int>(kLanes) / kWidth<T>;

template <class T>
struct VectorOf {
  typedef T type __attribute__((vector_size(NCUT_VECTOR_BYTES)));
};
template <class T>
using Vector = typename VectorOf<T>::type;

template <class T>
NCUT_INLINE Vector<T> load(const T* from) {
  Vector<T> values;
  std::memcpy(&values, from, sizeof(values));
  return values;
}

template <class T>
NCUT_INLINE void store(Vector<T> values, T* to) {
  std::memcpy(to, &values, sizeof(values));
}

// All lanes the same. Taking away zero changes no number, so that the compiler drops it.
template <class T>
NCUT_INLINE Vector<T> all_lanes(T value) {
  return value - Vector<T>{};
}

template <class T>
NCUT_INLINE T sum_of_lanes(Vector<T> values) {
  T sum = 0;
  for (int lane = 0; lane < kWidth<T>; ++lane) sum += values[lane];
  return sum;
}

}  // namespace
}  // namespace ncut::NCUT_ISA
