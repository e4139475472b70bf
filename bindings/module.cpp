// The compiled core's table of contents; one file per subject.
#include "module.hpp"

#include <pybind11/stl.h>

#include <string>
#include <utility>

#include "kernels.hpp"

namespace {

#if defined(__clang__)
constexpr const char* compiler = "Clang " __clang_version__;
#else
constexpr const char* compiler = "GCC " __VERSION__;
#endif

}  // namespace

PYBIND11_MODULE(_core, m, pybind11::mod_gil_not_used()) {
  m.doc() = "Compiled kernels of ncut; call them through ncut.kernels.";
  m.def(
      "build",
      [] { return std::pair<std::string, std::string>(compiler, ncut::instruction_set()); },
      "Compiler, and the instruction set of the kernels that run here.");
  m.def("instruction_sets", &ncut::instruction_sets,
        "Instruction sets that kernels were built for and this machine has, the best first.");
  m.def("use_instruction_set", &ncut::use_instruction_set, pybind11::arg("name"),
        "Run the kernels of another instruction set from now on.");
  ncut::bindings::register_assemble(m);
  ncut::bindings::register_cut(m);
  ncut::bindings::register_product(m);
  ncut::bindings::register_shuffle(m);
  ncut::bindings::register_kmeans(m);
  ncut::bindings::register_measure(m);
  ncut::bindings::register_subspace(m);
}
