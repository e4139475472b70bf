// Connected components of a graph given as blocks.
#pragma once

#include <cstdint>
#include <utility>

#include "block.hpp"

namespace ncut {

// Disjoint sets over vertices: parent[v] leads to the set's smallest vertex, its root.
inline std::int64_t find_root(std::int64_t* parent, std::int64_t v) {
  while (parent[v] != v) {
    parent[v] = parent[parent[v]];
    v = parent[v];
  }
  return v;
}

inline void join(std::int64_t* parent, std::int64_t a, std::int64_t b) {
  a = find_root(parent, a);
  b = find_root(parent, b);
  if (a > b) std::swap(a, b);
  parent[b] = a;
}

// Joins the ends of every edge of a block. Once a row reaches all columns, later rows need only
// their first edge: O(columns + rows) for a block without zeros, O(entries) otherwise.
template <class Block>
void connect(const Block& block, std::int64_t first_row, std::int64_t first_col,
             std::int64_t* parent) {
  bool columns_joined = false;
  for (std::int64_t row = 0; row < block.n_rows; ++row) {
    std::int64_t n_edges = 0;
    for (std::int64_t at = 0, end = block.row_length(row); at < end; ++at) {
      if (block.weight(row, at) == 0) continue;
      join(parent, first_row + row, first_col + block.column(row, at));
      ++n_edges;
      if (columns_joined) break;
    }
    columns_joined = columns_joined || n_edges == block.n_cols;
  }
}

}  // namespace ncut
