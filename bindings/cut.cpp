#include "cut.hpp"

#include "arrays.hpp"
#include "module.hpp"

namespace ncut::bindings {
namespace {

using Labels = Array<std::int32_t>;
using Sums = Array<double>;

void check_labels(const Labels& labels, std::int64_t length, std::int64_t k, const char* name) {
  check_length(labels, length, name);
  const std::int32_t* values = labels.data();
  for (std::int64_t i = 0; i < length; ++i) {
    if (values[i] < -1 || values[i] >= k) {
      throw std::invalid_argument(std::string(name) + ": must lie between -1 and k - 1");
    }
  }
}

template <class Block>
void cut_block(const Block& block, const Labels& row_labels, const Labels& col_labels, Sums& volume,
               Sums& cut) {
  check_ndim(volume, 1, "volume");
  const std::int64_t k = volume.shape(0);
  check_length(cut, k, "cut");
  check_labels(row_labels, block.n_rows, k, "row_labels");
  check_labels(col_labels, block.n_cols, k, "col_labels");
  const std::int32_t* rows = row_labels.data();
  const std::int32_t* cols = col_labels.data();
  double* volumes = volume.mutable_data();
  double* cuts = cut.mutable_data();
  const py::gil_scoped_release release;
  add_cut(block, rows, cols, k, volumes, cuts);
}

template <class Block>
void squares_block(const Block& block, const Labels& row_labels, const Labels& col_labels,
                   Sums& sums) {
  check_length(row_labels, block.n_rows, "row_labels");
  check_length(col_labels, block.n_cols, "col_labels");
  check_length(sums, 2, "sums");
  const std::int32_t* rows = row_labels.data();
  const std::int32_t* cols = col_labels.data();
  double* out = sums.mutable_data();
  const py::gil_scoped_release release;
  add_squares(block, rows, cols, out);
}

template <class W>
void register_dense(py::module_& m) {
  m.def(
      "add_squares_dense",
      [](const Array<W>& weights, const Labels& row_labels, const Labels& col_labels, Sums sums) {
        squares_block(dense_block(weights), row_labels, col_labels, sums);
      },
      py::arg("weights").noconvert(), py::arg("row_labels").noconvert(),
      py::arg("col_labels").noconvert(), py::arg("sums").noconvert());
  m.def(
      "add_cut_dense",
      [](const Array<W>& weights, const Labels& row_labels, const Labels& col_labels, Sums volume,
         Sums cut) { cut_block(dense_block(weights), row_labels, col_labels, volume, cut); },
      py::arg("weights").noconvert(), py::arg("row_labels").noconvert(),
      py::arg("col_labels").noconvert(), py::arg("volume").noconvert(), py::arg("cut").noconvert());
}

template <class W, class I>
void register_sparse(py::module_& m) {
  m.def(
      "add_squares_sparse",
      [](const Array<I>& indptr, const Array<I>& indices, const Array<W>& values,
         std::int64_t n_cols, const Labels& row_labels, const Labels& col_labels, Sums sums) {
        squares_block(sparse_block(indptr, indices, values, n_cols), row_labels, col_labels, sums);
      },
      py::arg("indptr").noconvert(), py::arg("indices").noconvert(), py::arg("values").noconvert(),
      py::arg("n_cols"), py::arg("row_labels").noconvert(), py::arg("col_labels").noconvert(),
      py::arg("sums").noconvert());
  m.def(
      "add_cut_sparse",
      [](const Array<I>& indptr, const Array<I>& indices, const Array<W>& values,
         std::int64_t n_cols, const Labels& row_labels, const Labels& col_labels, Sums volume,
         Sums cut) {
        cut_block(sparse_block(indptr, indices, values, n_cols), row_labels, col_labels, volume,
                  cut);
      },
      py::arg("indptr").noconvert(), py::arg("indices").noconvert(), py::arg("values").noconvert(),
      py::arg("n_cols"), py::arg("row_labels").noconvert(), py::arg("col_labels").noconvert(),
      py::arg("volume").noconvert(), py::arg("cut").noconvert());
}

}  // namespace

void register_cut(py::module_& m) {
  register_dense<float>(m);
  register_dense<double>(m);
  register_dense<Half>(m);
  register_dense<BFloat16>(m);
  register_sparse<float, std::int32_t>(m);
  register_sparse<float, std::int64_t>(m);
  register_sparse<double, std::int32_t>(m);
  register_sparse<double, std::int64_t>(m);
}

}  // namespace ncut::bindings
