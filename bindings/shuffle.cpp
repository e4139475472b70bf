#include "shuffle.hpp"

#include <functional>

#include "arrays.hpp"
#include "module.hpp"
#include "signals.hpp"
#include "sinkhorn.hpp"
#include "trade.hpp"

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
          throw std::invalid_argument("indptr, n_cols: must be those of a matrix with all values");
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

// Bins for the sums of lines: rows (2, n) of lower and upper limits.
void set_bins(Lines& lines, const Array<double>& bins, const char* name) {
  check_ndim(bins, 2, name);
  if (bins.shape(0) != 2 || bins.shape(1) != lines.count()) {
    throw std::invalid_argument(std::string(name) + ": must have a lower and an upper limit each");
  }
  lines.low.assign(bins.data(), bins.data() + lines.count());
  lines.high.assign(bins.data() + lines.count(), bins.data() + 2 * lines.count());
}

void register_trade(py::module_& m) {
  m.def(
      "trade",
      [](const Array<std::int64_t>& indptr, const Array<std::int64_t>& indices, std::int64_t n_cols,
         Array<double> values, const Array<double>& row_bins, const Array<double>& col_bins,
         bool triangle, std::int64_t halves, std::uint64_t seed, std::uint32_t stream,
         std::uint32_t substream) {
        check_ndim(indptr, 1, "indptr");
        check_ndim(indices, 1, "indices");
        const std::int64_t n = indices.shape(0), n_rows = indptr.shape(0) - 1;
        check_length(values, n, "values");
        if (halves < 0 || halves > 100000) {
          throw std::invalid_argument("halves: must be between 0 and 100,000");
        }
        if (!triangle && (col_bins.ndim() != 2 || col_bins.shape(1) != n_cols)) {
          throw std::invalid_argument("col_bins: must have limits for n_cols columns");
        }
        if (n_rows < 0 || n_cols < 0 || (triangle && n_cols != n_rows) || indptr.data()[0] != 0 ||
            indptr.data()[n_rows] != n) {
          throw std::invalid_argument("indptr, n_cols: must be those of a matrix with all values");
        }
        for (std::int64_t row = 0; row < n_rows; ++row) {
          const std::int64_t first = indptr.data()[row], end = indptr.data()[row + 1];
          if (end < first || end > n) throw std::invalid_argument("indptr: must rise from zero");
          for (std::int64_t at = first; at < end; ++at) {
            const std::int64_t column = indices.data()[at];
            const std::int64_t least =
                at > first ? indices.data()[at - 1] + 1 : (triangle ? row + 1 : 0);
            if (column < least || column >= n_cols) {
              throw std::invalid_argument("indices: must ascend in each row, below n_cols");
            }
          }
        }
        Lines rows = triangle ? vertices_of(indptr.data(), indices.data(), n_rows)
                              : rows_of(indptr.data(), indices.data(), n_rows);
        set_bins(rows, row_bins, "row_bins");
        Lines columns;
        if (!triangle) {
          columns = columns_of(indptr.data(), indices.data(), n_rows, n_cols);
          set_bins(columns, col_bins, "col_bins");
        }
        double* all = values.mutable_data();
        Signals signals;
        const py::gil_scoped_release release;
        Philox random(seed, stream, substream);
        trade(rows, triangle ? nullptr : &columns, all, halves, random, std::ref(signals));
      },
      py::arg("indptr").noconvert(), py::arg("indices").noconvert(), py::arg("n_cols"),
      py::arg("values").noconvert(), py::arg("row_bins").noconvert(),
      py::arg("col_bins").noconvert(), py::arg("triangle"), py::arg("halves"), py::arg("seed"),
      py::arg("stream"), py::arg("substream"));
}

template <class Block>
double sinkhorn_block(const Block& block, bool triangle, double tolerance, std::int64_t max_sweeps,
                      Array<double>& factors) {
  if (triangle && block.n_rows != block.n_cols) {
    throw std::invalid_argument("triangle: the matrix is not square");
  }
  check_length(factors, block.n_rows + (triangle ? 0 : block.n_cols), "factors");
  if (max_sweeps < 0 || max_sweeps > 10000) {
    throw std::invalid_argument("max_sweeps: must be from 0 to 10000");
  }
  double* found = factors.mutable_data();
  Signals signals;
  const SinkhornLimits limits{tolerance, max_sweeps, 100, 500, std::ref(signals)};
  const py::gil_scoped_release release;
  return sinkhorn(block, triangle, limits, found);
}

template <class I>
void register_sinkhorn_sparse(py::module_& m) {
  m.def(
      "sinkhorn_sparse",
      [](const Array<I>& indptr, const Array<I>& indices, const Array<double>& values,
         std::int64_t n_cols, bool triangle, double tolerance, std::int64_t max_sweeps,
         Array<double> factors) {
        return sinkhorn_block(sparse_block(indptr, indices, values, n_cols), triangle, tolerance,
                              max_sweeps, factors);
      },
      py::arg("indptr").noconvert(), py::arg("indices").noconvert(), py::arg("values").noconvert(),
      py::arg("n_cols"), py::arg("triangle"), py::arg("tolerance"), py::arg("max_sweeps"),
      py::arg("factors").noconvert());
}

void register_sinkhorn_dense(py::module_& m) {
  m.def(
      "sinkhorn_dense",
      [](const Array<double>& weights, bool triangle, double tolerance, std::int64_t max_sweeps,
         Array<double> factors) {
        return sinkhorn_block(dense_block(weights), triangle, tolerance, max_sweeps, factors);
      },
      py::arg("weights").noconvert(), py::arg("triangle"), py::arg("tolerance"),
      py::arg("max_sweeps"), py::arg("factors").noconvert());
}

}  // namespace

void register_shuffle(py::module_& m) {
  register_sinkhorn_dense(m);
  register_sinkhorn_sparse<std::int32_t>(m);
  register_sinkhorn_sparse<std::int64_t>(m);
  register_trade(m);
  register_permute<float>(m);
  register_permute<double>(m);
  register_permute<std::uint16_t>(m);  // any 16-bit weights
  register_kde<float>(m);
  register_kde<double>(m);
  register_pattern<std::int32_t>(m);
  register_pattern<std::int64_t>(m);
}

}  // namespace ncut::bindings
