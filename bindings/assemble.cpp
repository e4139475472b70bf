#include "assemble.hpp"

#include "arrays.hpp"
#include "components.hpp"
#include "module.hpp"
#include "scan.hpp"

namespace ncut::bindings {
namespace {

using Counts = Array<std::int64_t>;
using Degrees = Array<double>;

template <class Block>
void count_block(const Block& block, Counts& row_counts, Counts& col_counts) {
  check_length(row_counts, block.n_rows, "row_counts");
  check_length(col_counts, block.n_cols, "col_counts");
  std::int64_t* rows = row_counts.mutable_data();
  std::int64_t* cols = col_counts.mutable_data();
  const py::gil_scoped_release release;
  count_nonzero(block, rows, cols);
}

template <class Block>
void degrees_block(const Block& block, Degrees& row_degrees, Degrees& col_degrees) {
  check_length(row_degrees, block.n_rows, "row_degrees");
  check_length(col_degrees, block.n_cols, "col_degrees");
  double* rows = row_degrees.mutable_data();
  double* cols = col_degrees.mutable_data();
  const py::gil_scoped_release release;
  add_degrees(block, rows, cols);
}

template <class Block>
void connect_block(const Block& block, std::int64_t first_row, std::int64_t first_col,
                   Counts& parent) {
  check_ndim(parent, 1, "parent");
  const std::int64_t n = parent.shape(0);
  if (first_row < 0 || first_col < 0 || first_row > n - block.n_rows ||
      first_col > n - block.n_cols) {
    throw std::invalid_argument("first_row, first_col: the block reaches outside the graph");
  }
  std::int64_t* parents = parent.mutable_data();
  const py::gil_scoped_release release;
  connect(block, first_row, first_col, parents);
}

template <class Block, class W, class I>
void fill_block(const Block& block, std::int64_t first_row, std::int64_t first_col, Counts& cursor,
                Array<I>& indices, Array<W>& data) {
  check_ndim(cursor, 1, "cursor");
  check_ndim(indices, 1, "indices");
  check_length(data, indices.shape(0), "data");
  const std::int64_t n = cursor.shape(0), n_entries = indices.shape(0);
  if (first_row < 0 || first_col < 0 || first_row > n - block.n_rows ||
      first_col > n - block.n_cols) {
    throw std::invalid_argument("first_row, first_col: the block reaches outside the matrix");
  }
  std::int64_t* at = cursor.mutable_data();
  I* columns = indices.mutable_data();
  W* values = data.mutable_data();
  const py::gil_scoped_release release;
  fill_symmetric(block, first_row, first_col, at, n_entries, columns, values);
}

template <class W>
void register_dense(py::module_& m) {
  m.def(
      "scan",
      [](const Array<W>& values) {
        const W* from = values.data();
        const std::int64_t n = values.size();
        Scan counts{};
        {
          const py::gil_scoped_release release;
          counts = scan(from, n);
        }
        return py::make_tuple(counts.n_nan, counts.n_infinite, counts.n_negative, counts.n_nonzero);
      },
      py::arg("values").noconvert());
  m.def(
      "count_nonzero_dense",
      [](const Array<W>& weights, Counts row_counts, Counts col_counts) {
        count_block(dense_block(weights), row_counts, col_counts);
      },
      py::arg("weights").noconvert(), py::arg("row_counts").noconvert(),
      py::arg("col_counts").noconvert());
  m.def(
      "add_degrees_dense",
      [](const Array<W>& weights, Degrees row_degrees, Degrees col_degrees) {
        degrees_block(dense_block(weights), row_degrees, col_degrees);
      },
      py::arg("weights").noconvert(), py::arg("row_degrees").noconvert(),
      py::arg("col_degrees").noconvert());
  m.def(
      "connect_dense",
      [](const Array<W>& weights, std::int64_t first_row, std::int64_t first_col, Counts parent) {
        connect_block(dense_block(weights), first_row, first_col, parent);
      },
      py::arg("weights").noconvert(), py::arg("first_row"), py::arg("first_col"),
      py::arg("parent").noconvert());
}

template <class W, class I>
void register_sparse(py::module_& m) {
  m.def(
      "count_nonzero_sparse",
      [](const Array<I>& indptr, const Array<I>& indices, const Array<W>& values,
         std::int64_t n_cols, Counts row_counts, Counts col_counts) {
        count_block(sparse_block(indptr, indices, values, n_cols), row_counts, col_counts);
      },
      py::arg("indptr").noconvert(), py::arg("indices").noconvert(), py::arg("values").noconvert(),
      py::arg("n_cols"), py::arg("row_counts").noconvert(), py::arg("col_counts").noconvert());
  m.def(
      "add_degrees_sparse",
      [](const Array<I>& indptr, const Array<I>& indices, const Array<W>& values,
         std::int64_t n_cols, Degrees row_degrees, Degrees col_degrees) {
        degrees_block(sparse_block(indptr, indices, values, n_cols), row_degrees, col_degrees);
      },
      py::arg("indptr").noconvert(), py::arg("indices").noconvert(), py::arg("values").noconvert(),
      py::arg("n_cols"), py::arg("row_degrees").noconvert(), py::arg("col_degrees").noconvert());
  m.def(
      "connect_sparse",
      [](const Array<I>& indptr, const Array<I>& indices, const Array<W>& values,
         std::int64_t n_cols, std::int64_t first_row, std::int64_t first_col, Counts parent) {
        connect_block(sparse_block(indptr, indices, values, n_cols), first_row, first_col, parent);
      },
      py::arg("indptr").noconvert(), py::arg("indices").noconvert(), py::arg("values").noconvert(),
      py::arg("n_cols"), py::arg("first_row"), py::arg("first_col"), py::arg("parent").noconvert());
}

// W: the block's weights, V: the matrix's data, which may be wider.
template <class W, class V, class I>
void register_fill_dense(py::module_& m) {
  m.def(
      "fill_symmetric_dense",
      [](const Array<W>& weights, std::int64_t first_row, std::int64_t first_col, Counts cursor,
         Array<I> indices, Array<V> data) {
        fill_block(dense_block(weights), first_row, first_col, cursor, indices, data);
      },
      py::arg("weights").noconvert(), py::arg("first_row"), py::arg("first_col"),
      py::arg("cursor").noconvert(), py::arg("indices").noconvert(), py::arg("data").noconvert());
}

template <class W, class J, class V, class I>
void register_fill_sparse(py::module_& m) {
  m.def(
      "fill_symmetric_sparse",
      [](const Array<J>& indptr, const Array<J>& block_indices, const Array<W>& values,
         std::int64_t n_cols, std::int64_t first_row, std::int64_t first_col, Counts cursor,
         Array<I> indices, Array<V> data) {
        fill_block(sparse_block(indptr, block_indices, values, n_cols), first_row, first_col,
                   cursor, indices, data);
      },
      py::arg("indptr").noconvert(), py::arg("block_indices").noconvert(),
      py::arg("values").noconvert(), py::arg("n_cols"), py::arg("first_row"), py::arg("first_col"),
      py::arg("cursor").noconvert(), py::arg("indices").noconvert(), py::arg("data").noconvert());
}

template <class W, class V>
void register_fill(py::module_& m) {
  register_fill_dense<W, V, std::int32_t>(m);
  register_fill_dense<W, V, std::int64_t>(m);
  register_fill_sparse<W, std::int32_t, V, std::int32_t>(m);
  register_fill_sparse<W, std::int32_t, V, std::int64_t>(m);
  register_fill_sparse<W, std::int64_t, V, std::int32_t>(m);
  register_fill_sparse<W, std::int64_t, V, std::int64_t>(m);
}

}  // namespace

void register_assemble(py::module_& m) {
  register_dense<float>(m);
  register_dense<double>(m);
  register_dense<Half>(m);
  register_dense<BFloat16>(m);
  register_sparse<float, std::int32_t>(m);
  register_sparse<float, std::int64_t>(m);
  register_sparse<double, std::int32_t>(m);
  register_sparse<double, std::int64_t>(m);
  register_fill<float, float>(m);
  register_fill<float, double>(m);
  register_fill<double, double>(m);
  register_fill_dense<Half, float, std::int32_t>(m);
  register_fill_dense<Half, float, std::int64_t>(m);
  register_fill_dense<Half, double, std::int32_t>(m);
  register_fill_dense<Half, double, std::int64_t>(m);
  register_fill_dense<BFloat16, double, std::int32_t>(m);
  register_fill_dense<BFloat16, double, std::int64_t>(m);
  register_fill_dense<BFloat16, float, std::int32_t>(m);
  register_fill_dense<BFloat16, float, std::int64_t>(m);
}

}  // namespace ncut::bindings
