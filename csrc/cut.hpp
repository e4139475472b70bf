// Volumes and cuts of a partition.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "block.hpp"

namespace ncut {

// Adds a block's share to volume[c] (sum of the degrees in cluster c) and cut[c] (weight of the
// edges that leave c). Labels are in [0, k), or -1 for a vertex that is in no cluster: such a
// vertex must have no edges. An edge inside a cluster adds nothing to cut, so that the cut of
// disconnected clusters is exactly zero. O(entries + n_rows * k).
template <class Block>
void add_cut(const Block& block, const std::int32_t* row_labels, const std::int32_t* col_labels,
             std::int64_t k, double* volume, double* cut) {
  std::vector<double> to_cluster(static_cast<std::size_t>(k));
  for (std::int64_t row = 0; row < block.n_rows; ++row) {
    const std::int32_t own = row_labels[row];
    if (own < 0) continue;
    std::fill(to_cluster.begin(), to_cluster.end(), 0.0);
    for (std::int64_t at = 0, end = block.row_length(row); at < end; ++at) {
      const std::int32_t other = col_labels[block.column(row, at)];
      if (other >= 0) to_cluster[static_cast<std::size_t>(other)] += block.weight(row, at);
    }
    for (std::int64_t c = 0; c < k; ++c) {
      const double weight = to_cluster[static_cast<std::size_t>(c)];
      volume[own] += weight;
      volume[c] += weight;
      if (c != own) {
        cut[own] += weight;
        cut[c] += weight;
      }
    }
  }
}

}  // namespace ncut
