// The gate for every array that crosses from Python: exact dtype, C-contiguous, right number of
// dimensions and lengths, writable where it is written. `noconvert` on each argument makes pybind
// raise TypeError instead of copying; the helpers here check the rest.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <exception>
#include <stdexcept>
#include <string>

#include "block.hpp"
#include "half.hpp"

namespace pybind11::detail {

// NumPy's numbers for its types float16 and uint16; bfloat16, which NumPy itself does not have,
// comes as its bits.
template <int kNumber>
struct numbered_descriptor {
  static pybind11::dtype dtype() {
    return reinterpret_steal<pybind11::dtype>(npy_api::get().PyArray_DescrFromType_(kNumber));
  }
};

template <>
struct npy_format_descriptor<ncut::Half> : numbered_descriptor<23> {
  static constexpr auto name = const_name("numpy.float16");
};

template <>
struct npy_format_descriptor<ncut::BFloat16> : numbered_descriptor<4> {
  static constexpr auto name = const_name("numpy.uint16");
};

}  // namespace pybind11::detail

namespace ncut::bindings {

namespace py = pybind11;

// An array that is accepted without conversion: exact type, C-contiguous, aligned.
template <class T>
class Array : public py::array_t<T, py::array::c_style> {
 public:
  using Base = py::array_t<T, py::array::c_style>;
  using Base::Base;

  static bool check_(py::handle object) {
    return Base::check_(object) && (py::detail::array_proxy(object.ptr())->flags &
                                    py::detail::npy_api::NPY_ARRAY_ALIGNED_) != 0;
  }
};

// List elements that cannot be cast, such as positions of blocks, have the wrong type too.
inline const bool kCastErrorsAreTypeErrors = [] {
  py::register_local_exception_translator([](std::exception_ptr thrown) {
    try {
      if (thrown) std::rethrow_exception(thrown);
    } catch (const py::cast_error& error) {
      PyErr_SetString(PyExc_TypeError, error.what());
    }
  });
  return true;
}();

template <class T>
void check_ndim(const Array<T>& array, py::ssize_t ndim, const char* name) {
  if (array.ndim() != ndim) {
    throw std::invalid_argument(std::string(name) + ": must have " + std::to_string(ndim) +
                                " dimensions");
  }
}

template <class T>
void check_length(const Array<T>& array, std::int64_t length, const char* name) {
  check_ndim(array, 1, name);
  if (array.shape(0) != length) {
    throw std::invalid_argument(std::string(name) + ": must have length " + std::to_string(length));
  }
}

template <class W>
DenseBlock<W> dense_block(const Array<W>& weights) {
  check_ndim(weights, 2, "weights");
  return {weights.data(), weights.shape(0), weights.shape(1)};
}

// Index values are trusted: ncut.graphs checks external matrices once.
template <class W, class I>
SparseBlock<W, I> sparse_block(const Array<I>& indptr, const Array<I>& indices,
                               const Array<W>& values, std::int64_t n_cols) {
  check_ndim(indptr, 1, "indptr");
  if (indptr.shape(0) < 1) throw std::invalid_argument("indptr: must not be empty");
  const std::int64_t n_rows = indptr.shape(0) - 1;
  const auto entries = static_cast<std::int64_t>(indptr.data()[n_rows]);
  check_length(indices, entries, "indices");
  check_length(values, entries, "values");
  return {indptr.data(), indices.data(), values.data(), n_rows, n_cols};
}

}  // namespace ncut::bindings

namespace pybind11::detail {

template <class T>
struct handle_type_name<ncut::bindings::Array<T>> : handle_type_name<array_t<T, array::c_style>> {};

}  // namespace pybind11::detail
