// Local search on the normalized cut itself.
#pragma once

#include <cstdint>

#include "product.hpp"

namespace ncut {

// Moves single vertices between clusters while that lowers the normalized cut, in passes over all
// vertices in their order, until a pass finds no move or max_passes are done. No cluster is
// emptied. Changes labels (n, in [0, k)), links (n, width >= k), where links[v][c] must hold the
// weight of the edges between v and cluster c, and totals (3, k), which must hold the clusters'
// inner weight (both directions), volumes and numbers of vertices; returns the number of moves.
// The n vertices may be part of a larger graph whose other vertices stay in their clusters: the
// matrix has the edges among the n vertices; links and totals refer to the whole graph.
//
// With the links, computing the gain of a move takes a few operations, and a move costs the degree
// of its vertex. This is the incremental form of weighted kernel k-means, which has the same
// objective.
// Cost: O(n k) a pass, O(edges of v) a move of v.
// Source: Dhillon, Guan, Kulis (2004), Kernel k-means, spectral clustering and normalized cuts.
template <class W, class I>
std::int64_t refine(const SymmetricMatrix<W, I>& matrix, const double* degrees, std::int64_t n,
                    std::int64_t k, std::int64_t width, std::int64_t max_passes, double* links,
                    double* totals, std::int32_t* labels);

}  // namespace ncut
