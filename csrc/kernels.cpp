#include "kernels.hpp"

#include <atomic>
#include <stdexcept>

namespace ncut {

// NCUT_ISAS lists the instruction sets of this build, the best first: X(name of the namespace).
#define X(isa)                \
  namespace isa {             \
  extern const Kernels table; \
  }
NCUT_ISAS
#undef X

namespace {

#if defined(__x86_64__)
bool runs_x86_64() { return true; }

// The targets of the files of these sets, as in CMakeLists.txt.
bool runs_x86_64_v3() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
}

bool runs_x86_64_v4() {
  return runs_x86_64_v3() && __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

[[maybe_unused]] bool runs_baseline() { return true; }

struct InstructionSet {
  std::string name;
  const Kernels* kernels;
};

std::vector<InstructionSet> available() {
  std::vector<InstructionSet> found;
#define X(isa) \
  if (runs_##isa()) found.push_back({#isa, &isa::table});
  NCUT_ISAS
#undef X
  for (InstructionSet& set : found) {
    for (char& letter : set.name) letter = letter == '_' ? '-' : letter;
    if (set.name.rfind("x86-64", 0) != 0) set.name = NCUT_BASELINE_NAME;
  }
  return found;
}

const std::vector<InstructionSet>& sets() {
  static const std::vector<InstructionSet> all = available();
  return all;
}

std::atomic<const Kernels*>& current() {
  static std::atomic<const Kernels*> chosen{sets().front().kernels};
  return chosen;
}

}  // namespace

const Kernels& kernels() { return *current().load(std::memory_order_acquire); }

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const InstructionSet& set : sets()) names.push_back(set.name);
  return names;
}

std::string instruction_set() {
  for (const InstructionSet& set : sets()) {
    if (set.kernels == &kernels()) return set.name;
  }
  return "";
}

void use_instruction_set(const std::string& name) {
  std::string names;
  for (const InstructionSet& set : sets()) {
    if (set.name == name) {
      current().store(set.kernels, std::memory_order_release);
      return;
    }
    names += (names.empty() ? "" : ", ") + set.name;
  }
  throw std::invalid_argument("instruction set '" + name + "': this machine and this build have " +
                              names);
}

}  // namespace ncut
