// Symmetric CSR adjacency, degrees: one pass over each block of weights.
#pragma once

#include <cstdint>
#include <stdexcept>

#include "block.hpp"

namespace ncut {

// Adds the number of non-zero entries of each row and column. row_counts (n_rows), col_counts
// (n_cols) may be the same array when a block lies within one layer. O(entries).
template <class Block>
void count_nonzero(const Block& block, std::int64_t* row_counts, std::int64_t* col_counts) {
  for (std::int64_t row = 0; row < block.n_rows; ++row) {
    for (std::int64_t at = 0, end = block.row_length(row); at < end; ++at) {
      if (block.weight(row, at) != 0) {
        ++row_counts[row];
        ++col_counts[block.column(row, at)];
      }
    }
  }
}

// Writes each non-zero entry of a block and its mirror image into a CSR matrix of n_entries.
// `cursor[v]` is the position of the next entry of vertex v; blocks must come sorted by (source,
// target) so that the columns of each row end up ascending. O(entries).
template <class Block, class W, class I>
void fill_symmetric(const Block& block, std::int64_t first_row, std::int64_t first_col,
                    std::int64_t* cursor, std::int64_t n_entries, I* indices, W* data) {
  const auto put = [&](std::int64_t vertex, std::int64_t other, W weight) {
    const std::int64_t at = cursor[vertex]++;
    if (at < 0 || at >= n_entries) throw std::invalid_argument("indices: too short for the blocks");
    indices[at] = static_cast<I>(other);
    data[at] = weight;
  };
  for (std::int64_t row = 0; row < block.n_rows; ++row) {
    const std::int64_t i = first_row + row;
    for (std::int64_t at = 0, end = block.row_length(row); at < end; ++at) {
      const auto weight = static_cast<W>(block.weight(row, at));
      if (weight == 0) continue;
      const std::int64_t j = first_col + block.column(row, at);
      put(i, j, weight);
      put(j, i, weight);
    }
  }
}

// Adds the row sums and the column sums of a block, in double precision. O(entries).
template <class Block>
void add_degrees(const Block& block, double* row_degrees, double* col_degrees) {
  for (std::int64_t row = 0; row < block.n_rows; ++row) {
    double sum = 0;
    for (std::int64_t at = 0, end = block.row_length(row); at < end; ++at) {
      const double weight = block.weight(row, at);
      sum += weight;
      col_degrees[block.column(row, at)] += weight;
    }
    row_degrees[row] += sum;
  }
}

}  // namespace ncut
