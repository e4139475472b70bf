#include "orthonormalize.hpp"

#include <algorithm>
#include <cmath>

#include "portable.hpp"
#include "simd.hpp"

namespace ncut {
namespace {

constexpr int kMaxPasses = 5;
constexpr double kNearly = 1e-3;  // a pass that changes the block by less was the last
constexpr double kSafe = 1e-5;    // a smaller diagonal of the scaled Cholesky factor is not trusted
constexpr int kGroup = 8;         // columns handled together, in registers

using Square = double[kLanes][kLanes];

// inside = against' block.
template <class T>
NCUT_INLINE void inner_products(const T* block, const T* against, std::int64_t n, std::int64_t m,
                                std::int64_t stride, T* inside) {
  std::int64_t j = 0;
  for (; j + kGroup <= m; j += kGroup) {
    typename Lanes<T>::type sums[kGroup] = {};
    for (std::int64_t i = 0; i < n; ++i) {
      const auto row = load(block + i * kLanes);
      for (int g = 0; g < kGroup; ++g) sums[g] += against[i * stride + j + g] * row;
    }
    for (int g = 0; g < kGroup; ++g) store<T>(sums[g], inside + (j + g) * kLanes);
  }
  for (; j < m; ++j) {
    typename Lanes<T>::type sum = {};
    for (std::int64_t i = 0; i < n; ++i) sum += against[i * stride + j] * load(block + i * kLanes);
    store<T>(sum, inside + j * kLanes);
  }
}

// out = block - against inside.
template <class T>
NCUT_INLINE void subtract(const T* block, const T* against, std::int64_t n, std::int64_t m,
                          std::int64_t stride, const T* inside, T* out) {
  constexpr int kRows = 4;
  std::int64_t i = 0;
  for (; i + kRows <= n; i += kRows) {
    typename Lanes<T>::type rows[kRows];
    for (int r = 0; r < kRows; ++r) rows[r] = load(block + (i + r) * kLanes);
    for (std::int64_t j = 0; j < m; ++j) {
      const auto part = load(inside + j * kLanes);
      for (int r = 0; r < kRows; ++r) rows[r] -= against[(i + r) * stride + j] * part;
    }
    for (int r = 0; r < kRows; ++r) store<T>(rows[r], out + (i + r) * kLanes);
  }
  for (; i < n; ++i) {
    auto row = load(block + i * kLanes);
    for (std::int64_t j = 0; j < m; ++j) row -= against[i * stride + j] * load(inside + j * kLanes);
    store<T>(row, out + i * kLanes);
  }
}

template <class T>
NCUT_INLINE void gram_matrix(const T* block, std::int64_t n, Square& gram) {
  typename Lanes<double>::type sums[kLanes] = {};
  for (std::int64_t i = 0; i < n; ++i) {
    const auto row = __builtin_convertvector(load(block + i * kLanes), Lanes<double>::type);
    for (int a = 0; a < kLanes; ++a) sums[a] += static_cast<double>(block[i * kLanes + a]) * row;
  }
  for (int a = 0; a < kLanes; ++a) store<double>(sums[a], gram[a]);
}

// The upper triangle R with R' R = gram, by columns scaled to unit length; false if not safe.
inline bool cholesky(const Square& gram, Square& triangle) {
  double lengths[kLanes];
  double longest = 0;
  for (int a = 0; a < kLanes; ++a) {
    lengths[a] = std::sqrt(gram[a][a]);
    longest = std::max(longest, lengths[a]);
  }
  for (int a = 0; a < kLanes; ++a) {
    if (!(lengths[a] > kSafe * longest)) return false;
    for (int b = 0; b < kLanes; ++b) triangle[a][b] = 0;
  }
  for (int a = 0; a < kLanes; ++a) {
    double rest = 1;
    for (int c = 0; c < a; ++c) rest -= triangle[c][a] * triangle[c][a];
    if (!(rest > kSafe * kSafe)) return false;
    triangle[a][a] = std::sqrt(rest);
    for (int b = a + 1; b < kLanes; ++b) {
      double sum = gram[a][b] / (lengths[a] * lengths[b]);
      for (int c = 0; c < a; ++c) sum -= triangle[c][a] * triangle[c][b];
      triangle[a][b] = sum / triangle[a][a];
    }
  }
  for (int a = 0; a < kLanes; ++a) {
    for (int b = a; b < kLanes; ++b) triangle[a][b] *= lengths[b];
  }
  return true;
}

// Solves X R = block in place, row by row.
template <class T>
NCUT_INLINE void divide(T* block, std::int64_t n, const Square& triangle) {
  T inverse[kLanes][kLanes] = {};  // upper triangular
  for (int b = 0; b < kLanes; ++b) {
    double column[kLanes] = {};
    column[b] = 1 / triangle[b][b];
    for (int a = b - 1; a >= 0; --a) {
      double sum = 0;
      for (int c = a + 1; c <= b; ++c) sum -= triangle[a][c] * column[c];
      column[a] = sum / triangle[a][a];
    }
    for (int a = 0; a <= b; ++a) inverse[a][b] = static_cast<T>(column[a]);
  }
  for (std::int64_t i = 0; i < n; ++i) {
    typename Lanes<T>::type row = {};
    for (int a = 0; a < kLanes; ++a) row += block[i * kLanes + a] * load(inverse[a]);
    store<T>(row, block + i * kLanes);
  }
}

// factor = triangle factor, both upper triangular; whether triangle is nearly the identity.
inline bool accumulate(const Square& triangle, double* factor) {
  double distance = 0;
  for (int a = 0; a < kLanes; ++a) {
    double row[kLanes] = {};
    for (int c = a; c < kLanes; ++c) {
      distance = std::max(distance, std::abs(triangle[a][c] - (a == c)));
      for (int b = 0; b < kLanes; ++b) row[b] += triangle[a][c] * factor[c * kLanes + b];
    }
    std::copy_n(row, kLanes, factor + a * kLanes);
  }
  return distance < kNearly;
}

template <class T>
NCUT_INLINE bool passes(const T* block, const T* against, std::int64_t n, std::int64_t m,
                        std::int64_t stride, T* inside, T* out, double* factor) {
  for (int a = 0; a < kLanes; ++a) {
    for (int b = 0; b < kLanes; ++b) factor[a * kLanes + b] = a == b;
  }
  for (int number = 0; number < kMaxPasses; ++number) {
    if (number > 0) inner_products(out, against, n, m, stride, inside);
    subtract(number > 0 ? out : block, against, n, m, stride, inside, out);
    Square gram, triangle;
    gram_matrix(out, n, gram);
    if (!cholesky(gram, triangle)) return false;
    divide(out, n, triangle);
    if (accumulate(triangle, factor) && number > 0) return true;
  }
  return false;
}

NCUT_CLONES bool run(const float* block, const float* against, std::int64_t n, std::int64_t m,
                     std::int64_t stride, float* inside, float* out, double* factor) {
  return passes(block, against, n, m, stride, inside, out, factor);
}

NCUT_CLONES bool run(const double* block, const double* against, std::int64_t n, std::int64_t m,
                     std::int64_t stride, double* inside, double* out, double* factor) {
  return passes(block, against, n, m, stride, inside, out, factor);
}

}  // namespace

template <class T>
bool orthonormalize(const T* block, const T* against, std::int64_t n, std::int64_t m,
                    std::int64_t stride, T* inside, T* out, double* factor) {
  return run(block, against, n, m, stride, inside, out, factor);
}

template bool orthonormalize(const float*, const float*, std::int64_t, std::int64_t, std::int64_t,
                             float*, float*, double*);
template bool orthonormalize(const double*, const double*, std::int64_t, std::int64_t, std::int64_t,
                             double*, double*, double*);

}  // namespace ncut
