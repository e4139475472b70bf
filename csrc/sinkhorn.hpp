// Factors of the rows and columns of a matrix that give each a mean of 1 over its entries.
#pragma once

#include <cstdint>
#include <vector>

#include "block.hpp"
#include "poll.hpp"

namespace ncut {

struct SinkhornLimits {
  double tolerance;           // largest deviation of a mean from 1 at which it ends
  std::int64_t max_sweeps;    // rows and columns scaled in turn, before Newton's method
  std::int64_t max_steps;     // of Newton's method
  std::int64_t max_products;  // of conjugate gradients in one step
  Poll poll = {};
};

// Sets `factors` of the rows and then of the columns (n_rows + n_cols) of a non-negative matrix;
// with `triangle`, of the vertices (n_rows) of a symmetric matrix given by its strict upper
// triangle. Zeros are not entries. Rows and columns without entries get 1. Returns the largest
// remaining deviation of a mean from 1.
//
// Newton's method minimizes x A x / 2 - wanted log x, which is convex in log x. O(entries) each
// sweep and product.
//
// Source: Sinkhorn and Knopp (1967), Concerning nonnegative matrices and doubly stochastic
// matrices.
template <class Block>
double sinkhorn(const Block& block, bool triangle, const SinkhornLimits& limits, double* factors);

}  // namespace ncut
