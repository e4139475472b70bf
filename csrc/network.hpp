// A layered graph that owns its float32 weights: shuffles, reductions, and products.
#pragma once

#include <cstdint>
#include <vector>

#include "product.hpp"
#include "rng.hpp"

namespace ncut {

// All edges between two layers: dense if `indptr` is empty, else CSR.
struct Edges {
  std::int64_t source, target;  // layers
  std::uint32_t substream;      // of the random numbers that shuffle it
  std::int64_t n_rows, n_cols;
  std::vector<float> values;
  std::vector<std::int32_t> indptr, indices;

  bool is_sparse() const { return !indptr.empty(); }
  DenseBlock<float> dense() const { return {values.data(), n_rows, n_cols}; }
  SparseBlock<float, std::int32_t> sparse() const {
    return {indptr.data(), indices.data(), values.data(), n_rows, n_cols};
  }
};

enum class Null { kLayer, kLayerNonzero };

struct Network {
  std::vector<std::int64_t> sizes;   // of the layers
  std::vector<std::int8_t> colours;  // 0 or 1 of each layer; empty if two do not do
  std::vector<Edges> blocks;

  std::int64_t n_vertices() const;
  // The first vertex of each layer.
  std::vector<std::int64_t> starts() const;
  // Sums of weights, in double precision.
  std::vector<double> degrees() const;
  // With the weights of each block rearranged; see the null models in ncut/nulls/models.py.
  Network shuffled(Null null, std::uint64_t seed, std::uint32_t stream) const;
  // With the rows of each source layer's blocks in the given order, if not empty: row i becomes the
  // former row order[i].
  Network reordered(const std::vector<std::vector<std::int64_t>>& orders) const;
  // Without vertices of degree zero; `kept` gets the numbers of the others.
  Network without_isolated(const std::vector<double>& degrees,
                           std::vector<std::int64_t>& kept) const;
};

// Calls visit(block, edges) with the block as a view, dense or sparse.
template <class Visit>
void for_each_block(const Network& network, Visit visit) {
  for (const Edges& edges : network.blocks) {
    if (edges.is_sparse()) {
      visit(edges.sparse(), edges);
    } else {
      visit(edges.dense(), edges);
    }
  }
}

// M = D^-1/2 A D^-1/2 of a network without isolated vertices, in a numbering that puts the
// vertices of one colour, the larger side, first; see ncut/spectral/operator.py.
struct PlacedNetwork {
  explicit PlacedNetwork(const Network& network, const std::vector<double>& degrees);

  std::int64_t n, n_first;  // n_first is 0 without two colours
  std::vector<std::int64_t> place;
  int exponent;                               // the degrees' unit is 2^exponent
  std::vector<double> degrees, root_degrees;  // in that unit
  SymmetricMatrix<float, std::int32_t> matrix{{}, {}};

  bool bipartite() const { return n_first > 0; }
  std::int64_t n_side() const { return n - n_first; }

 private:
  std::vector<std::int32_t> indptr_, indices_;
  std::vector<float> values_;
};

}  // namespace ncut
