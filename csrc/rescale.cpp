#include "rescale.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "portable.hpp"
#include "simd.hpp"

namespace ncut {
namespace {

// Neurons whose norm is right to rounding stay as they are, bit for bit.
constexpr double kNear = 1e-6;

// In double precision, as squares of floats may overflow.
template <class T>
NCUT_INLINE double sum_of_squares(const T* values, std::int64_t n) {
  typename Lanes<double>::type lanes = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const auto wide = __builtin_convertvector(load(values + i), Lanes<double>::type);
    lanes += wide * wide;
  }
  double sum = 0;
  for (; i < n; ++i) sum += static_cast<double>(values[i]) * static_cast<double>(values[i]);
  for (int l = 0; l < kLanes; ++l) sum += lanes[l];
  return sum;
}

template <class T>
NCUT_INLINE bool normalize(T* incoming, std::int64_t n, std::int64_t n_in, T* bias, T* outgoing,
                           std::int64_t n_rows, std::int64_t width, double norm) {
  std::vector<T> inverse(static_cast<std::size_t>(n * width), T{1});
  bool changed = false;
  for (std::int64_t i = 0; i < n; ++i) {
    T* row = incoming + i * n_in;
    double squares = sum_of_squares(row, n_in);
    if (bias != nullptr) squares += static_cast<double>(bias[i]) * bias[i];
    const double length = std::sqrt(squares);
    if (length == 0 || std::abs(length / norm - 1) < kNear) continue;
    changed = true;
    const auto factor = static_cast<T>(norm / length);
    for (std::int64_t j = 0; j < n_in; ++j) row[j] *= factor;
    if (bias != nullptr) bias[i] *= factor;
    std::fill_n(inverse.begin() + i * width, width, static_cast<T>(length / norm));
  }
  if (!changed) return false;
  const std::int64_t n_columns = n * width;
  for (std::int64_t r = 0; r < n_rows; ++r) {
    T* row = outgoing + r * n_columns;
    for (std::int64_t j = 0; j < n_columns; ++j) row[j] *= inverse[static_cast<std::size_t>(j)];
  }
  return true;
}

#define NCUT_NORMALIZE(T)                                                                    \
  NCUT_CLONES bool run(T* incoming, std::int64_t n, std::int64_t n_in, T* bias, T* outgoing, \
                       std::int64_t n_rows, std::int64_t width, double norm) {               \
    return normalize(incoming, n, n_in, bias, outgoing, n_rows, width, norm);                \
  }
NCUT_NORMALIZE(float)
NCUT_NORMALIZE(double)
#undef NCUT_NORMALIZE

}  // namespace

template <class T>
bool normalize_neurons(T* incoming, std::int64_t n, std::int64_t n_in, T* bias, T* outgoing,
                       std::int64_t n_rows, std::int64_t width, double norm) {
  return run(incoming, n, n_in, bias, outgoing, n_rows, width, norm);
}

template bool normalize_neurons(float*, std::int64_t, std::int64_t, float*, float*, std::int64_t,
                                std::int64_t, double);
template bool normalize_neurons(double*, std::int64_t, std::int64_t, double*, double*, std::int64_t,
                                std::int64_t, double);

}  // namespace ncut
