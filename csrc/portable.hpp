// What differs between compilers.
//
// NCUT_CLONES compiles a function for several instruction sets and picks one when the module is
// loaded, so that a wheel built for any x86-64 runs at the speed of the machine it is on. It takes
// a GCC that knows these names and a C library that can choose at loading time (glibc, not musl).
// Elsewhere, or with NCUT_BASELINE, there is one version, for the instruction set of the build.
#pragma once

#include <cstdlib>  // says whether this is glibc

#if defined(__GNUC__) && __GNUC__ >= 12 && !defined(__clang__) && defined(__x86_64__) && \
    defined(__GLIBC__) && !defined(NCUT_SANITIZE) && !defined(NCUT_BASELINE)
#define NCUT_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#define NCUT_HAS_CLONES
#else
#define NCUT_CLONES
#endif

#define NCUT_INLINE inline __attribute__((always_inline))

namespace ncut {

// The instruction set of the version of the kernels that this machine runs.
inline const char* instruction_set() {
#if defined(NCUT_HAS_CLONES)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("x86-64-v4")) return "x86-64-v4";
  if (__builtin_cpu_supports("x86-64-v3")) return "x86-64-v3";
  return "x86-64";
#elif defined(NCUT_NATIVE)
  return "of the machine of the build";
#else
  return "the platform's oldest";
#endif
}

}  // namespace ncut
