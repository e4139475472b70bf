#include "shuffle.hpp"

#include "arrays.hpp"
#include "module.hpp"

namespace ncut::bindings {
namespace {

template <class W>
void register_permute(py::module_& m) {
  m.def(
      "permuted",
      [](const Array<W>& values, Array<W> out, std::uint64_t seed, std::uint32_t stream,
         std::uint32_t substream) {
        check_ndim(values, 1, "values");
        const std::int64_t n = values.shape(0);
        check_length(out, n, "out");
        const W* from = values.data();
        W* to = out.mutable_data();
        if (from < to + n && to < from + n) {
          throw std::invalid_argument("out: must not overlap with values");
        }
        const py::gil_scoped_release release;
        Philox random(seed, stream, substream);
        permuted(from, to, n, random);
      },
      py::arg("values").noconvert(), py::arg("out").noconvert(), py::arg("seed"), py::arg("stream"),
      py::arg("substream"));
}

template <class W>
void register_kde(py::module_& m) {
  m.def(
      "draw_kde",
      [](const Array<W>& sample, double bandwidth, Array<W> values, std::uint64_t seed,
         std::uint32_t stream, std::uint32_t substream) {
        check_ndim(sample, 1, "sample");
        check_ndim(values, 1, "values");
        const std::int64_t n_sample = sample.shape(0), n = values.shape(0);
        if (n_sample == 0 && n > 0) throw std::invalid_argument("sample: must not be empty");
        const W* from = sample.data();
        W* to = values.mutable_data();
        const py::gil_scoped_release release;
        Philox random(seed, stream, substream);
        draw_kde(from, n_sample, bandwidth, to, n, random);
      },
      py::arg("sample").noconvert(), py::arg("bandwidth"), py::arg("values").noconvert(),
      py::arg("seed"), py::arg("stream"), py::arg("substream"));
}

template <class I>
void register_pattern(py::module_& m) {
  m.def(
      "random_pattern",
      [](Array<I> indptr, Array<I> indices, std::int64_t n_cols, bool triangle, std::uint64_t seed,
         std::uint32_t stream, std::uint32_t substream) {
        check_ndim(indptr, 1, "indptr");
        check_ndim(indices, 1, "indices");
        const Positions positions{indptr.shape(0) - 1, n_cols, triangle};
        if (positions.n_rows < 0 || n_cols < 0 || (triangle && n_cols != positions.n_rows)) {
          throw std::invalid_argument("indptr, n_cols: not a matrix's shape");
        }
        const auto size = static_cast<std::uint64_t>(indices.shape(0));
        if (size > positions.count()) {
          throw std::invalid_argument("indices: more entries than positions");
        }
        I* starts = indptr.mutable_data();
        I* columns = indices.mutable_data();
        const py::gil_scoped_release release;
        Philox random(seed, stream, substream);
        random_pattern(positions, size, random, starts, columns);
      },
      py::arg("indptr").noconvert(), py::arg("indices").noconvert(), py::arg("n_cols"),
      py::arg("triangle"), py::arg("seed"), py::arg("stream"), py::arg("substream"));
}

}  // namespace

void register_shuffle(py::module_& m) {
  register_permute<float>(m);
  register_permute<double>(m);
  register_permute<std::uint16_t>(m);  // any 16-bit weights
  register_kde<float>(m);
  register_kde<double>(m);
  register_pattern<std::int32_t>(m);
  register_pattern<std::int64_t>(m);
}

}  // namespace ncut::bindings
