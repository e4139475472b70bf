// The compiled core's table of contents; one file per subject.
#include "module.hpp"

#include <string>
#include <utility>

#include "portable.hpp"

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
  ncut::bindings::register_assemble(m);
  ncut::bindings::register_cut(m);
  ncut::bindings::register_product(m);
  ncut::bindings::register_shuffle(m);
  ncut::bindings::register_kmeans(m);
  ncut::bindings::register_subspace(m);
}
