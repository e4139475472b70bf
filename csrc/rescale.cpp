#include "rescale.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels.hpp"

namespace ncut {
namespace {

// Neurons whose norm is right up to rounding stay unchanged, bit for bit.
constexpr double kNear = 1e-6;

}  // namespace

template <class T>
bool normalize_neurons(T* incoming, std::int64_t n, std::int64_t n_in, T* bias, T* outgoing,
                       std::int64_t n_rows, std::int64_t width, double norm) {
  const VectorKernels<T>& use = vector_kernels<T>();
  std::vector<T> inverse(static_cast<std::size_t>(n * width), T{1});
  bool changed = false;
  for (std::int64_t i = 0; i < n; ++i) {
    T* row = incoming + i * n_in;
    double squares = use.sum_of_squares(row, n_in);
    if (bias != nullptr) squares += static_cast<double>(bias[i]) * bias[i];
    const double length = std::sqrt(squares);
    if (length == 0 || std::abs(length / norm - 1) < kNear) continue;
    changed = true;
    const auto factor = static_cast<T>(norm / length);
    use.scale_rows(&factor, row, 1, n_in, row);
    if (bias != nullptr) bias[i] *= factor;
    std::fill_n(inverse.begin() + i * width, width, static_cast<T>(length / norm));
  }
  if (!changed) return false;
  const std::int64_t n_columns = n * width;
  for (std::int64_t r = 0; r < n_rows; ++r) {
    use.multiply_by(outgoing + r * n_columns, inverse.data(), n_columns);
  }
  return true;
}

template bool normalize_neurons(float*, std::int64_t, std::int64_t, float*, float*, std::int64_t,
                                std::int64_t, double);
template bool normalize_neurons(double*, std::int64_t, std::int64_t, double*, double*, std::int64_t,
                                std::int64_t, double);

}  // namespace ncut
