#include "subspace.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "kernels.hpp"
#include "lanes.hpp"
#include "orthonormalize.hpp"
#include "parallel.hpp"

namespace ncut {
namespace {

constexpr int kMaxDegree = 8;
// A filter that magnifies the largest eigenvalue more than this leaves vectors whose lengths are
// too different for a joint orthonormalization.
constexpr double kMaxGrowth = 1e3;
// Eigenvalues of C'C below this cannot be distinguished from zero.
template <class T>
constexpr double kRounding = sizeof(T) == 4 ? 1e-7 : 1e-15;
constexpr int kSweeps = 30;
// Entries of a projected matrix below this, relative to the largest, count as zero.
template <class T>
constexpr double kNegligible = sizeof(T) == 4 ? 1e-9 : 1e-16;

using Row = double[kLanes];

// Degrees: sums of magnitudes over the rows and the columns of each block.
template <class T>
void add_sums(const PlacedBlock<Magnitude<T>>& placed, double* degrees, std::vector<T>& columns) {
  const auto& block = placed.block;
  columns.assign(static_cast<std::size_t>(block.n_cols), T{0});
  for (std::int64_t i = 0; i < block.n_rows; ++i) {
    const T* row = &block.values[i * block.n_cols].value;
    degrees[placed.first_row + i] +=
        vector_kernels<T>().add_magnitudes(row, block.n_cols, columns.data());
  }
  for (std::int64_t j = 0; j < block.n_cols; ++j) {
    degrees[placed.first_col + j] += columns[static_cast<std::size_t>(j)];
  }
}

// Cyclic Jacobi: eigenvalues of a symmetric matrix (destroyed), descending, and its eigenvectors
// as columns of `mixture`. With a warm start the matrix is nearly diagonal, and two sweeps suffice.
void eigenpairs(Row* matrix, double negligible, double* values, Row* mixture) {
  Row turned[kLanes];  // eigenvectors as rows, so that a rotation runs along lanes
  for (int a = 0; a < kLanes; ++a) {
    for (int b = 0; b < kLanes; ++b) turned[a][b] = a == b;
  }
  double scale = 0;
  for (int a = 0; a < kLanes; ++a) scale = std::max(scale, std::abs(matrix[a][a]));
  for (int sweep = 0; sweep < kSweeps; ++sweep) {
    double largest = 0;
    for (int p = 0; p < kLanes; ++p) {
      for (int q = p + 1; q < kLanes; ++q) {
        const double off = matrix[p][q];
        largest = std::max(largest, std::abs(off));
        if (std::abs(off) <= negligible * scale) continue;
        const double theta = (matrix[q][q] - matrix[p][p]) / (2 * off);
        const double t = std::copysign(1.0, theta) / (std::abs(theta) + std::hypot(theta, 1.0));
        const double c = 1 / std::sqrt(t * t + 1), s = t * c;
        for (int k = 0; k < kLanes; ++k) {
          const double row_p = matrix[p][k], row_q = matrix[q][k];
          matrix[p][k] = c * row_p - s * row_q;
          matrix[q][k] = s * row_p + c * row_q;
          const double old_p = turned[p][k], old_q = turned[q][k];
          turned[p][k] = c * old_p - s * old_q;
          turned[q][k] = s * old_p + c * old_q;
        }
        for (int k = 0; k < kLanes; ++k) {
          const double col_p = matrix[k][p], col_q = matrix[k][q];
          matrix[k][p] = c * col_p - s * col_q;
          matrix[k][q] = s * col_p + c * col_q;
        }
      }
    }
    if (!(largest > 10 * negligible * scale)) break;
  }
  std::array<int, kLanes> order;
  for (int a = 0; a < kLanes; ++a) order[static_cast<std::size_t>(a)] = a;
  std::sort(order.begin(), order.end(), [&](int a, int b) { return matrix[a][a] > matrix[b][b]; });
  for (int b = 0; b < kLanes; ++b) {
    const int from = order[static_cast<std::size_t>(b)];
    values[b] = matrix[from][from];
    for (int a = 0; a < kLanes; ++a) mixture[a][b] = turned[from][a];
  }
}

inline bool finite(const Row* matrix) {
  double sum = 0;
  for (int a = 0; a < kLanes; ++a) {
    for (int b = 0; b < kLanes; ++b) sum += matrix[a][b];
  }
  return std::isfinite(sum);
}

// Norms of the columns of `product - block diag(values)`.
template <class T>
void residual_norms(const T* product, const T* block, std::int64_t n, const double* values,
                    double* norms) {
  vector_kernels<T>().residual_squares(product, block, n, values, norms);
  for (int a = 0; a < kLanes; ++a) norms[a] = std::sqrt(norms[a]);
}

// The interval of eigenvalues that a filter damps, mapped to [-1, 1].
struct Interval {
  double centre, half;

  double mapped(double value) const { return (value - centre) / half; }
};

// The largest degree, at most `wanted`, with a tolerable growth of the largest eigenvalue.
int bearable_degree(const Interval& damped, double largest, int wanted) {
  const double x = std::max(damped.mapped(largest), 1.0);
  const double degree = std::log(2 * kMaxGrowth) / std::max(std::acosh(x), 1e-3);
  return std::clamp(static_cast<int>(degree), 1, wanted);
}

// M, or C'C on the second colour, applied to blocks of 16 vectors.
template <class T>
class Operator {
 public:
  Operator(const WeightedGraph<T>& graph, const double* degrees, int n_threads)
      : graph_(graph), matrix_{graph.blocks, {}}, n_threads_(n_threads) {
    const auto n = static_cast<std::size_t>(graph.n);
    scale_.resize(n);
    for (std::size_t v = 0; v < n; ++v) {
      scale_[v] = degrees[v] > 0 ? static_cast<T>(1 / std::sqrt(degrees[v])) : T{0};
    }
    if (graph.bipartite()) {
      square_.resize(static_cast<std::size_t>(graph.n_first));
      for (std::size_t v = 0; v < square_.size(); ++v) square_[v] = scale_[v] * scale_[v];
    }
    scaled_.resize(n * kLanes);
    product_.resize(n * kLanes);
  }

  // The product with x (n_side x 16); it stays valid until the next call.
  T* apply(const T* x) {
    const std::int64_t n = graph_.n, from = graph_.n_first;
    vector_kernels<T>().scale_rows(scale_.data() + from, x, n - from, kLanes, at(scaled_, from));
    if (graph_.bipartite()) {
      multiply(matrix_, scaled_.data(), kLanes, square_.data(), 0, from, scaled_.data(),
               n_threads_);
    }
    multiply(matrix_, scaled_.data(), kLanes, scale_.data(), from, n, product_.data(), n_threads_);
    return at(product_, from);
  }

  // After apply(x): D^-1/2 x, and for the first colour D^-1/2 C x.
  T* scaled() { return scaled_.data(); }

 private:
  static T* at(std::vector<T>& block, std::int64_t v) {
    return block.data() + static_cast<std::size_t>(v) * kLanes;
  }

  const WeightedGraph<T>& graph_;
  SymmetricMatrix<Magnitude<T>, std::int32_t> matrix_;
  int n_threads_;
  std::vector<T> scale_, square_, scaled_, product_;
};

// Scales the columns to unit length, since a strong filter makes them differ too much, and
// orthonormalizes.
template <class T>
bool orthonormal(T* block, const std::vector<T>& known, std::int64_t n, T* out) {
  double lengths[kLanes];
  const double zeros[kLanes] = {};
  residual_norms(block, block, n, zeros, lengths);
  T scale[kLanes];
  for (int l = 0; l < kLanes; ++l) scale[l] = static_cast<T>(lengths[l] > 0 ? 1 / lengths[l] : 1);
  for (std::int64_t i = 0; i < n; ++i) {
    for (int l = 0; l < kLanes; ++l) block[i * kLanes + l] *= scale[l];
  }
  T inside[kLanes];
  vector_kernels<T>().inner_products(block, known.data(), n, 1, 1, inside);
  double factor[kLanes * kLanes];
  return orthonormalize(block, known.data(), n, 1, 1, inside, out, factor);
}

}  // namespace

template <class T>
Progress update_eigenvectors(const WeightedGraph<T>& graph, const Accuracy& accuracy,
                             Philox& random, int n_threads, T* basis, double* degrees,
                             double* values, double* residuals, T* vectors) {
  const std::int64_t n = graph.n, n_side = graph.n_side(), size = n_side * kLanes;
  std::fill_n(degrees, n, 0.0);
  std::vector<T> columns;
  for (const auto& placed : graph.blocks) add_sums(placed, degrees, columns);
  const VectorKernels<T>& use = vector_kernels<T>();
  Operator<T> op(graph, degrees, n_threads);
  std::vector<T> known(static_cast<std::size_t>(n_side));
  double volume = 0;
  for (std::int64_t v = graph.n_first; v < n; ++v) volume += degrees[v];
  for (std::int64_t v = graph.n_first; v < n; ++v) {
    known[static_cast<std::size_t>(v - graph.n_first)] =
        static_cast<T>(std::sqrt(degrees[v] / volume));
  }
  for (std::int64_t i = 0; i < n_side; ++i) {
    basis[i * kLanes + kLanes - 1] = static_cast<T>(random.uniform() - 0.5);
  }
  std::vector<T> block(static_cast<std::size_t>(size));
  Progress progress{0, false, false};
  Row projected[kLanes], mixture[kLanes];
  double squares[kLanes];
  for (int round = 0;; ++round) {
    if (!orthonormal(basis, known, n_side, block.data())) {
      progress.broken = true;
      return progress;
    }
    T* product = op.apply(block.data());
    ++progress.n_products;
    use.gram(block.data(), product, n_side, projected[0]);
    for (int a = 0; a < kLanes; ++a) {
      for (int b = 0; b < a; ++b) {
        projected[a][b] = projected[b][a] = (projected[a][b] + projected[b][a]) / 2;
      }
    }
    if (!finite(projected)) {
      progress.broken = true;
      return progress;
    }
    eigenpairs(projected, kNegligible<T>, squares, mixture);
    T turned[kLanes * kLanes];
    for (int a = 0; a < kLanes; ++a) {
      for (int b = 0; b < kLanes; ++b) turned[a * kLanes + b] = static_cast<T>(mixture[a][b]);
    }
    use.rotate(block.data(), n_side, turned);
    use.rotate(product, n_side, turned);
    residual_norms(product, block.data(), n_side, squares, residuals);
    double worst = 0;
    for (int a = 0; a < kLanes; ++a) {
      values[a] = squares[a];
      if (graph.bipartite()) {
        // On C'C, whose eigenvalues are squares, a residual r means r / (sqrt(2) mu) on M.
        values[a] = std::sqrt(std::max(squares[a], 0.0));
        residuals[a] = squares[a] > kRounding<T> ? residuals[a] / std::sqrt(2 * squares[a]) : 0;
      }
      if (a < accuracy.n_wanted) worst = std::max(worst, residuals[a]);
    }
    progress.converged = worst <= accuracy.tolerance;
    const bool last = progress.converged || progress.n_products >= accuracy.max_products;
    if (last) {
      T* scaled = op.scaled();
      use.rotate(scaled, n, turned);
      T factors[kLanes];
      for (int l = 0; l < kLanes; ++l) {
        factors[l] = static_cast<T>(1 / std::sqrt(2 * std::max(squares[l], kRounding<T>)));
      }
      const auto half = static_cast<T>(graph.bipartite() ? std::sqrt(0.5) : 1.0);
      for (std::int64_t v = 0; v < n; ++v) {
        for (int l = 0; l < kLanes; ++l) {
          vectors[v * kLanes + l] =
              scaled[v * kLanes + l] * (v < graph.n_first ? factors[l] : half);
        }
      }
    }
    // A filter of degree 1 needs no further product; it improves the start of the next call.
    const double low = graph.bipartite() ? 0.0 : -1.0;
    const double least = std::max(graph.bipartite() ? 1e-6 * squares[0] : 1e-3, kRounding<T>);
    const double high = std::max(squares[kLanes - 2], low + least);
    const Interval damped{(high + low) / 2, (high - low) / 2};
    const int wanted = last || round < 1 ? 1 : std::min(2 * round, kMaxDegree);
    const int degree = bearable_degree(damped, squares[0], wanted);
    const auto slope = static_cast<T>(1 / damped.half), centre = static_cast<T>(damped.centre);
    use.recur(product, block.data(), basis, size, slope, centre, true);
    if (last) return progress;
    T *before = block.data(), *current = basis;
    for (int d = 1; d < degree; ++d) {
      T* next = op.apply(current);
      // Rounding brings the first eigenvector back, and a strong filter would make it the largest.
      use.deflate(known.data(), n_side, next);
      ++progress.n_products;
      use.recur(next, current, before, size, 2 * slope, centre, false);
      std::swap(before, current);
    }
    if (current != basis) std::copy_n(current, size, basis);
  }
}

namespace {

constexpr std::int64_t kGradientRows = 64;

}  // namespace

template <class T>
void eigenvalue_gradient(const WeightedGraph<T>& graph, const double* slopes, const double* values,
                         const T* vectors, int n_threads, const std::vector<T*>& gradients) {
  T used[kLanes];
  int columns[kLanes], k = 0;
  for (int c = 0; c < kLanes; ++c) {
    if (slopes[c] == 0) continue;
    columns[k] = c;
    used[k++] = static_cast<T>(slopes[c]);
  }
  const auto n = static_cast<std::size_t>(graph.n);
  std::vector<T> turned(n * static_cast<std::size_t>(k)), sums(n);
  for (std::size_t v = 0; v < n; ++v) {
    double sum = 0;
    for (int c = 0; c < k; ++c) {
      const T entry = vectors[v * kLanes + static_cast<std::size_t>(columns[c])];
      turned[static_cast<std::size_t>(c) * n + v] = entry;
      sum += slopes[columns[c]] * values[columns[c]] * static_cast<double>(entry) * entry;
    }
    sums[v] = static_cast<T>(sum);
  }
  const VectorKernels<T>& use = vector_kernels<T>();
  const T *sums_data = sums.data(), *turned_data = turned.data();
  for (std::size_t b = 0; b < graph.blocks.size(); ++b) {
    const auto& placed = graph.blocks[b];
    const std::int64_t n_rows = placed.block.n_rows;
    parallel_for((n_rows + kGradientRows - 1) / kGradientRows, n_threads, [&](std::int64_t part) {
      const std::int64_t begin = part * kGradientRows;
      for (std::int64_t i = begin; i < std::min(begin + kGradientRows, n_rows); ++i) {
        const std::int64_t vertex = placed.first_row + i, at = i * placed.block.n_cols;
        T factors[kLanes];
        for (int c = 0; c < k; ++c) factors[c] = -2 * used[c] * turned_data[c * graph.n + vertex];
        use.gradient_row(&placed.block.values[at].value, placed.block.n_cols, sums_data[vertex],
                         sums_data + placed.first_col, turned_data + placed.first_col, graph.n,
                         factors, k, gradients[b] + at);
      }
    });
  }
}

#define NCUT_SUBSPACE(T)                                                                        \
  template Progress update_eigenvectors(const WeightedGraph<T>&, const Accuracy&, Philox&, int, \
                                        T*, double*, double*, double*, T*);                     \
  template void eigenvalue_gradient(const WeightedGraph<T>&, const double*, const double*,      \
                                    const T*, int, const std::vector<T*>&);
NCUT_SUBSPACE(float)
NCUT_SUBSPACE(double)
#undef NCUT_SUBSPACE

}  // namespace ncut
