// Products of a matrix with a block of kLanes vectors: the inner loop of most kernels.
#pragma once

#include <algorithm>

#include "simd.hpp"

namespace ncut::NCUT_ISA {
namespace {

// Treatment of the result's previous content.
enum class Into { kSet, kAdd, kSubtract };

// Sums over more entries than this are computed in pieces, which keeps rounding errors small.
constexpr std::int64_t kPiece = 256;

// Registers of one row that are summed together, and rows processed together.
template <class T>
constexpr int kTogether = std::min(kParts<T>, 4);
template <class T>
constexpr int kRows = std::min(kSums / kTogether<T>, 12);

// A matrix read by rows, or by columns: entry (r, j) of the factor.
template <bool kTransposed, class W>
struct Operand {
  const W* values;
  std::int64_t stride;  // of the matrix in memory

  NCUT_INLINE W at(std::int64_t r, std::int64_t j) const {
    return kTransposed ? values[j * stride + r] : values[r * stride + j];
  }
  NCUT_INLINE Operand from(std::int64_t r, std::int64_t j) const {
    return {values + (kTransposed ? j * stride + r : r * stride + j), stride};
  }
};

// y[0:kCount] (=, +=, -=) A[0:kCount, 0:n] x[0:n], for kTogether registers of each row.
template <int kCount, Into kInto, class A, class T>
NCUT_INLINE void tile(A a, std::int64_t n, const T* x, std::int64_t x_stride, T* y,
                      std::int64_t y_stride) {
  constexpr int kP = kTogether<T>;
  Vector<T> sums[kCount][kP] = {};
  for (std::int64_t j = 0; j < n; ++j) {
    Vector<T> other[kP];
    for (int p = 0; p < kP; ++p) other[p] = load(x + j * x_stride + p * kWidth<T>);
    for (int r = 0; r < kCount; ++r) {
      const auto weight = static_cast<T>(a.at(r, j));
      for (int p = 0; p < kP; ++p) sums[r][p] += weight * other[p];
    }
  }
  for (int r = 0; r < kCount; ++r) {
    for (int p = 0; p < kP; ++p) {
      T* to = y + r * y_stride + p * kWidth<T>;
      Vector<T> result = sums[r][p];
      if (kInto == Into::kAdd) result = load(to) + result;
      if (kInto == Into::kSubtract) result = load(to) - result;
      store<T>(result, to);
    }
  }
}

// The same for `rows` rows, the last of which are fewer than kCount.
template <int kCount, Into kInto, class A, class T>
NCUT_INLINE void strip(A a, std::int64_t rows, std::int64_t n, const T* x, std::int64_t x_stride,
                       T* y, std::int64_t y_stride) {
  std::int64_t r = 0;
  for (; r + kCount <= rows; r += kCount) {
    tile<kCount, kInto>(a.from(r, 0), n, x, x_stride, y + r * y_stride, y_stride);
  }
  if constexpr (kCount > 1) {
    strip<kCount / 2, kInto>(a.from(r, 0), rows - r, n, x, x_stride, y + r * y_stride, y_stride);
  }
}

// y[0:rows] (=, +=, -=) A x for `rows` rows of A, n columns, and all `width` lanes of x and y, a
// multiple of kLanes. `y` may be where A is read by rows, if it is one piece.
template <Into kInto, class A, class T>
NCUT_INLINE void times(A a, std::int64_t rows, std::int64_t n, const T* x, std::int64_t x_stride,
                       T* y, std::int64_t y_stride, std::int64_t width) {
  constexpr std::int64_t kStep = kTogether<T> * kWidth<T>;
  if (n == 0 && kInto != Into::kSet) return;
  for (std::int64_t lane = 0; lane < width; lane += kStep) {
    strip<kRows<T>, kInto>(a, rows, std::min(n, kPiece), x + lane, x_stride, y + lane, y_stride);
    for (std::int64_t j = kPiece; j < n; j += kPiece) {
      constexpr Into kMore = kInto == Into::kSubtract ? Into::kSubtract : Into::kAdd;
      strip<kRows<T>, kMore>(a.from(0, j), rows, std::min(n - j, kPiece), x + j * x_stride + lane,
                             x_stride, y + lane, y_stride);
    }
  }
}

}  // namespace
}  // namespace ncut::NCUT_ISA
