#include "measure.hpp"

#include <pybind11/stl.h>

#include <regex>
#include <string>
#include <tuple>

#include "arrays.hpp"
#include "module.hpp"

namespace ncut::bindings {
namespace {

// A LAPACK function that SciPy exports, by the capsule in scipy.linalg.cython_lapack.__pyx_capi__.
SymmetricSolver solver_from(const py::object& capsule) {
  const auto checked = py::cast<py::capsule>(capsule);
  // Cython names a capsule by the function's type, with its own, longer name for double.
  static const std::regex signature(
      R"(void \(char \*, char \*, int \*, (\w*_d|double) \*, int \*, (\w*_d|double) \*, )"
      R"((\w*_d|double) \*, int \*, int \*, int \*, int \*\))");
  if (checked.name() == nullptr || !std::regex_match(checked.name(), signature)) {
    throw std::invalid_argument("dsyevd: not SciPy's capsule of LAPACK's dsyevd");
  }
  return reinterpret_cast<SymmetricSolver>(checked.get_pointer<void>());
}

template <class T>
py::array_t<T> as_array(const std::vector<T>& values, std::vector<py::ssize_t> shape) {
  py::array_t<T> array(std::move(shape));
  std::copy(values.begin(), values.end(), array.mutable_data());
  return array;
}

template <class T>
std::vector<T> copied(const Array<T>& array) {
  return {array.data(), array.data() + array.size()};
}

// Throws unless it is empty or has each number below n once.
void check_order(const std::vector<std::int64_t>& order, std::int64_t n) {
  std::vector<bool> seen(order.size());
  for (const std::int64_t one : order) {
    if (one < 0 || one >= n || seen[static_cast<std::size_t>(one)] ||
        static_cast<std::int64_t>(order.size()) != n) {
      throw std::invalid_argument("orders: must have each neuron of the layer once, or none");
    }
    seen[static_cast<std::size_t>(one)] = true;
  }
}

// The network that shuffles are made from, copied.
struct Source {
  Network network;

  Source(const std::vector<std::int64_t>& sizes, const std::vector<std::int8_t>& colours)
      : network{sizes, colours, {}} {
    if (!colours.empty() && colours.size() != sizes.size()) {
      throw std::invalid_argument("colours: one for each layer, or none");
    }
    for (const std::int8_t colour : colours) {
      if (colour < 0 || colour > 1) throw std::invalid_argument("colours: must be 0 or 1");
    }
    for (const std::int64_t size : sizes) {
      if (size < 0 || size > INT32_MAX) {
        throw std::invalid_argument("sizes: must lie between 0 and 2^31 - 1");
      }
    }
  }

  Edges placed(std::int64_t source, std::int64_t target, std::uint32_t substream,
               std::int64_t n_rows, std::int64_t n_cols) const {
    const auto n = static_cast<std::int64_t>(network.sizes.size());
    if (source < 0 || target < 0 || source >= n || target >= n ||
        network.sizes[static_cast<std::size_t>(source)] != n_rows ||
        network.sizes[static_cast<std::size_t>(target)] != n_cols) {
      throw std::invalid_argument("source, target: not layers of the shape of the weights");
    }
    return {source, target, substream, n_rows, n_cols, {}, {}, {}};
  }

  void add_dense(std::int64_t source, std::int64_t target, std::uint32_t substream,
                 const Array<float>& weights) {
    check_ndim(weights, 2, "weights");
    Edges block = placed(source, target, substream, weights.shape(0), weights.shape(1));
    block.values = copied(weights);
    network.blocks.push_back(std::move(block));
  }

  void add_sparse(std::int64_t source, std::int64_t target, std::uint32_t substream,
                  const Array<std::int32_t>& indptr, const Array<std::int32_t>& indices,
                  const Array<float>& values, std::int64_t n_cols) {
    const auto view = sparse_block(indptr, indices, values, n_cols);
    for (std::int64_t row = 0; row < view.n_rows; ++row) {
      if (indptr.data()[row + 1] < indptr.data()[row] || indptr.data()[0] != 0) {
        throw std::invalid_argument("indptr: must rise from zero");
      }
    }
    for (py::ssize_t at = 0; at < indices.size(); ++at) {
      if (indices.data()[at] < 0 || indices.data()[at] >= n_cols) {
        throw std::invalid_argument("indices: must lie below n_cols");
      }
    }
    Edges block = placed(source, target, substream, view.n_rows, n_cols);
    block.values = copied(values);
    block.indptr = copied(indptr);
    block.indices = copied(indices);
    network.blocks.push_back(std::move(block));
  }

  py::object measure(const std::string& null, std::uint32_t stream, const Array<float>& start,
                     std::int64_t k, std::int64_t n_init, std::int64_t max_iterations,
                     double tolerance, std::int64_t max_passes, std::uint64_t seed,
                     const std::vector<std::uint32_t>& kmeans_streams, bool refine, double residual,
                     int max_products, const py::object& dsyevd, int n_threads) const {
    if (null != "layer" && null != "layer-nonzero") {
      throw std::invalid_argument("null: must be 'layer' or 'layer-nonzero'");
    }
    if (k < 2 || n_init < 1 || max_iterations < 1 || kmeans_streams.empty()) {
      throw std::invalid_argument("k, n_init, max_iterations, kmeans_streams: too few");
    }
    const MeasureOptions options{k,
                                 n_init,
                                 max_iterations,
                                 tolerance,
                                 max_passes,
                                 seed,
                                 kmeans_streams,
                                 refine,
                                 {solver_from(dsyevd), residual, max_products},
                                 n_threads};
    Measured found;
    const float* numbers = start.data();
    const std::int64_t n_start = start.size();
    bool done;
    {
      const py::gil_scoped_release release;
      done = measure_shuffle(network, null == "layer" ? Null::kLayer : Null::kLayerNonzero, stream,
                             numbers, n_start, options, found);
    }
    if (!done) return py::none();
    const auto n = static_cast<py::ssize_t>(found.degrees.size());
    const auto listed = [&](const std::vector<Partition>& partitions) {
      py::list list;
      for (const Partition& one : partitions) {
        list.append(std::make_tuple(as_array(one.labels, {n}), as_array(one.volume, {k}),
                                    as_array(one.cut, {k})));
      }
      return list;
    };
    py::dict result;
    result["values"] = as_array(found.spectrum.values, {k});
    result["residuals"] = as_array(found.spectrum.residuals, {k, k});
    result["n_known"] = found.spectrum.n_known;
    result["following"] = found.spectrum.following;
    result["sizes"] = found.sizes;
    result["degrees"] = as_array(found.degrees, {n});
    result["spectral"] = listed(found.spectral);
    result["refined"] = listed(found.refined);
    result["squares"] =
        as_array(found.squares, {static_cast<py::ssize_t>(found.squares.size()) / 2, 2});
    return result;
  }

  py::object embed(const std::vector<std::vector<std::int64_t>>& orders, const Array<float>& start,
                   std::int64_t k, double residual, int max_products, const py::object& dsyevd,
                   int n_threads) const {
    if (orders.size() != network.sizes.size()) {
      throw std::invalid_argument("orders: one for each layer");
    }
    for (std::size_t layer = 0; layer < orders.size(); ++layer) {
      check_order(orders[layer], network.sizes[layer]);
    }
    if (k < 2) throw std::invalid_argument("k: too small");
    const LanczosOptions options{solver_from(dsyevd), residual, max_products};
    Spectrum spectrum;
    std::int64_t n = 0;
    const float* numbers = start.data();
    const std::int64_t n_start = start.size();
    bool done;
    {
      const py::gil_scoped_release release;
      done = embed_reordered(network, orders, k, numbers, n_start, options, n_threads, n, spectrum);
    }
    if (!done) return py::none();
    py::dict result;
    result["values"] = as_array(spectrum.values, {k});
    result["residuals"] = as_array(spectrum.residuals, {k, k});
    result["n_known"] = spectrum.n_known;
    result["following"] = spectrum.following;
    result["n_vertices"] = n;
    return result;
  }
};

}  // namespace

void register_measure(py::module_& m) {
  m.def(
      "unit_variance",
      [](const Array<double>& points, Array<float> scaled) {
        check_ndim(points, 2, "points");
        check_ndim(scaled, 2, "scaled");
        if (points.shape(0) != scaled.shape(0) || points.shape(1) != scaled.shape(1)) {
          throw std::invalid_argument("scaled: must have the shape of points");
        }
        const double* from = points.data();
        float* to = scaled.mutable_data();
        const py::gil_scoped_release release;
        return unit_variance(from, points.shape(0), points.shape(1), to);
      },
      py::arg("points").noconvert(), py::arg("scaled").noconvert());
  py::class_<Source>(m, "Source", "A network whose shuffles are measured.")
      .def(py::init<const std::vector<std::int64_t>&, const std::vector<std::int8_t>&>(),
           py::arg("sizes"), py::arg("colours"))
      .def("add_dense", &Source::add_dense, py::arg("source"), py::arg("target"),
           py::arg("substream"), py::arg("weights").noconvert())
      .def("add_sparse", &Source::add_sparse, py::arg("source"), py::arg("target"),
           py::arg("substream"), py::arg("indptr").noconvert(), py::arg("indices").noconvert(),
           py::arg("values").noconvert(), py::arg("n_cols"))
      .def("measure", &Source::measure, py::arg("null"), py::arg("stream"),
           py::arg("start").noconvert(), py::arg("k"), py::arg("n_init"), py::arg("max_iterations"),
           py::arg("tolerance"), py::arg("max_passes"), py::arg("seed"), py::arg("kmeans_streams"),
           py::arg("refine"), py::arg("residual"), py::arg("max_products"), py::arg("dsyevd"),
           py::arg("n_threads"))
      .def("embed", &Source::embed, py::arg("orders"), py::arg("start").noconvert(), py::arg("k"),
           py::arg("residual"), py::arg("max_products"), py::arg("dsyevd"), py::arg("n_threads"));
}

}  // namespace ncut::bindings
