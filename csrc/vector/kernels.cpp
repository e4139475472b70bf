// The kernels for one instruction set: compiled once for each, with its flags.
#include "kernels.hpp"

#include "basis.hpp"
#include "ceiling.hpp"
#include "nearest.hpp"
#include "panel.hpp"
#include "philox.hpp"
#include "weights.hpp"

namespace ncut::NCUT_ISA {
namespace {

template <class T>
constexpr VectorKernels<T> vector_table() {
  return {inner_products<T>,   subtract<T>,       gram<T>,       rotate<T>,     mix<T>,
          residual_squares<T>, recur<T>,          deflate<T>,    scale_rows<T>, add_magnitudes<T>,
          gradient_row<T>,     sum_of_squares<T>, multiply_by<T>};
}

// A panel for each of the types that are in the table.
template <class... W, class... I, class... T>
constexpr std::tuple<Panel<W, I, T>...> panels_of(const std::tuple<Panel<W, I, T>...>*) {
  return {panel<W, I, T>...};
}

}  // namespace

// Constant, so that nothing of this file runs before the instruction set is known to be there.
extern const Kernels table;
constexpr Kernels table{assign,
                        nearer_distances,
                        philox,
                        multiply_adds,
                        read_all,
                        {vector_table<float>(), vector_table<double>()},
                        panels_of(static_cast<const Panels*>(nullptr))};

}  // namespace ncut::NCUT_ISA
