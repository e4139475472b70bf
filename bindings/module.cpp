// The compiled core's table of contents; one file per subject.
#include "module.hpp"

PYBIND11_MODULE(_core, m, pybind11::mod_gil_not_used()) {
  m.doc() = "Compiled kernels of ncut; call them through ncut.kernels.";
  ncut::bindings::register_assemble(m);
  ncut::bindings::register_cut(m);
  ncut::bindings::register_product(m);
  ncut::bindings::register_shuffle(m);
  ncut::bindings::register_kmeans(m);
  ncut::bindings::register_subspace(m);
}
