#include "product.hpp"

#include <algorithm>

#include "magnitude.hpp"
#include "parallel.hpp"
#include "portable.hpp"
#include "simd.hpp"

namespace ncut {
namespace {

constexpr std::int64_t kRows = 8;     // rows of a block handled together, in registers
constexpr std::int64_t kPanel = 256;  // vertices whose vectors stay in the first-level cache

// y[0:kCount] += W[0:kCount, 0:n_cols] x, for one group of lanes.
template <int kCount, class W, class T>
NCUT_INLINE void add_rows(const W* weights, std::int64_t stride, std::int64_t n_cols, const T* x,
                          std::int64_t width, T* y) {
  typename Lanes<T>::type sums[kCount];
  for (int r = 0; r < kCount; ++r) sums[r] = load(y + r * width);
  for (std::int64_t j = 0; j < n_cols; ++j) {
    const auto other = load(x + j * width);
    for (int r = 0; r < kCount; ++r) sums[r] += static_cast<T>(weights[r * stride + j]) * other;
  }
  for (int r = 0; r < kCount; ++r) store<T>(sums[r], y + r * width);
}

// y[0:n_cols] += W[0:kCount, 0:n_cols]' x[0:kCount], for one group of lanes.
template <int kCount, class W, class T>
NCUT_INLINE void add_columns(const W* weights, std::int64_t stride, std::int64_t n_cols, const T* x,
                             std::int64_t width, T* y) {
  typename Lanes<T>::type own[kCount];
  for (int r = 0; r < kCount; ++r) own[r] = load(x + r * width);
  for (std::int64_t j = 0; j < n_cols; ++j) {
    auto sum = load(y + j * width);
    for (int r = 0; r < kCount; ++r) sum += static_cast<T>(weights[r * stride + j]) * own[r];
    store<T>(sum, y + j * width);
  }
}

// A piece of a block, at most kRows x kPanel, as numbers to compute with: where it is, or widened
// into a buffer.
template <class W>
struct Piece {
  const W* values;
  std::int64_t stride;

  NCUT_INLINE Piece(const W* from, std::int64_t from_stride, std::int64_t, std::int64_t)
      : values(from), stride(from_stride) {}
};

struct WidenedPiece {
  float values[kRows * kPanel];
  static constexpr std::int64_t stride = kPanel;

  template <class W>
  NCUT_INLINE WidenedPiece(const W* from, std::int64_t from_stride, std::int64_t n_rows,
                           std::int64_t n_cols) {
    for (std::int64_t r = 0; r < n_rows; ++r) {
      for (std::int64_t j = 0; j < n_cols; ++j) values[r * stride + j] = from[r * from_stride + j];
    }
  }
};

template <class W>
struct PieceOf {
  using type = Piece<W>;
};
template <>
struct PieceOf<Half> {
  using type = WidenedPiece;
};
template <>
struct PieceOf<BFloat16> {
  using type = WidenedPiece;
};

// The rows [begin, end) of a block, times the vectors of its columns.
template <class W, class T>
NCUT_INLINE void multiply_rows(const DenseBlock<W>& block, std::int64_t begin, std::int64_t end,
                               const T* x, std::int64_t width, T* y) {
  for (std::int64_t col = 0; col < block.n_cols; col += kPanel) {
    const std::int64_t n_cols = std::min(kPanel, block.n_cols - col);
    const T* from = x + col * width;
    std::int64_t row = begin;
    for (; row + kRows <= end; row += kRows) {
      const typename PieceOf<W>::type piece(block.values + row * block.n_cols + col, block.n_cols,
                                            kRows, n_cols);
      for (std::int64_t lane = 0; lane < width; lane += kLanes) {
        add_rows<kRows>(piece.values, piece.stride, n_cols, from + lane, width,
                        y + (row - begin) * width + lane);
      }
    }
    for (; row < end; ++row) {
      const typename PieceOf<W>::type piece(block.values + row * block.n_cols + col, block.n_cols,
                                            1, n_cols);
      for (std::int64_t lane = 0; lane < width; lane += kLanes) {
        add_rows<1>(piece.values, piece.stride, n_cols, from + lane, width,
                    y + (row - begin) * width + lane);
      }
    }
  }
}

// The columns [begin, end) of a block, times the vectors of its rows.
template <class W, class T>
NCUT_INLINE void multiply_columns(const DenseBlock<W>& block, std::int64_t begin, std::int64_t end,
                                  const T* x, std::int64_t width, T* y) {
  const std::int64_t n_cols = end - begin;
  std::int64_t row = 0;
  for (; row + kRows <= block.n_rows; row += kRows) {
    const typename PieceOf<W>::type piece(block.values + row * block.n_cols + begin, block.n_cols,
                                          kRows, n_cols);
    for (std::int64_t lane = 0; lane < width; lane += kLanes) {
      add_columns<kRows>(piece.values, piece.stride, n_cols, x + row * width + lane, width,
                         y + lane);
    }
  }
  for (; row < block.n_rows; ++row) {
    const typename PieceOf<W>::type piece(block.values + row * block.n_cols + begin, block.n_cols,
                                          1, n_cols);
    for (std::int64_t lane = 0; lane < width; lane += kLanes) {
      add_columns<1>(piece.values, piece.stride, n_cols, x + row * width + lane, width, y + lane);
    }
  }
}

template <class W, class I, class T>
NCUT_INLINE void multiply_sparse(const SparseBlock<W, I>& block, std::int64_t begin,
                                 std::int64_t end, const T* x, std::int64_t width, T* y) {
  for (std::int64_t lane = 0; lane < width; lane += kLanes) {
    for (std::int64_t row = begin; row < end; ++row) {
      T* to = y + (row - begin) * width + lane;
      auto sum = load(to);
      for (I at = block.indptr[row]; at < block.indptr[row + 1]; ++at) {
        sum += static_cast<T>(block.values[at]) * load(x + block.indices[at] * width + lane);
      }
      store<T>(sum, to);
    }
  }
}

// What a block and its mirror image add to the vertices [begin, end).
template <class W, class T>
NCUT_INLINE void multiply_block(const PlacedBlock<W>& placed, const T* x, std::int64_t width,
                                std::int64_t begin, std::int64_t end, T* y) {
  const DenseBlock<W>& block = placed.block;
  const std::int64_t first_row = std::max(begin, placed.first_row);
  const std::int64_t last_row = std::min(end, placed.first_row + block.n_rows);
  if (first_row < last_row) {
    multiply_rows(block, first_row - placed.first_row, last_row - placed.first_row,
                  x + placed.first_col * width, width, y + first_row * width);
  }
  const std::int64_t first_col = std::max(begin, placed.first_col);
  const std::int64_t last_col = std::min(end, placed.first_col + block.n_cols);
  if (first_col < last_col) {
    multiply_columns(block, first_col - placed.first_col, last_col - placed.first_col,
                     x + placed.first_row * width, width, y + first_col * width);
  }
}

// All contributions to the vertices [begin, end), at most kPanel of them.
template <class W, class I, class T>
NCUT_INLINE void multiply_panel(const SymmetricMatrix<W, I>& matrix, const T* x, std::int64_t width,
                                const T* scale, std::int64_t begin, std::int64_t end, T* y) {
  T* out = y + begin * width;
  std::fill(out, y + end * width, T{0});
  for (const PlacedBlock<W>& placed : matrix.dense) multiply_block(placed, x, width, begin, end, y);
  if constexpr (is_narrow<W>) {
    for (const auto& placed : matrix.wide) multiply_block(placed, x, width, begin, end, y);
  }
  if (matrix.sparse.indptr != nullptr) multiply_sparse(matrix.sparse, begin, end, x, width, out);
  for (std::int64_t v = begin; v < end; ++v) {
    for (std::int64_t lane = 0; lane < width; ++lane) y[v * width + lane] *= scale[v];
  }
}

// clang-format off
#define NCUT_EACH_TYPE(F)                                             \
  F(float, std::int32_t, float)     F(float, std::int64_t, float)     \
  F(float, std::int32_t, double)    F(float, std::int64_t, double)    \
  F(double, std::int32_t, float)    F(double, std::int64_t, float)    \
  F(double, std::int32_t, double)   F(double, std::int64_t, double)   \
  F(Half, std::int32_t, float)      F(Half, std::int64_t, float)      \
  F(Half, std::int32_t, double)     F(Half, std::int64_t, double)     \
  F(BFloat16, std::int32_t, float)  F(BFloat16, std::int64_t, float)  \
  F(BFloat16, std::int32_t, double) F(BFloat16, std::int64_t, double) \
  F(Magnitude<float>, std::int32_t, float)                            \
  F(Magnitude<double>, std::int32_t, double)
// clang-format on

// One function for each combination of types, so that it can be compiled for several instruction
// sets.
#define NCUT_PANEL(W, I, T)                                                                   \
  NCUT_CLONES void panel(const SymmetricMatrix<W, I>& matrix, const T* x, std::int64_t width, \
                         const T* scale, std::int64_t begin, std::int64_t end, T* y) {        \
    multiply_panel(matrix, x, width, scale, begin, end, y);                                   \
  }
NCUT_EACH_TYPE(NCUT_PANEL)
#undef NCUT_PANEL

}  // namespace

template <class W, class I, class T>
void multiply(const SymmetricMatrix<W, I>& matrix, const T* x, std::int64_t width, const T* scale,
              std::int64_t first, std::int64_t last, T* y, int n_threads) {
  const std::int64_t n_panels = (last - first + kPanel - 1) / kPanel;
  parallel_for(n_panels, n_threads, [&](std::int64_t number) {
    const std::int64_t begin = first + number * kPanel;
    panel(matrix, x, width, scale, begin, std::min(begin + kPanel, last), y);
  });
}

#define NCUT_MULTIPLY(W, I, T)                                                           \
  template void multiply(const SymmetricMatrix<W, I>&, const T*, std::int64_t, const T*, \
                         std::int64_t, std::int64_t, T*, int);
NCUT_EACH_TYPE(NCUT_MULTIPLY)
#undef NCUT_MULTIPLY

}  // namespace ncut
