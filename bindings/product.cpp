#include "product.hpp"

#include <pybind11/typing.h>

#include "arrays.hpp"
#include "lanes.hpp"
#include "module.hpp"
#include "orthonormalize.hpp"
#include "refine.hpp"

namespace ncut::bindings {
namespace {

using Blocks = py::typing::List<py::typing::Tuple<py::array, std::int64_t, std::int64_t>>;

// A (weights, first_row, first_col), checked to lie inside n vertices.
template <class W>
PlacedBlock<W> placed_block(const py::tuple& entry, std::int64_t n) {
  const DenseBlock<W> block = dense_block(py::reinterpret_borrow<Array<W>>(entry[0]));
  const auto first_row = py::cast<std::int64_t>(entry[1]);
  const auto first_col = py::cast<std::int64_t>(entry[2]);
  if (first_row < 0 || first_col < 0 || first_row > n - block.n_rows ||
      first_col > n - block.n_cols) {
    throw std::invalid_argument("blocks: one reaches outside the vectors");
  }
  return {block, first_row, first_col};
}

template <class W, class I>
SymmetricMatrix<W, I> symmetric_matrix(const Blocks& blocks, const Array<I>& indptr,
                                       const Array<I>& indices,
                                       const Array<typename Wide<W>::type>& values,
                                       std::int64_t n) {
  using WideWeight = typename Wide<W>::type;
  SymmetricMatrix<W, I> matrix{{}, {}};
  for (const py::handle& item : blocks) {
    const auto entry = py::cast<py::tuple>(item);
    if (entry.size() == 3 && py::isinstance<Array<W>>(entry[0])) {
      matrix.dense.push_back(placed_block<W>(entry, n));
    } else if (entry.size() == 3 && py::isinstance<Array<WideWeight>>(entry[0])) {
      matrix.wide.push_back(placed_block<WideWeight>(entry, n));
    } else {
      throw py::type_error("blocks: needs (C-contiguous weights, first_row, first_col) each");
    }
  }
  if (indptr.size() > 0) {
    check_length(indptr, n + 1, "indptr");
    matrix.sparse = sparse_block(indptr, indices, values, n);
  }
  return matrix;
}

template <class W, class I, class T>
void register_multiply(py::module_& m, const std::string& name) {
  m.def(
      name.c_str(),
      [](const Blocks& blocks, const Array<I>& indptr, const Array<I>& indices,
         const Array<typename Wide<W>::type>& values, const Array<T>& x, const Array<T>& scale,
         std::int64_t first, std::int64_t last, Array<T> y, int n_threads) {
        check_ndim(x, 2, "x");
        check_ndim(y, 2, "y");
        const std::int64_t n = x.shape(0), width = x.shape(1);
        check_length(scale, n, "scale");
        if (width % kLanes != 0 || y.shape(0) != n || y.shape(1) != width) {
          throw std::invalid_argument("x, y: must have the same shape, a multiple of 16 wide");
        }
        if (first < 0 || last < first || last > n) {
          throw std::invalid_argument("first, last: must be a range of vertices");
        }
        const auto matrix = symmetric_matrix<W>(blocks, indptr, indices, values, n);
        const T* from = x.data();
        const T* scales = scale.data();
        T* to = y.mutable_data();
        const py::gil_scoped_release release;
        multiply(matrix, from, width, scales, first, last, to, n_threads);
      },
      py::arg("blocks"), py::arg("indptr").noconvert(), py::arg("indices").noconvert(),
      py::arg("values").noconvert(), py::arg("x").noconvert(), py::arg("scale").noconvert(),
      py::arg("first"), py::arg("last"), py::arg("y").noconvert(), py::arg("n_threads"));
}

template <class W, class I>
void register_refine(py::module_& m, const std::string& name) {
  m.def(
      name.c_str(),
      [](const Blocks& blocks, const Array<I>& indptr, const Array<I>& indices,
         const Array<typename Wide<W>::type>& values, const Array<double>& degrees, std::int64_t k,
         std::int64_t max_passes, Array<double> links, Array<double> totals,
         Array<std::int32_t> labels) {
        check_ndim(links, 2, "links");
        check_ndim(totals, 2, "totals");
        const std::int64_t n = links.shape(0), width = links.shape(1);
        check_length(degrees, n, "degrees");
        check_length(labels, n, "labels");
        if (k < 1 || k > width) throw std::invalid_argument("k: must lie between 1 and the width");
        if (totals.shape(0) != 3 || totals.shape(1) != k) {
          throw std::invalid_argument("totals: must have the shape (3, k)");
        }
        std::int32_t* label_values = labels.mutable_data();
        for (std::int64_t v = 0; v < n; ++v) {
          if (label_values[v] < 0 || label_values[v] >= k) {
            throw std::invalid_argument("labels: must lie between 0 and k - 1");
          }
        }
        const auto matrix = symmetric_matrix<W>(blocks, indptr, indices, values, n);
        const double* degree_values = degrees.data();
        double* link_values = links.mutable_data();
        double* total_values = totals.mutable_data();
        const py::gil_scoped_release release;
        return refine(matrix, degree_values, n, k, width, max_passes, link_values, total_values,
                      label_values);
      },
      py::arg("blocks"), py::arg("indptr").noconvert(), py::arg("indices").noconvert(),
      py::arg("values").noconvert(), py::arg("degrees").noconvert(), py::arg("k"),
      py::arg("max_passes"), py::arg("links").noconvert(), py::arg("totals").noconvert(),
      py::arg("labels").noconvert());
}

template <class T>
void register_orthonormalize(py::module_& m) {
  m.def(
      "orthonormalize",
      [](const Array<T>& block, const Array<T>& against, std::int64_t n_columns, Array<T> inside,
         Array<T> out, Array<double> factor) {
        for (const auto* matrix : {&block, &against, static_cast<const Array<T>*>(&inside),
                                   static_cast<const Array<T>*>(&out)}) {
          check_ndim(*matrix, 2, "block, against, inside, out");
        }
        check_ndim(factor, 2, "factor");
        const std::int64_t n = block.shape(0), stride = against.shape(1);
        if (block.shape(1) != kLanes || out.shape(1) != kLanes || inside.shape(1) != kLanes ||
            factor.shape(0) != kLanes || factor.shape(1) != kLanes) {
          throw std::invalid_argument("block, inside, out, factor: must be 16 wide");
        }
        if (against.shape(0) != n || out.shape(0) != n || n_columns < 0 || n_columns > stride ||
            inside.shape(0) != n_columns) {
          throw std::invalid_argument("against, inside, out: must fit the block");
        }
        const T* from = block.data();
        const T* others = against.data();
        T* coefficients = inside.mutable_data();
        T* to = out.mutable_data();
        double* triangle = factor.mutable_data();
        const py::gil_scoped_release release;
        return orthonormalize(from, others, n, n_columns, stride, coefficients, to, triangle);
      },
      py::arg("block").noconvert(), py::arg("against").noconvert(), py::arg("n_columns"),
      py::arg("inside").noconvert(), py::arg("out").noconvert(), py::arg("factor").noconvert());
}

// Overloads cannot distinguish 16-bit blocks inside a list, so their kernels have separate names.
template <class W>
void register_kernels(py::module_& m, const std::string& suffix) {
  register_multiply<W, std::int32_t, float>(m, "multiply" + suffix);
  register_multiply<W, std::int64_t, float>(m, "multiply" + suffix);
  register_multiply<W, std::int32_t, double>(m, "multiply" + suffix);
  register_multiply<W, std::int64_t, double>(m, "multiply" + suffix);
  register_refine<W, std::int32_t>(m, "refine" + suffix);
  register_refine<W, std::int64_t>(m, "refine" + suffix);
}

}  // namespace

void register_product(py::module_& m) {
  register_orthonormalize<float>(m);
  register_orthonormalize<double>(m);
  register_kernels<float>(m, "");
  register_kernels<double>(m, "");
  register_kernels<Half>(m, "_half");
  register_kernels<BFloat16>(m, "_bfloat16");
}

}  // namespace ncut::bindings
