// Products of a graph's adjacency matrix with a block of vectors, from the blocks of weights
// between its layers: no index is stored for a dense block, and no matrix is assembled.
#pragma once

#include <cstdint>
#include <vector>

#include "block.hpp"
#include "half.hpp"

namespace ncut {

// Vertices whose products one thread computes together.
constexpr std::int64_t kPanel = 256;

// Position of a dense block: its first row and column in the numbering of the vectors.
template <class W>
struct PlacedBlock {
  DenseBlock<W> block;
  std::int64_t first_row, first_col;
};

// A symmetric matrix: dense blocks, each representing itself and its mirror image, plus a CSR
// matrix with both halves (all its pointers may be null). Wide dense blocks may accompany 16-bit
// ones; a matrix of wide blocks only has all of them in `dense`.
template <class W, class I>
struct SymmetricMatrix {
  std::vector<PlacedBlock<W>> dense;
  SparseBlock<typename Wide<W>::type, I> sparse;
  std::vector<PlacedBlock<typename Wide<W>::type>> wide = {};
};

// y[v] = scale[v] * (A x)[v] for first <= v < last. Vectors are rows: x and y have shape
// (vertices, width), width a multiple of 16, row-major. Each entry of a dense block is read once
// for its row and once for its column. Every y[v] is summed by one thread in a fixed order: the
// result does not depend on n_threads. 4 * width flops an undirected edge if all v are wanted.
template <class W, class I, class T>
void multiply(const SymmetricMatrix<W, I>& matrix, const T* x, std::int64_t width, const T* scale,
              std::int64_t first, std::int64_t last, T* y, int n_threads);

}  // namespace ncut
