#include "kmeans.hpp"

#include <functional>

#include "arrays.hpp"
#include "module.hpp"
#include "signals.hpp"

namespace ncut::bindings {
namespace {

template <class T>
void register_one(py::module_& m) {
  m.def(
      "kmeans",
      [](const Array<T>& points, Array<std::int32_t> labels, std::int64_t n_clusters,
         std::int64_t n_init, std::int64_t max_iterations, double tolerance, std::uint64_t seed,
         std::uint32_t stream, int n_threads) {
        check_ndim(points, 2, "points");
        const std::int64_t n = points.shape(0), d = points.shape(1);
        check_length(labels, n, "labels");
        if (n_clusters < 1 || n_clusters > n || n_init < 1 || d < 1 || max_iterations < 1) {
          throw std::invalid_argument(
              "n_clusters, n_init, max_iterations: must be positive, n_clusters <= n");
        }
        const T* from = points.data();
        std::int32_t* to = labels.mutable_data();
        Signals signals;
        const KMeansOptions options{n_clusters, n_init, max_iterations, tolerance,
                                    seed,       stream, n_threads,      std::ref(signals)};
        const py::gil_scoped_release release;
        return kmeans(from, n, d, options, to);
      },
      py::arg("points").noconvert(), py::arg("labels").noconvert(), py::arg("n_clusters"),
      py::arg("n_init"), py::arg("max_iterations"), py::arg("tolerance"), py::arg("seed"),
      py::arg("stream"), py::arg("n_threads"));
}

}  // namespace

void register_kmeans(py::module_& m) {
  register_one<float>(m);
  register_one<double>(m);
}

}  // namespace ncut::bindings
