#include "orthonormalize.hpp"

#include <algorithm>
#include <cmath>

#include "kernels.hpp"
#include "lanes.hpp"

namespace ncut {
namespace {

constexpr int kMaxPasses = 5;
constexpr double kNearly = 1e-3;  // a pass that changes the block by less was the last
constexpr double kSafe = 1e-5;    // a smaller diagonal of the scaled Cholesky factor is not trusted

using Square = double[kLanes][kLanes];

// The upper triangle R with R' R = gram, by columns scaled to unit length; false if not safe.
bool cholesky(const Square& gram, Square& triangle) {
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

// The inverse of an upper triangle.
template <class T>
void invert(const Square& triangle, T* inverse) {
  std::fill_n(inverse, kLanes * kLanes, T{0});
  for (int b = 0; b < kLanes; ++b) {
    double column[kLanes] = {};
    column[b] = 1 / triangle[b][b];
    for (int a = b - 1; a >= 0; --a) {
      double sum = 0;
      for (int c = a + 1; c <= b; ++c) sum -= triangle[a][c] * column[c];
      column[a] = sum / triangle[a][a];
    }
    for (int a = 0; a <= b; ++a) inverse[a * kLanes + b] = static_cast<T>(column[a]);
  }
}

// factor = triangle factor, both upper triangular; whether triangle is nearly the identity.
bool accumulate(const Square& triangle, double* factor) {
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

}  // namespace

template <class T>
bool orthonormalize(const T* block, const T* against, std::int64_t n, std::int64_t m,
                    std::int64_t stride, T* inside, T* out, double* factor) {
  const VectorKernels<T>& use = vector_kernels<T>();
  for (int a = 0; a < kLanes; ++a) {
    for (int b = 0; b < kLanes; ++b) factor[a * kLanes + b] = a == b;
  }
  std::copy_n(block, n * kLanes, out);
  for (int number = 0; number < kMaxPasses; ++number) {
    if (number > 0) use.inner_products(out, against, n, m, stride, inside);
    use.subtract(against, n, m, stride, inside, out);
    Square gram, triangle;
    use.gram(out, out, n, gram[0]);
    if (!cholesky(gram, triangle)) return false;
    T inverse[kLanes * kLanes];
    invert(triangle, inverse);
    use.rotate(out, n, inverse);
    if (accumulate(triangle, factor) && number > 0) return true;
  }
  return false;
}

template bool orthonormalize(const float*, const float*, std::int64_t, std::int64_t, std::int64_t,
                             float*, float*, double*);
template bool orthonormalize(const double*, const double*, std::int64_t, std::int64_t, std::int64_t,
                             double*, double*, double*);

}  // namespace ncut
