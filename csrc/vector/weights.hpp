// Passes over weights: sums of magnitudes, gradients of eigenvalues, rescaled neurons.
#pragma once

#include <cmath>

#include "magnitude.hpp"
#include "product.hpp"
#include "simd.hpp"

namespace ncut::NCUT_ISA {
namespace {

// The sum of a row's magnitudes; adds them to the sums of the columns as well.
template <class T>
double add_magnitudes(const T* row, std::int64_t n, T* columns) {
  Vector<T> sums[kParts<T>] = {};
  std::int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) {
    for (int p = 0; p < kParts<T>; ++p) {
      const std::int64_t at = j + p * kWidth<T>;
      const Vector<T> value = load(row + at);
      const Vector<T> weight = value < Vector<T>{} ? -value : value;
      sums[p] += weight;
      store<T>(load(columns + at) + weight, columns + at);
    }
  }
  double total = 0;
  for (; j < n; ++j) {
    const T weight = std::abs(row[j]);
    total += weight;
    columns[j] += weight;
  }
  for (const Vector<T>& part : sums) total += sum_of_lanes<T>(part);
  return total;
}

// gradient[j] = sign(w_j) (row_sum + column_sums[j] + sum_c factors[c] columns[c * stride + j]).
template <class T>
void gradient_row(const T* weights, std::int64_t n, T row_sum, const T* column_sums,
                  const T* columns, std::int64_t stride, const T* factors, int k, T* out) {
  std::int64_t j = 0;
  for (; j + kWidth<T> <= n; j += kWidth<T>) {
    Vector<T> sum = load(column_sums + j) + row_sum;
    for (int c = 0; c < k; ++c) sum += factors[c] * load(columns + c * stride + j);
    const Vector<T> weight = load(weights + j), zero = {};
    store<T>(weight > zero ? sum : (weight < zero ? -sum : zero), out + j);
  }
  for (; j < n; ++j) {
    T sum = column_sums[j] + row_sum;
    for (int c = 0; c < k; ++c) sum += factors[c] * columns[c * stride + j];
    out[j] = weights[j] > 0 ? sum : weights[j] < 0 ? -sum : T{0};
  }
}

// In double precision, as squares of floats may overflow.
template <class T>
double sum_of_squares(const T* values, std::int64_t n) {
  double lanes[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::int64_t l = 0; l < kLanes; ++l) {
      const auto wide = static_cast<double>(values[i + l]);
      lanes[l] += wide * wide;
    }
  }
  double sum = 0;
  for (; i < n; ++i) sum += static_cast<double>(values[i]) * static_cast<double>(values[i]);
  for (const double lane : lanes) sum += lane;
  return sum;
}

// values *= factors, number by number.
template <class T>
void multiply_by(T* values, const T* factors, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) values[i] *= factors[i];
}

}  // namespace
}  // namespace ncut::NCUT_ISA
