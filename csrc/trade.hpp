// Trades: weights exchanged between two rows or two columns, with all sums kept in their bins.
#pragma once

#include <cstdint>
#include <vector>

#include "rng.hpp"

namespace ncut {

// The entries of a matrix along its rows, its columns, or, where it is the strict upper triangle
// of a symmetric one, along its vertices.
struct Lines {
  std::vector<std::int64_t> start;     // of each line's entries, and their number
  std::vector<std::int64_t> crossing;  // the line of the other kind, ascending in each line
  std::vector<std::int64_t> place;     // in the array of values
  std::vector<double> sum, low, high;  // of the values of each line, and between which it stays

  std::int64_t count() const { return static_cast<std::int64_t>(start.size()) - 1; }
  // Sets the sums to those of the values.
  void add_up(const double* values);
};

// Lines of a CSR matrix whose indices ascend in each row. Their bins are left to the caller.
Lines rows_of(const std::int64_t* indptr, const std::int64_t* indices, std::int64_t n_rows);
Lines columns_of(const std::int64_t* indptr, const std::int64_t* indices, std::int64_t n_rows,
                 std::int64_t n_cols);
Lines vertices_of(const std::int64_t* indptr, const std::int64_t* indices, std::int64_t n);

// Pairs the lines at random and lets each pair exchange values where both have one.
//
// Six at a time of the lines that cross both, in random order, are looked at: of all 64 ways to
// exchange the two values on some of them, one is chosen of those that leave both sums in their
// bins, each with the same probability. From wherever one chooses, the ways that are allowed lead
// to the same arrangements, so that all arrangements of the values that keep every sum in its bin
// are equally likely in the long run. The sums of the crossing lines do not change. O(entries).
//
// Source: Strona, Nappo, Boccacci, Fattorini, San-Miguel-Ayanz (2014), A fast and unbiased
// procedure to randomize ecological binary matrices with fixed row and column totals, for trades.
void trade(Lines& lines, double* values, Philox& random);

// `halves` such rounds, each along the first or the second kind of lines by a fair coin; along the
// first always where there is no second.
void trade(Lines& first, Lines* second, double* values, std::int64_t halves, Philox& random);

}  // namespace ncut
