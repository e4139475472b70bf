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

// Links of a block's rows or columns, (n, width), as the number of clusters that fit.
std::int64_t check_links(const Sums& links, std::int64_t n, std::int64_t k, const char* name) {
  check_ndim(links, 2, name);
  if (links.shape(0) != n) {
    throw std::invalid_argument(std::string(name) + ": must have " + std::to_string(n) + " rows");
  }
  if (k < 1 || links.shape(1) < k) {
    throw std::invalid_argument(std::string(name) + ": must have a column for each cluster");
  }
  return links.shape(1);
}

void check_all_clustered(const Labels& labels, std::int64_t length, std::int64_t k,
                         const char* name) {
  check_labels(labels, length, k, name);
  for (std::int64_t i = 0; i < length; ++i) {
    if (labels.data()[i] < 0) throw std::invalid_argument(std::string(name) + ": must not be -1");
  }
}

template <class Block>
void links_block(const Block& block, const Labels& row_labels, const Labels& col_labels,
                 std::int64_t k, Sums& row_links, Sums& col_links) {
  const std::int64_t width = check_links(row_links, block.n_rows, k, "row_links");
  if (check_links(col_links, block.n_cols, k, "col_links") != width) {
    throw std::invalid_argument("col_links: must have as many columns as row_links");
  }
  check_all_clustered(row_labels, block.n_rows, k, "row_labels");
  check_all_clustered(col_labels, block.n_cols, k, "col_labels");
  const std::int32_t* rows = row_labels.data();
  const std::int32_t* cols = col_labels.data();
  double* row_sums = row_links.mutable_data();
  double* col_sums = col_links.mutable_data();
  const py::gil_scoped_release release;
  add_links(block, rows, cols, k, width, row_sums, col_sums);
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
void register_cut_of_dense(py::module_& m) {
  m.def(
      "add_links_dense",
      [](const Array<W>& weights, const Labels& row_labels, const Labels& col_labels,
         std::int64_t k, Sums row_links, Sums col_links) {
        links_block(dense_block(weights), row_labels, col_labels, k, row_links, col_links);
      },
      py::arg("weights").noconvert(), py::arg("row_labels").noconvert(),
      py::arg("col_labels").noconvert(), py::arg("k"), py::arg("row_links").noconvert(),
      py::arg("col_links").noconvert());
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
void register_cut_of_sparse(py::module_& m) {
  m.def(
      "add_links_sparse",
      [](const Array<I>& indptr, const Array<I>& indices, const Array<W>& values,
         std::int64_t n_cols, const Labels& row_labels, const Labels& col_labels, std::int64_t k,
         Sums row_links, Sums col_links) {
        links_block(sparse_block(indptr, indices, values, n_cols), row_labels, col_labels, k,
                    row_links, col_links);
      },
      py::arg("indptr").noconvert(), py::arg("indices").noconvert(), py::arg("values").noconvert(),
      py::arg("n_cols"), py::arg("row_labels").noconvert(), py::arg("col_labels").noconvert(),
      py::arg("k"), py::arg("row_links").noconvert(), py::arg("col_links").noconvert());
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
  register_cut_of_dense<float>(m);
  register_cut_of_dense<double>(m);
  register_cut_of_dense<Half>(m);
  register_cut_of_dense<BFloat16>(m);
  register_cut_of_sparse<float, std::int32_t>(m);
  register_cut_of_sparse<float, std::int64_t>(m);
  register_cut_of_sparse<double, std::int32_t>(m);
  register_cut_of_sparse<double, std::int64_t>(m);
}

}  // namespace ncut::bindings
