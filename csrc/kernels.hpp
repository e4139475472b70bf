// The vectorized kernels, compiled once for each instruction set, and the choice between them.
#pragma once

#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

#include "magnitude.hpp"
#include "product.hpp"

namespace ncut {

// y = scale * A x for the vertices [begin, end), at most kPanel of them: see `multiply`.
template <class W, class I, class T>
using Panel = void (*)(const SymmetricMatrix<W, I>& matrix, const T* x, std::int64_t width,
                       const T* scale, std::int64_t begin, std::int64_t end, T* y);

// Steps on blocks of kLanes vectors of T; documented in csrc/vector/basis.hpp and weights.hpp.
template <class T>
struct VectorKernels {
  void (*inner_products)(const T* block, const T* against, std::int64_t n, std::int64_t m,
                         std::int64_t stride, T* inside);
  void (*subtract)(const T* against, std::int64_t n, std::int64_t m, std::int64_t stride,
                   const T* inside, T* block);
  void (*gram)(const T* first, const T* second, std::int64_t n, double* result);
  void (*rotate)(T* block, std::int64_t n, const T* mixture);
  void (*mix)(const T* basis, std::int64_t n, std::int64_t m, std::int64_t stride, const T* mixture,
              std::int64_t width, T* out);
  void (*residual_squares)(const T* product, const T* block, std::int64_t n, const double* values,
                           double* squares);
  void (*recur)(const T* product, const T* current, T* before, std::int64_t size, T factor,
                T centre, bool first);
  void (*deflate)(const T* known, std::int64_t n, T* block);
  void (*scale_rows)(const T* scale, const T* x, std::int64_t n, std::int64_t width, T* out);
  double (*add_magnitudes)(const T* row, std::int64_t n, T* columns);
  void (*gradient_row)(const T* weights, std::int64_t n, T row_sum, const T* column_sums,
                       const T* columns, std::int64_t stride, const T* factors, int k, T* out);
  double (*sum_of_squares)(const T* values, std::int64_t n);
  void (*multiply_by)(T* values, const T* factors, std::int64_t n);
};

using Panels =
    std::tuple<Panel<float, std::int32_t, float>, Panel<float, std::int64_t, float>,
               Panel<float, std::int32_t, double>, Panel<float, std::int64_t, double>,
               Panel<double, std::int32_t, float>, Panel<double, std::int64_t, float>,
               Panel<double, std::int32_t, double>, Panel<double, std::int64_t, double>,
               Panel<Half, std::int32_t, float>, Panel<Half, std::int64_t, float>,
               Panel<Half, std::int32_t, double>, Panel<Half, std::int64_t, double>,
               Panel<BFloat16, std::int32_t, float>, Panel<BFloat16, std::int64_t, float>,
               Panel<BFloat16, std::int32_t, double>, Panel<BFloat16, std::int64_t, double>,
               Panel<Magnitude<float>, std::int32_t, float>,
               Panel<Magnitude<double>, std::int32_t, double>>;

struct Kernels {
  void (*assign)(const float* tiles, std::int64_t n_tiles, std::int64_t d, const float* centres,
                 const float* half_squares, std::int64_t k, std::int32_t* labels);
  void (*nearer_distances)(const float* tiles, std::int64_t n_tiles, std::int64_t d,
                           const float* candidates, int n_candidates, const float* old,
                           float* nearest, double* totals);
  void (*philox)(std::uint32_t key0, std::uint32_t key1, std::uint32_t stream,
                 std::uint32_t substream, std::uint64_t counter, std::uint32_t* numbers);
  // The processor's own limits; see csrc/vector/ceiling.hpp.
  double (*multiply_adds)(std::int64_t rounds);
  float (*read_all)(const float* values, std::int64_t n);
  std::tuple<VectorKernels<float>, VectorKernels<double>> vectors;
  Panels panels;
};

// The kernels of the instruction set in use: the best that this machine has, unless another was
// chosen.
const Kernels& kernels();

template <class T>
const VectorKernels<T>& vector_kernels() {
  return std::get<VectorKernels<T>>(kernels().vectors);
}

// Names of the instruction sets with kernels in this build that this machine can run, best first.
std::vector<std::string> instruction_sets();

// The instruction set in use.
std::string instruction_set();

// Switches to another instruction set, in all threads. Running kernels finish with their current
// set. Throws std::invalid_argument if this build or this machine does not have it.
void use_instruction_set(const std::string& name);

}  // namespace ncut
