// Steps of the eigensolvers on blocks of kLanes vectors of T, n x kLanes, row-major.
#pragma once

#include <cmath>

#include "gemm.hpp"

namespace ncut::NCUT_ISA {
namespace {

// Rows copied or widened together.
constexpr std::int64_t kChunk = 64;

// inside = against' block, (m x kLanes), for the first m columns of `against` (n x stride).
template <class T>
void inner_products(const T* block, const T* against, std::int64_t n, std::int64_t m,
                    std::int64_t stride, T* inside) {
  times<Into::kSet>(Operand<true, T>{against, stride}, m, n, block, kLanes, inside, kLanes, kLanes);
}

// block -= against inside.
template <class T>
void subtract(const T* against, std::int64_t n, std::int64_t m, std::int64_t stride,
              const T* inside, T* block) {
  times<Into::kSubtract>(Operand<false, T>{against, stride}, n, m, inside, kLanes, block, kLanes,
                         kLanes);
}

// result = first' second (kLanes x kLanes), in double precision.
template <class T>
void gram(const T* first, const T* second, std::int64_t n, double* result) {
  for (std::int64_t a = 0; a < kLanes * kLanes; ++a) result[a] = 0;
  double wide_first[kChunk * kLanes], wide_second[kChunk * kLanes];
  for (std::int64_t i = 0; i < n; i += kChunk) {
    const std::int64_t rows = std::min(kChunk, n - i);
    for (std::int64_t at = 0; at < rows * kLanes; ++at) {
      wide_first[at] = static_cast<double>(first[i * kLanes + at]);
      wide_second[at] = static_cast<double>(second[i * kLanes + at]);
    }
    times<Into::kAdd>(Operand<true, double>{wide_first, kLanes}, kLanes, rows, wide_second, kLanes,
                      result, kLanes, kLanes);
  }
}

// block = block mixture, in place, mixture (kLanes x kLanes).
template <class T>
void rotate(T* block, std::int64_t n, const T* mixture) {
  T chunk[kChunk * kLanes];
  for (std::int64_t i = 0; i < n; i += kChunk) {
    const std::int64_t rows = std::min(kChunk, n - i);
    std::memcpy(chunk, block + i * kLanes, static_cast<std::size_t>(rows * kLanes) * sizeof(T));
    times<Into::kSet>(Operand<false, T>{chunk, kLanes}, rows, kLanes, mixture, kLanes,
                      block + i * kLanes, kLanes, kLanes);
  }
}

// out = basis mixture: basis n x m in rows of `stride`, mixture m x width, out n x width, `width`
// a multiple of kLanes.
template <class T>
void mix(const T* basis, std::int64_t n, std::int64_t m, std::int64_t stride, const T* mixture,
         std::int64_t width, T* out) {
  times<Into::kSet>(Operand<false, T>{basis, stride}, n, m, mixture, width, out, width, width);
}

// Sums of squares, column by column, of `product - block diag(values)`.
template <class T>
void residual_squares(const T* product, const T* block, std::int64_t n, const double* values,
                      double* squares) {
  T factors[kLanes];
  for (int a = 0; a < kLanes; ++a) {
    factors[a] = static_cast<T>(values[a]);
    squares[a] = 0;
  }
  for (std::int64_t i = 0; i < n; ++i) {
    for (int a = 0; a < kLanes; ++a) {
      const T rest = product[i * kLanes + a] - factors[a] * block[i * kLanes + a];
      squares[a] += static_cast<double>(rest) * static_cast<double>(rest);
    }
  }
}

// before = factor (product - centre current) - before, or without the last term if `first`.
template <class T>
void recur(const T* product, const T* current, T* before, std::int64_t size, T factor, T centre,
           bool first) {
  if (first) {
    for (std::int64_t i = 0; i < size; ++i) before[i] = factor * (product[i] - centre * current[i]);
  } else {
    for (std::int64_t i = 0; i < size; ++i) {
      before[i] = factor * (product[i] - centre * current[i]) - before[i];
    }
  }
}

// inside = known' block for one vector, in turns of kCopies sums; then block -= known inside.
template <class T>
void deflate(const T* known, std::int64_t n, T* block) {
  T inside[kLanes];
  inner_products(block, known, n, 1, 1, inside);
  for (std::int64_t i = 0; i < n; ++i) {
    for (int a = 0; a < kLanes; ++a) block[i * kLanes + a] -= known[i] * inside[a];
  }
}

// out[v] = scale[v] * x[v], for n vectors of `width` numbers.
template <class T>
void scale_rows(const T* scale, const T* x, std::int64_t n, std::int64_t width, T* out) {
  for (std::int64_t v = 0; v < n; ++v) {
    for (std::int64_t a = 0; a < width; ++a) out[v * width + a] = scale[v] * x[v * width + a];
  }
}

}  // namespace
}  // namespace ncut::NCUT_ISA
