#include "subspace.hpp"

#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <optional>
#include <tuple>

#include "arrays.hpp"
#include "lanes.hpp"
#include "module.hpp"
#include "rescale.hpp"

namespace ncut::bindings {
namespace {

using Blocks = py::typing::List<py::typing::Tuple<py::array, std::int64_t, std::int64_t>>;

// A list of (signed weights, first_row, first_col), checked to lie inside n vertices.
template <class T>
WeightedGraph<T> weighted_graph(const Blocks& blocks, std::int64_t n, std::int64_t n_first) {
  WeightedGraph<T> graph{{}, n, n_first};
  if (n_first < 0 || n_first >= n) {
    throw std::invalid_argument("n_first: must be less than the number of vertices");
  }
  for (const py::handle& item : blocks) {
    const auto entry = py::cast<py::tuple>(item);
    if (entry.size() != 3 || !py::isinstance<Array<T>>(entry[0])) {
      throw py::type_error("blocks: needs (C-contiguous weights, first_row, first_col) each");
    }
    const auto weights = py::reinterpret_borrow<Array<T>>(entry[0]);
    check_ndim(weights, 2, "weights");
    const std::int64_t n_rows = weights.shape(0), n_cols = weights.shape(1);
    const auto first_row = py::cast<std::int64_t>(entry[1]);
    const auto first_col = py::cast<std::int64_t>(entry[2]);
    if (first_row < 0 || first_col < 0 || first_row > n - n_rows || first_col > n - n_cols) {
      throw std::invalid_argument("blocks: one reaches outside the vectors");
    }
    static_assert(sizeof(Magnitude<T>) == sizeof(T));
    const auto* values = reinterpret_cast<const Magnitude<T>*>(weights.data());
    graph.blocks.push_back({{values, n_rows, n_cols}, first_row, first_col});
  }
  return graph;
}

template <class T>
void check_rows(const Array<T>& array, std::int64_t n, const char* name) {
  check_ndim(array, 2, name);
  if (array.shape(0) != n || array.shape(1) != kLanes) {
    throw std::invalid_argument(std::string(name) + ": must have shape (" + std::to_string(n) +
                                ", 16)");
  }
}

template <class T>
void register_update(py::module_& m) {
  m.def(
      "update_eigenvectors",
      [](const Blocks& blocks, std::int64_t n_first, std::int64_t n_wanted, double tolerance,
         int max_products, std::uint64_t seed, std::uint32_t stream, int n_threads, Array<T> basis,
         Array<double> degrees, Array<double> values, Array<double> residuals, Array<T> vectors) {
        check_ndim(vectors, 2, "vectors");
        const std::int64_t n = vectors.shape(0);
        const auto graph = weighted_graph<T>(blocks, n, n_first);
        check_rows(vectors, n, "vectors");
        check_rows(basis, graph.n_side(), "basis");
        check_length(degrees, n, "degrees");
        check_length(values, kLanes, "values");
        check_length(residuals, kLanes, "residuals");
        if (n_wanted < 1 || n_wanted > kLanes) {
          throw std::invalid_argument("n_wanted: must lie between 1 and 16");
        }
        T* start = basis.mutable_data();
        double* sums = degrees.mutable_data();
        double* mu = values.mutable_data();
        double* norms = residuals.mutable_data();
        T* found = vectors.mutable_data();
        Progress progress{};
        {
          const py::gil_scoped_release release;
          Philox random(seed, stream, 0);
          progress = update_eigenvectors(graph, {n_wanted, tolerance, max_products}, random,
                                         n_threads, start, sums, mu, norms, found);
        }
        return std::make_tuple(progress.n_products, progress.converged, progress.broken);
      },
      py::arg("blocks"), py::arg("n_first"), py::arg("n_wanted"), py::arg("tolerance"),
      py::arg("max_products"), py::arg("seed"), py::arg("stream"), py::arg("n_threads"),
      py::arg("basis").noconvert(), py::arg("degrees").noconvert(), py::arg("values").noconvert(),
      py::arg("residuals").noconvert(), py::arg("vectors").noconvert());
}

template <class T>
void register_gradient(py::module_& m) {
  m.def(
      "eigenvalue_gradient",
      [](const Blocks& blocks, const Array<double>& slopes, const Array<double>& values,
         const Array<T>& vectors, int n_threads, const py::typing::List<py::array>& gradients) {
        check_ndim(vectors, 2, "vectors");
        const std::int64_t n = vectors.shape(0);
        const auto graph = weighted_graph<T>(blocks, n, 0);
        check_rows(vectors, n, "vectors");
        check_length(slopes, kLanes, "slopes");
        check_length(values, kLanes, "values");
        std::vector<T*> to;
        for (const py::handle& item : gradients) {
          if (!py::isinstance<Array<T>>(item)) {
            throw py::type_error("gradients: must be C-contiguous and of the weights' type");
          }
          auto gradient = py::reinterpret_borrow<Array<T>>(item);
          check_ndim(gradient, 2, "gradients");
          if (to.size() >= graph.blocks.size() ||
              gradient.shape(0) != graph.blocks[to.size()].block.n_rows ||
              gradient.shape(1) != graph.blocks[to.size()].block.n_cols) {
            throw std::invalid_argument("gradients: must have the shapes of the blocks");
          }
          to.push_back(gradient.mutable_data());
        }
        if (to.size() != graph.blocks.size()) {
          throw std::invalid_argument("gradients: needs one for each block");
        }
        const double* factors = slopes.data();
        const double* mu = values.data();
        const T* u = vectors.data();
        const py::gil_scoped_release release;
        eigenvalue_gradient(graph, factors, mu, u, n_threads, to);
      },
      py::arg("blocks"), py::arg("slopes").noconvert(), py::arg("values").noconvert(),
      py::arg("vectors").noconvert(), py::arg("n_threads"), py::arg("gradients"));
}

template <class T>
void register_normalize(py::module_& m) {
  m.def(
      "normalize_neurons",
      [](Array<T> incoming, std::optional<Array<T>> bias, Array<T> outgoing, double norm) {
        check_ndim(incoming, 2, "incoming");
        check_ndim(outgoing, 2, "outgoing");
        const std::int64_t n = incoming.shape(0), n_in = incoming.shape(1);
        const std::int64_t n_rows = outgoing.shape(0), n_columns = outgoing.shape(1);
        if (n == 0 || n_columns % n != 0) {
          throw std::invalid_argument("outgoing: needs columns for every row of incoming");
        }
        if (bias) check_length(*bias, n, "bias");
        T* shifts = bias ? bias->mutable_data() : nullptr;
        T* weights = incoming.mutable_data();
        T* next = outgoing.mutable_data();
        const py::gil_scoped_release release;
        return normalize_neurons(weights, n, n_in, shifts, next, n_rows, n_columns / n, norm);
      },
      py::arg("incoming").noconvert(), py::arg("bias").noconvert().none(true),
      py::arg("outgoing").noconvert(), py::arg("norm"));
}

}  // namespace

void register_subspace(py::module_& m) {
  register_update<float>(m);
  register_update<double>(m);
  register_gradient<float>(m);
  register_gradient<double>(m);
  register_normalize<float>(m);
  register_normalize<double>(m);
}

}  // namespace ncut::bindings
