// Volumes, cuts, links and inner squared weights of a partition.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "block.hpp"

namespace ncut {

// Calls add(i, copy) for all i below n, where successive i use different ones of kCopies copies:
// sums in separate copies do not depend on each other.
template <std::int64_t kCopies, class Add>
NCUT_INLINE void in_turns(std::int64_t n, const Add& add) {
  std::int64_t i = 0;
  for (; i + kCopies <= n; i += kCopies) {
    for (std::int64_t copy = 0; copy < kCopies; ++copy) add(i + copy, copy);
  }
  for (; i < n; ++i) add(i, 0);
}

// Adds a block's share to volume[c] (sum of the degrees in cluster c) and cut[c] (weight of the
// edges that leave c). Labels are in [0, k), or -1 for a vertex in no cluster, which must have no
// edges. An edge inside a cluster adds nothing to cut, so the cut of disconnected clusters is
// exactly zero. O(entries + n_rows * k).
template <class Block>
void add_cut(const Block& block, const std::int32_t* row_labels, const std::int32_t* col_labels,
             std::int64_t k, double* volume, double* cut) {
  // The first sum of each copy is for vertices in no cluster.
  constexpr std::int64_t kCopies = 4;
  const std::int64_t n_sums = k + 1;
  std::vector<double> sums(static_cast<std::size_t>(kCopies * n_sums));
  for (std::int64_t row = 0; row < block.n_rows; ++row) {
    const std::int32_t own = row_labels[row];
    if (own < 0) continue;
    std::fill(sums.begin(), sums.end(), 0.0);
    const auto add = [&](std::int64_t at, std::int64_t copy) {
      const std::int64_t other = col_labels[block.column(row, at)];
      sums[static_cast<std::size_t>(copy * n_sums + other + 1)] += block.weight(row, at);
    };
    in_turns<kCopies>(block.row_length(row), add);
    for (std::int64_t c = 0; c < k; ++c) {
      double weight = 0;
      for (std::int64_t copy = 0; copy < kCopies; ++copy) {
        weight += sums[static_cast<std::size_t>(copy * n_sums + c + 1)];
      }
      volume[own] += weight;
      volume[c] += weight;
      if (c != own) {
        cut[own] += weight;
        cut[c] += weight;
      }
    }
  }
}

// Adds a block's share to links[v][c], the weight of the edges between vertex v and cluster c, for
// the block's rows and for its columns, each of `width` >= k numbers a vertex. Labels are in
// [0, k). O(entries + (n_rows + n_cols) * k).
template <class Block>
void add_links(const Block& block, const std::int32_t* row_labels, const std::int32_t* col_labels,
               std::int64_t k, std::int64_t width, double* row_links, double* col_links) {
  constexpr std::int64_t kCopies = 4;
  std::vector<double> sums(static_cast<std::size_t>(kCopies * k));
  // The columns' links are stored cluster by cluster, so that a row adds to successive numbers.
  std::vector<double> by_cluster(static_cast<std::size_t>(k * block.n_cols));
  for (std::int64_t row = 0; row < block.n_rows; ++row) {
    double* columns = by_cluster.data() + row_labels[row] * block.n_cols;
    std::fill(sums.begin(), sums.end(), 0.0);
    const auto add = [&](std::int64_t at, std::int64_t copy) {
      const std::int64_t column = block.column(row, at);
      const double weight = block.weight(row, at);
      sums[static_cast<std::size_t>(copy * k + col_labels[column])] += weight;
      columns[column] += weight;
    };
    in_turns<kCopies>(block.row_length(row), add);
    for (std::int64_t c = 0; c < k; ++c) {
      for (std::int64_t copy = 0; copy < kCopies; ++copy) {
        row_links[row * width + c] += sums[static_cast<std::size_t>(copy * k + c)];
      }
    }
  }
  for (std::int64_t c = 0; c < k; ++c) {
    const double* columns = by_cluster.data() + c * block.n_cols;
    for (std::int64_t j = 0; j < block.n_cols; ++j) col_links[j * width + c] += columns[j];
  }
}

// Adds the squares of a block's weights to sums[1], and to sums[0] those of the weights between
// two vertices of one cluster. O(entries).
template <class Block>
void add_squares(const Block& block, const std::int32_t* row_labels, const std::int32_t* col_labels,
                 double* sums) {
  constexpr std::int64_t kCopies = 8;
  double inside[kCopies] = {}, all[kCopies] = {};
  for (std::int64_t row = 0; row < block.n_rows; ++row) {
    const std::int32_t own = row_labels[row];
    const auto add = [&](std::int64_t at, std::int64_t copy) {
      const double weight = block.weight(row, at);
      all[copy] += weight * weight;
      inside[copy] += col_labels[block.column(row, at)] == own ? weight * weight : 0.0;
    };
    in_turns<kCopies>(block.row_length(row), add);
  }
  for (std::int64_t copy = 0; copy < kCopies; ++copy) {
    sums[0] += inside[copy];
    sums[1] += all[copy];
  }
}

}  // namespace ncut
