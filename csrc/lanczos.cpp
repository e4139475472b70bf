#include "lanczos.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels.hpp"
#include "lanes.hpp"
#include "orthonormalize.hpp"

namespace ncut {
namespace {

constexpr std::int64_t kMaxBlocks = 7;  // in the basis before it is cut down
constexpr std::int64_t kStride = 2;     // blocks between looks at convergence
constexpr std::int64_t kPatience = 40;  // blocks without progress to speak of
constexpr double kFaint = 1e-6;         // of the mean degree: the reference treats such vertices
constexpr double kZeroSingularValue = 1e-7;

using Square = double[kLanes][kLanes];

// M on all vertices, or C'C on those of the second colour, in float32.
class Operator {
 public:
  Operator(const PlacedNetwork& network, int n_threads)
      : network_(network),
        n_threads_(n_threads),
        scale_(scales<float>(network, 1, 0)),
        scale_here_(scales<float>(network, 1, -network.exponent)),
        square_(scales<float>(network, 2, -network.exponent)),
        there_(static_cast<std::size_t>(network.n * kLanes)),
        back_(there_.size()) {}

  // D^-power/2 times 2^exponent, if single precision can represent it.
  template <class T>
  static std::vector<T> scales(const PlacedNetwork& network, int power, int exponent) {
    std::vector<T> scale;
    for (const double root : network.root_degrees) {
      const double one = power == 1 ? 1.0 / root : (1.0 / root) * (1.0 / root);
      scale.push_back(static_cast<T>(
          std::min(std::ldexp(one, exponent), static_cast<double>(std::numeric_limits<T>::max()))));
    }
    return scale;
  }

  // The product with x (n_side x kLanes); valid until the next call.
  const float* apply(const float* x) {
    const std::int64_t from = network_.n_first, n = network_.n;
    vector_kernels<float>().scale_rows(scale_.data() + from, x, n - from, kLanes,
                                       there_.data() + from * kLanes);
    if (network_.bipartite()) {
      multiply(network_.matrix, there_.data(), kLanes, square_.data(), 0, from, there_.data(),
               n_threads_);
    }
    multiply(network_.matrix, there_.data(), kLanes, scale_here_.data(), from, n, back_.data(),
             n_threads_);
    return back_.data() + from * kLanes;
  }

 private:
  const PlacedNetwork& network_;
  int n_threads_;
  std::vector<float> scale_, scale_here_, square_, there_, back_;
};

// Schedule of convergence checks: see `_Checks` in ncut/spectral/krylov.py.
class Looks {
 public:
  bool due(std::int64_t n_products) const { return n_products >= next_; }

  void record(std::int64_t n_products, double excess, double residual) {
    std::int64_t wait = kStride;
    if (last_excess_ > excess && excess > 1 && last_at_ > 0) {
      const double rate =
          std::log(last_excess_ / excess) / static_cast<double>(n_products - last_at_);
      wait = std::clamp<std::int64_t>(static_cast<std::int64_t>(std::log(excess) / rate), 1,
                                      3 * kStride);
    }
    next_ = n_products + wait;
    last_excess_ = excess;
    last_at_ = n_products;
    if (residual < 0.7 * best_) {
      best_ = residual;
      best_at_ = n_products;
    }
  }

  bool stalled() const { return last_at_ - best_at_ >= kPatience; }

 private:
  std::int64_t next_ = kMaxBlocks, last_at_ = 0, best_at_ = 0;
  double last_excess_ = 0, best_ = std::numeric_limits<double>::infinity();
};

// out (n x width) = the first m columns of `basis` times the first `count` columns of `mixture`
// (m x stride), the rest zero; width a multiple of kLanes.
void mixed(const float* basis, std::int64_t n, std::int64_t m, std::int64_t basis_stride,
           const std::vector<double>& mixture, std::int64_t stride, std::int64_t count,
           std::int64_t width, std::vector<float>& out) {
  std::vector<float> small(static_cast<std::size_t>(m * width), 0.0F);
  for (std::int64_t r = 0; r < m; ++r) {
    for (std::int64_t c = 0; c < count; ++c) {
      small[static_cast<std::size_t>(r * width + c)] =
          static_cast<float>(mixture[static_cast<std::size_t>(r * stride + c)]);
    }
  }
  out.resize(static_cast<std::size_t>(n * width));
  vector_kernels<float>().mix(basis, n, m, basis_stride, small.data(), width, out.data());
}

// The k largest eigenvectors of the operator orthogonal to n_known locked columns (n x n_known), as
// the first columns of `found` (n x kLanes); the next Ritz value. False if the reference must take
// over.
bool block_lanczos(Operator& op, std::int64_t n, const std::vector<float>& locked,
                   std::int64_t n_known, std::int64_t k, const float* start, bool squared,
                   const LanczosOptions& options, std::vector<float>& found, double& following) {
  const VectorKernels<float>& use = vector_kernels<float>();
  constexpr std::int64_t b = kLanes;
  const std::int64_t stride = n_known + (kMaxBlocks + 1) * b;
  std::vector<float> vectors(static_cast<std::size_t>(n * stride), 0.0F);
  for (std::int64_t i = 0; i < n; ++i) {
    std::copy_n(&locked[static_cast<std::size_t>(i * n_known)], n_known, &vectors[i * stride]);
  }
  std::vector<float> fresh(static_cast<std::size_t>(n * b));
  std::vector<float> inside(static_cast<std::size_t>(stride * b)), coupling;
  Square remainder;
  use.inner_products(start, vectors.data(), n, n_known, stride, inside.data());
  if (!orthonormalize(start, vectors.data(), n, n_known, stride, inside.data(), fresh.data(),
                      &remainder[0][0])) {
    return false;
  }
  constexpr std::int64_t kFull = kMaxBlocks * b;
  std::vector<double> projected(static_cast<std::size_t>(kFull * kFull), 0.0);
  std::vector<double> matrix, values, mixture;
  std::int64_t size = 0, n_products = 0;
  Looks looks;
  for (;;) {
    for (std::int64_t i = 0; i < n; ++i) {
      std::copy_n(&fresh[static_cast<std::size_t>(i * b)], b,
                  &vectors[i * stride + n_known + size]);
    }
    const float* product = op.apply(fresh.data());
    ++n_products;
    size += b;
    const std::int64_t m = n_known + size;
    use.inner_products(product, vectors.data(), n, m, stride, inside.data());
    coupling.assign(inside.begin() + n_known * b, inside.begin() + m * b);
    if (!orthonormalize(product, vectors.data(), n, m, stride, inside.data(), fresh.data(),
                        &remainder[0][0])) {
      return false;
    }
    for (std::int64_t r = 0; r < size; ++r) {
      for (std::int64_t c = 0; c < b; ++c) {
        const double value = coupling[static_cast<std::size_t>(r * b + c)];
        projected[static_cast<std::size_t>(r * kFull + size - b + c)] = value;
        projected[static_cast<std::size_t>((size - b + c) * kFull + r)] = value;
      }
    }
    const bool full = size + b > kFull;
    const bool last = n_products >= options.max_products;
    if (!full && !last && !looks.due(n_products)) continue;
    matrix.resize(static_cast<std::size_t>(size * size));
    for (std::int64_t r = 0; r < size; ++r) {
      std::copy_n(&projected[static_cast<std::size_t>(r * kFull)], size,
                  &matrix[static_cast<std::size_t>(r * size)]);
    }
    if (!symmetric_eigenpairs(options.solver, matrix, static_cast<int>(size), values, mixture)) {
      return false;
    }
    double excess = 0, worst = 0;
    for (std::int64_t c = 0; c < k; ++c) {
      double square = 0;
      for (std::int64_t r = 0; r < b; ++r) {
        double sum = 0;
        for (std::int64_t s = 0; s < b; ++s) {
          sum += remainder[r][s] * mixture[static_cast<std::size_t>((size - b + s) * size + c)];
        }
        square += sum * sum;
      }
      const double residual = std::sqrt(square);
      // On C'C, whose eigenvalues are squares, a residual r means r / (sqrt(2) sigma) on M.
      const double unit =
          squared ? std::sqrt(2 * std::max(values[static_cast<std::size_t>(c)], 1e-6)) : 1.0;
      excess = std::max(excess, residual / (options.tolerance * unit));
      worst = std::max(worst, residual);
    }
    looks.record(n_products, excess, worst);
    const float* basis = vectors.data() + n_known;
    if (excess <= 1 || looks.stalled() || last) {
      following = values[static_cast<std::size_t>(k)];
      mixed(basis, n, size, stride, mixture, size, k, kLanes, found);
      return true;
    }
    if (full) {
      const std::int64_t kept = k + b / 2;
      std::vector<float> ritz;
      mixed(basis, n, size, stride, mixture, size, kept, 2 * kLanes, ritz);
      for (std::int64_t i = 0; i < n; ++i) {
        std::copy_n(&ritz[static_cast<std::size_t>(i * 2 * kLanes)], kept,
                    &vectors[i * stride + n_known]);
      }
      std::fill(projected.begin(), projected.end(), 0.0);
      for (std::int64_t c = 0; c < kept; ++c) {
        projected[static_cast<std::size_t>(c * kFull + c)] = values[static_cast<std::size_t>(c)];
      }
      size = kept;
    }
  }
}

// The eigenvectors of eigenvalue 1, one for each component, at most k, the largest volumes first,
// as the first columns of `block` (n x kLanes); returns their number.
std::int64_t component_vectors(const PlacedNetwork& network,
                               const std::vector<std::int64_t>& component, std::int64_t k,
                               std::vector<double>& block) {
  const std::int64_t n_components = *std::max_element(component.begin(), component.end()) + 1;
  std::vector<double> volumes(static_cast<std::size_t>(n_components), 0.0);
  for (std::size_t v = 0; v < component.size(); ++v) {
    volumes[static_cast<std::size_t>(component[v])] += network.degrees[v];
  }
  std::vector<std::int64_t> order(volumes.size());
  std::iota(order.begin(), order.end(), std::int64_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    return volumes[static_cast<std::size_t>(a)] > volumes[static_cast<std::size_t>(b)];
  });
  const std::int64_t count = std::min(k, n_components);
  for (std::int64_t c = 0; c < count; ++c) {
    const std::int64_t number = order[static_cast<std::size_t>(c)];
    const double root = std::sqrt(volumes[static_cast<std::size_t>(number)]);
    for (std::size_t v = 0; v < component.size(); ++v) {
      if (component[v] == number) {
        block[v * kLanes + static_cast<std::size_t>(c)] = network.root_degrees[v] / root;
      }
    }
  }
  return count;
}

// The best eigenpairs of M in the span of the first k columns of `block` (n x kLanes), which are
// nearly orthonormal: values, the vectors in place of the block, R' R.
bool rayleigh_ritz(const PlacedNetwork& network, std::int64_t k, const LanczosOptions& options,
                   int n_threads, std::vector<double>& block, Spectrum& spectrum) {
  const VectorKernels<double>& use = vector_kernels<double>();
  const std::int64_t n = network.n;
  const std::vector<double> scale = Operator::scales<double>(network, 1, 0);
  const std::vector<double> here = Operator::scales<double>(network, 1, -network.exponent);
  std::vector<double> scaled(block.size()), product(block.size());
  use.scale_rows(scale.data(), block.data(), n, kLanes, scaled.data());
  multiply(network.matrix, scaled.data(), kLanes, here.data(), 0, n, product.data(), n_threads);
  Square gram, projected;
  use.gram(block.data(), block.data(), n, &gram[0][0]);
  use.gram(block.data(), product.data(), n, &projected[0][0]);
  // gram = L L'; the eigenvectors of L^-1 projected L'^-1, transformed back, are the mixture.
  Square lower = {};
  for (std::int64_t a = 0; a < k; ++a) {
    for (std::int64_t c = 0; c <= a; ++c) {
      double sum = gram[a][c];
      for (std::int64_t e = 0; e < c; ++e) sum -= lower[a][e] * lower[c][e];
      if (a == c && !(sum > 0.25)) return false;
      lower[a][c] = a == c ? std::sqrt(sum) : sum / lower[c][c];
    }
  }
  const auto solve = [&](double* x, std::int64_t step) {  // L^-1 x
    for (std::int64_t a = 0; a < k; ++a) {
      double sum = x[a * step];
      for (std::int64_t e = 0; e < a; ++e) sum -= lower[a][e] * x[e * step];
      x[a * step] = sum / lower[a][a];
    }
  };
  std::vector<double> small(static_cast<std::size_t>(k * k)), values, vectors;
  for (std::int64_t a = 0; a < k; ++a) {
    for (std::int64_t c = 0; c < k; ++c) {
      small[static_cast<std::size_t>(a * k + c)] = (projected[a][c] + projected[c][a]) / 2;
    }
  }
  for (std::int64_t c = 0; c < k; ++c) solve(&small[static_cast<std::size_t>(c)], k);
  for (std::int64_t a = 0; a < k; ++a) solve(&small[static_cast<std::size_t>(a * k)], 1);
  if (!symmetric_eigenpairs(options.solver, small, static_cast<int>(k), values, vectors)) {
    return false;
  }
  double mixture[kLanes * kLanes] = {};
  for (std::int64_t c = 0; c < k; ++c) {
    for (std::int64_t a = k - 1; a >= 0; --a) {  // L' x = vector
      double sum = vectors[static_cast<std::size_t>(a * k + c)];
      for (std::int64_t e = a + 1; e < k; ++e) sum -= lower[e][a] * mixture[e * kLanes + c];
      mixture[a * kLanes + c] = sum / lower[a][a];
    }
  }
  use.rotate(block.data(), n, mixture);
  use.rotate(product.data(), n, mixture);
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t c = 0; c < k; ++c) {
      const auto at = static_cast<std::size_t>(i * kLanes + c);
      product[at] -= block[at] * values[static_cast<std::size_t>(c)];
    }
  }
  Square squares;
  use.gram(product.data(), product.data(), n, &squares[0][0]);
  spectrum.values = values;
  spectrum.residuals.resize(static_cast<std::size_t>(k * k));
  for (std::int64_t a = 0; a < k; ++a) {
    std::copy_n(squares[a], k, &spectrum.residuals[static_cast<std::size_t>(a * k)]);
  }
  return true;
}

}  // namespace

bool embed(const PlacedNetwork& network, const std::vector<std::int64_t>& component, std::int64_t k,
           const float* start, const LanczosOptions& options, int n_threads, Spectrum& spectrum) {
  const std::int64_t n = network.n;
  if (k > kLanes) return false;
  const double mean =
      std::accumulate(network.degrees.begin(), network.degrees.end(), 0.0) / static_cast<double>(n);
  if (*std::min_element(network.degrees.begin(), network.degrees.end()) < kFaint * mean) {
    return false;
  }
  std::vector<double> block(static_cast<std::size_t>(n * kLanes), 0.0);
  const std::int64_t n_known = component_vectors(network, component, k, block);
  const std::int64_t n_wanted = k - n_known;
  spectrum.n_known = n_known;
  const bool bipartite = network.bipartite();
  const std::int64_t from = network.n_first, n_side = network.n_side();
  if (n_wanted == 0 || 2 * n_side <= 3 * kMaxBlocks * kLanes) return false;
  std::vector<float> locked(static_cast<std::size_t>(n_side * n_known)), found;
  for (std::int64_t i = 0; i < n_side; ++i) {
    for (std::int64_t c = 0; c < n_known; ++c) {
      locked[static_cast<std::size_t>(i * n_known + c)] =
          static_cast<float>(block[static_cast<std::size_t>((from + i) * kLanes + c)] *
                             (bipartite ? std::sqrt(2.0) : 1.0));
    }
  }
  Operator op(network, n_threads);
  double following;
  if (!block_lanczos(op, n_side, locked, n_known, n_wanted, start, bipartite, options, found,
                     following)) {
    return false;
  }
  spectrum.following = bipartite ? std::sqrt(std::max(following, 0.0)) : following;
  // The vectors on both sides, [C v / sigma, v] / sqrt(2); [0, v] if sigma is zero.
  const double half = bipartite ? std::sqrt(2.0) : 1.0;
  std::vector<double> large(static_cast<std::size_t>(n * kLanes), 0.0);
  const std::vector<double> scale = Operator::scales<double>(network, 1, 0);
  const std::vector<double> here = Operator::scales<double>(network, 1, -network.exponent);
  for (std::int64_t i = 0; i < n_side; ++i) {
    for (std::int64_t c = 0; c < n_wanted; ++c) {
      const double value = found[static_cast<std::size_t>(i * kLanes + c)];
      block[static_cast<std::size_t>((from + i) * kLanes + n_known + c)] = value / half;
      large[static_cast<std::size_t>((from + i) * kLanes + c)] =
          value * scale[static_cast<std::size_t>(from + i)];
    }
  }
  if (bipartite) {
    multiply(network.matrix, large.data(), kLanes, here.data(), 0, from, large.data(), n_threads);
    double sigma[kLanes] = {};
    for (std::int64_t i = 0; i < from; ++i) {
      for (std::int64_t c = 0; c < n_wanted; ++c) {
        const double value = large[static_cast<std::size_t>(i * kLanes + c)];
        sigma[c] += value * value;
      }
    }
    for (std::int64_t c = 0; c < n_wanted; ++c) sigma[c] = std::sqrt(sigma[c]);
    for (std::int64_t i = 0; i < from; ++i) {
      for (std::int64_t c = 0; c < n_wanted; ++c) {
        block[static_cast<std::size_t>(i * kLanes + n_known + c)] =
            sigma[c] < kZeroSingularValue
                ? 0.0
                : large[static_cast<std::size_t>(i * kLanes + c)] / sigma[c] / half;
      }
    }
  }
  if (!rayleigh_ritz(network, k, options, n_threads, block, spectrum)) return false;
  spectrum.points.resize(static_cast<std::size_t>(n * k));
  for (std::size_t v = 0; v < network.place.size(); ++v) {
    const auto at = static_cast<std::size_t>(network.place[v]);
    for (std::int64_t c = 0; c < k; ++c) {
      spectrum.points[v * static_cast<std::size_t>(k) + static_cast<std::size_t>(c)] =
          block[at * kLanes + static_cast<std::size_t>(c)] / network.root_degrees[at];
    }
  }
  return true;
}

}  // namespace ncut
