#pragma once

#include <pybind11/pybind11.h>

namespace ncut::bindings {

void register_assemble(pybind11::module_& m);
void register_cut(pybind11::module_& m);
void register_product(pybind11::module_& m);
void register_shuffle(pybind11::module_& m);
void register_kmeans(pybind11::module_& m);
void register_measure(pybind11::module_& m);
void register_subspace(pybind11::module_& m);

}  // namespace ncut::bindings
