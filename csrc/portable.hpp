// Differences between compilers.
#pragma once

#define NCUT_INLINE inline __attribute__((always_inline))
