#include "rescale.hpp"

#include <algorithm>
#include <vector>

#include "portable.hpp"
#include "simd.hpp"

namespace ncut {
namespace {

template <class T>
NCUT_INLINE double sum_of_squares(const T* values, std::int64_t n) {
  T lanes[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) lanes[l] += values[i + l] * values[i + l];
  }
  double sum = 0;
  for (; i < n; ++i) sum += static_cast<double>(values[i]) * values[i];
  for (const T lane : lanes) sum += static_cast<double>(lane);
  return sum;
}

template <class T>
NCUT_INLINE void normalize(T* incoming, std::int64_t n, std::int64_t n_in, T* bias, T* outgoing,
                           std::int64_t n_rows, std::int64_t width, double norm) {
  std::vector<T> inverse(static_cast<std::size_t>(n * width), T{1});
  for (std::int64_t i = 0; i < n; ++i) {
    T* row = incoming + i * n_in;
    double squares = sum_of_squares(row, n_in);
    if (bias != nullptr) squares += static_cast<double>(bias[i]) * bias[i];
    if (squares == 0) continue;
    const double length = std::sqrt(squares);
    const auto factor = static_cast<T>(norm / length);
    for (std::int64_t j = 0; j < n_in; ++j) row[j] *= factor;
    if (bias != nullptr) bias[i] *= factor;
    std::fill_n(inverse.begin() + i * width, width, static_cast<T>(length / norm));
  }
  const std::int64_t n_columns = n * width;
  for (std::int64_t r = 0; r < n_rows; ++r) {
    T* row = outgoing + r * n_columns;
    for (std::int64_t j = 0; j < n_columns; ++j) row[j] *= inverse[static_cast<std::size_t>(j)];
  }
}

#define NCUT_NORMALIZE(T)                                                                    \
  NCUT_CLONES void run(T* incoming, std::int64_t n, std::int64_t n_in, T* bias, T* outgoing, \
                       std::int64_t n_rows, std::int64_t width, double norm) {               \
    normalize(incoming, n, n_in, bias, outgoing, n_rows, width, norm);                       \
  }
NCUT_NORMALIZE(float)
NCUT_NORMALIZE(double)
#undef NCUT_NORMALIZE

}  // namespace

template <class T>
void normalize_neurons(T* incoming, std::int64_t n, std::int64_t n_in, T* bias, T* outgoing,
                       std::int64_t n_rows, std::int64_t width, double norm) {
  run(incoming, n, n_in, bias, outgoing, n_rows, width, norm);
}

template void normalize_neurons(float*, std::int64_t, std::int64_t, float*, float*, std::int64_t,
                                std::int64_t, double);
template void normalize_neurons(double*, std::int64_t, std::int64_t, double*, double*, std::int64_t,
                                std::int64_t, double);

}  // namespace ncut
