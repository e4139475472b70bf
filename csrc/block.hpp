// Views of a block of edge weights between two layers, dense row-major or CSR, with the same three
// members, so that one kernel serves both.
#pragma once

#include <cstdint>

#include "portable.hpp"

namespace ncut {

template <class W>
struct DenseBlock {
  const W* values;
  std::int64_t n_rows, n_cols;

  std::int64_t row_length(std::int64_t) const { return n_cols; }
  std::int64_t column(std::int64_t, std::int64_t at) const { return at; }
  W weight(std::int64_t row, std::int64_t at) const { return values[row * n_cols + at]; }
};

template <class W, class I>
struct SparseBlock {
  const I* indptr;
  const I* indices;
  const W* values;
  std::int64_t n_rows, n_cols;

  std::int64_t row_length(std::int64_t row) const { return indptr[row + 1] - indptr[row]; }
  std::int64_t column(std::int64_t row, std::int64_t at) const { return indices[indptr[row] + at]; }
  W weight(std::int64_t row, std::int64_t at) const { return values[indptr[row] + at]; }
};

}  // namespace ncut
