// What differs between compilers.
//
// NCUT_CLONES compiles a function for several instruction sets and picks one when the module is
// loaded, so that a wheel built for any x86-64 runs at the speed of the machine it is on.
#pragma once

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__linux__) && \
    !defined(NCUT_SANITIZE)
#define NCUT_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define NCUT_CLONES
#endif

#define NCUT_INLINE inline __attribute__((always_inline))
