#include "refine.hpp"

#include <vector>

namespace ncut {
namespace {

// A move must lower the n-cut by more than this, so that rounding errors cannot make it cycle.
constexpr double kLeastGain = 1e-12;

// The clusters' totals, the terms of the normalized cut.
struct Clusters {
  double* inside;             // weight inside, both directions
  double* volume;             // sum of degrees
  double* size;               // number of vertices
  std::vector<double> share;  // inside / volume

  Clusters(double* totals, std::int64_t k)
      : inside(totals),
        volume(totals + k),
        size(totals + 2 * k),
        share(static_cast<std::size_t>(k)) {
    for (std::int64_t c = 0; c < k; ++c) update_share(c);
  }

  void update_share(std::int64_t c) { share[c] = volume[c] > 0 ? inside[c] / volume[c] : 0.0; }
};

// The cluster to which vertex v should move, or its current cluster. The n-cut is k minus the sum
// of inside / volume, so the gain of a move is the change of the two terms involved.
std::int32_t best_cluster(const Clusters& clusters, const double* links, double degree,
                          std::int32_t own, std::int64_t k) {
  if (clusters.size[own] < 2) return own;
  const double left = clusters.volume[own] - degree;
  const double lost =
      clusters.share[own] - (left > 0 ? (clusters.inside[own] - 2 * links[own]) / left : 0.0);
  double best_gain = kLeastGain;
  std::int32_t best = own;
  for (std::int32_t c = 0; c < k; ++c) {
    if (c == own) continue;
    const double won =
        (clusters.inside[c] + 2 * links[c]) / (clusters.volume[c] + degree) - clusters.share[c];
    if (won - lost > best_gain) {
      best_gain = won - lost;
      best = c;
    }
  }
  return best;
}

// Calls visit(u, weight) for every neighbour u of v in a dense block.
template <class W, class Visit>
void for_each_in_block(const PlacedBlock<W>& placed, std::int64_t v, Visit visit) {
  const DenseBlock<W>& block = placed.block;
  const std::int64_t row = v - placed.first_row, col = v - placed.first_col;
  if (row >= 0 && row < block.n_rows) {
    const W* weights = block.values + row * block.n_cols;
    for (std::int64_t j = 0; j < block.n_cols; ++j) visit(placed.first_col + j, weights[j]);
  }
  if (col >= 0 && col < block.n_cols) {
    const W* weights = block.values + col;
    for (std::int64_t i = 0; i < block.n_rows; ++i) {
      visit(placed.first_row + i, weights[i * block.n_cols]);
    }
  }
}

// Calls visit(u, weight) for every neighbour u of v.
template <class W, class I, class Visit>
void for_each_neighbour(const SymmetricMatrix<W, I>& matrix, std::int64_t v, Visit visit) {
  for (const auto& placed : matrix.dense) for_each_in_block(placed, v, visit);
  for (const auto& placed : matrix.wide) for_each_in_block(placed, v, visit);
  if (matrix.sparse.indptr == nullptr) return;
  for (I at = matrix.sparse.indptr[v]; at < matrix.sparse.indptr[v + 1]; ++at) {
    visit(matrix.sparse.indices[at], matrix.sparse.values[at]);
  }
}

}  // namespace

template <class W, class I>
std::int64_t refine(const SymmetricMatrix<W, I>& matrix, const double* degrees, std::int64_t n,
                    std::int64_t k, std::int64_t width, std::int64_t max_passes, double* links,
                    double* totals, std::int32_t* labels) {
  Clusters clusters(totals, k);
  std::int64_t n_moves = 0;
  std::int64_t unchanged = 0;  // vertices looked at since the last move
  for (std::int64_t pass = 0; pass < max_passes; ++pass) {
    for (std::int64_t v = 0; v < n; ++v) {
      if (++unchanged > n) return n_moves;
      const std::int32_t from = labels[v];
      const double* own_links = links + v * width;
      const std::int32_t to = best_cluster(clusters, own_links, degrees[v], from, k);
      if (to == from) continue;
      clusters.inside[from] -= 2 * own_links[from];
      clusters.inside[to] += 2 * own_links[to];
      clusters.volume[from] -= degrees[v];
      clusters.volume[to] += degrees[v];
      clusters.update_share(from);
      clusters.update_share(to);
      clusters.size[from] -= 1;
      clusters.size[to] += 1;
      labels[v] = to;
      for_each_neighbour(matrix, v, [&](std::int64_t u, auto weight) {
        links[u * width + from] -= weight;
        links[u * width + to] += weight;
      });
      ++n_moves;
      unchanged = 0;
    }
  }
  return n_moves;
}

#define NCUT_REFINE(W, I)                                                                  \
  template std::int64_t refine(const SymmetricMatrix<W, I>&, const double*, std::int64_t,  \
                               std::int64_t, std::int64_t, std::int64_t, double*, double*, \
                               std::int32_t*);
NCUT_REFINE(float, std::int32_t)
NCUT_REFINE(float, std::int64_t)
NCUT_REFINE(double, std::int32_t)
NCUT_REFINE(double, std::int64_t)
NCUT_REFINE(Half, std::int32_t)
NCUT_REFINE(Half, std::int64_t)
NCUT_REFINE(BFloat16, std::int32_t)
NCUT_REFINE(BFloat16, std::int64_t)
#undef NCUT_REFINE

}  // namespace ncut
