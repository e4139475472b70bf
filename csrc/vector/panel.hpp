// Contributions of a graph's blocks to a panel of vertices: y = scale * A x.
#pragma once

#include <algorithm>
#include <type_traits>

#include "gemm.hpp"
#include "magnitude.hpp"
#include "product.hpp"

namespace ncut::NCUT_ISA {
namespace {

// Entries of a block in one direction that are multiplied together: their vectors stay in the
// first-level cache.
constexpr std::int64_t kDepth = 128;
// The same for weights that are first widened into a buffer.
constexpr std::int64_t kBuffered = 16;

// y[0:n_out] += B x[0:n_in], B the block's entries from `weights` (n_out x n_in), or with
// kTransposed those of n_in rows and n_out columns.
template <bool kTransposed, class W, class T>
NCUT_INLINE void add_block(const W* weights, std::int64_t stride, std::int64_t n_out,
                           std::int64_t n_in, const T* x, std::int64_t width, T* y) {
  if constexpr (std::is_same_v<W, T>) {
    for (std::int64_t j = 0; j < n_in; j += kDepth) {
      const Operand<kTransposed, W> a{weights + j * (kTransposed ? stride : 1), stride};
      times<Into::kAdd>(a, n_out, std::min(kDepth, n_in - j), x + j * width, width, y, width,
                        width);
    }
  } else {
    T buffer[kBuffered * kPanel];
    const std::int64_t n_long = kTransposed ? n_out : n_in, n_short = kTransposed ? n_in : n_out;
    for (std::int64_t i = 0; i < n_short; i += kBuffered) {
      const std::int64_t rows = std::min(kBuffered, n_short - i);
      for (std::int64_t j = 0; j < n_long; j += kPanel) {
        const std::int64_t cols = std::min(kPanel, n_long - j);
        for (std::int64_t r = 0; r < rows; ++r) {
          const W* row = weights + (i + r) * stride + j;
          for (std::int64_t c = 0; c < cols; ++c) {
            buffer[r * kPanel + c] = static_cast<T>(static_cast<typename Wide<W>::type>(row[c]));
          }
        }
        const Operand<kTransposed, T> a{buffer, kPanel};
        const std::int64_t out = kTransposed ? j : i, in = kTransposed ? i : j;
        times<Into::kAdd>(a, kTransposed ? cols : rows, kTransposed ? rows : cols, x + in * width,
                          width, y + out * width, width, width);
      }
    }
  }
}

template <class W, class I, class T>
NCUT_INLINE void add_sparse(const SparseBlock<W, I>& block, std::int64_t begin, std::int64_t end,
                            const T* x, std::int64_t width, T* y) {
  constexpr int kP = kTogether<T>;
  constexpr std::int64_t kStep = kP * kWidth<T>;
  for (std::int64_t lane = 0; lane < width; lane += kStep) {
    for (std::int64_t row = begin; row < end; ++row) {
      // Alternate entries have separate sums, which removes the dependency between them.
      Vector<T> sums[2][kP] = {};
      std::int64_t at = block.indptr[row];  // wide: at + 1 may exceed the largest I
      const std::int64_t last = block.indptr[row + 1];
      for (; at + 1 < last; at += 2) {
        for (int e = 0; e < 2; ++e) {
          const auto weight = static_cast<T>(block.values[at + e]);
          const T* from = x + block.indices[at + e] * width + lane;
          for (int p = 0; p < kP; ++p) sums[e][p] += weight * load(from + p * kWidth<T>);
        }
      }
      if (at < last) {
        const auto weight = static_cast<T>(block.values[at]);
        const T* from = x + block.indices[at] * width + lane;
        for (int p = 0; p < kP; ++p) sums[0][p] += weight * load(from + p * kWidth<T>);
      }
      T* to = y + (row - begin) * width + lane;
      for (int p = 0; p < kP; ++p) {
        store<T>(load(to + p * kWidth<T>) + (sums[0][p] + sums[1][p]), to + p * kWidth<T>);
      }
    }
  }
}

// Contributions of a block and its mirror image to the vertices [begin, end). Compiled once for all
// index types, hence not part of its callers.
template <class W, class T>
__attribute__((noinline)) void add_placed(const PlacedBlock<W>& placed, const T* x,
                                          std::int64_t width, std::int64_t begin, std::int64_t end,
                                          T* y) {
  const DenseBlock<W>& block = placed.block;
  const std::int64_t first_row = std::max(begin, placed.first_row);
  const std::int64_t last_row = std::min(end, placed.first_row + block.n_rows);
  if (first_row < last_row) {
    add_block<false>(block.values + (first_row - placed.first_row) * block.n_cols, block.n_cols,
                     last_row - first_row, block.n_cols, x + placed.first_col * width, width,
                     y + first_row * width);
  }
  const std::int64_t first_col = std::max(begin, placed.first_col);
  const std::int64_t last_col = std::min(end, placed.first_col + block.n_cols);
  if (first_col < last_col) {
    add_block<true>(block.values + (first_col - placed.first_col), block.n_cols,
                    last_col - first_col, block.n_rows, x + placed.first_row * width, width,
                    y + first_col * width);
  }
}

// All contributions to the vertices [begin, end), at most kPanel of them.
template <class W, class I, class T>
void panel(const SymmetricMatrix<W, I>& matrix, const T* x, std::int64_t width, const T* scale,
           std::int64_t begin, std::int64_t end, T* y) {
  T* out = y + begin * width;
  std::fill(out, y + end * width, T{0});
  for (const PlacedBlock<W>& placed : matrix.dense) add_placed(placed, x, width, begin, end, y);
  if constexpr (is_narrow<W>) {
    for (const auto& placed : matrix.wide) add_placed(placed, x, width, begin, end, y);
  }
  if (matrix.sparse.indptr != nullptr) add_sparse(matrix.sparse, begin, end, x, width, out);
  for (std::int64_t v = begin; v < end; ++v) {
    for (std::int64_t lane = 0; lane < width; ++lane) y[v * width + lane] *= scale[v];
  }
}

}  // namespace
}  // namespace ncut::NCUT_ISA
