// Trades: weights exchanged between two rows or two columns, with all sums kept in their bins.
#pragma once

#include <cstdint>
#include <vector>

#include "poll.hpp"
#include "rng.hpp"

namespace ncut {

// The entries of a matrix along its rows, along its columns, or, for the strict upper triangle of a
// symmetric matrix, along its vertices.
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

// Pairs the lines at random and lets each pair exchange values at common positions.
//
// The lines that cross both are processed six at a time, in random order: of the 64 ways to
// exchange the two values on some of the six, one that leaves both sums in their bins is chosen
// uniformly. The set of reachable arrangements is the same from each of them, so in the long run
// all arrangements that keep every sum in its bin are equally likely. The sums of the crossing
// lines do not change. O(entries).
//
// Source: Strona, Nappo, Boccacci, Fattorini, San-Miguel-Ayanz (2014), A fast and unbiased
// procedure to randomize ecological binary matrices with fixed row and column totals, for trades.
void trade(Lines& lines, double* values, Philox& random);

// `halves` such rounds, each along the first or the second kind of lines by a fair coin; always
// along the first if there is no second.
void trade(Lines& first, Lines* second, double* values, std::int64_t halves, Philox& random,
           const Poll& poll = {});

}  // namespace ncut
