// An instruction set's parameters for kernels: the width of a vector register, and the number of
// registers that an inner loop uses for sums, which leaves room for the operands (and, without
// fused multiply-adds, for the products).
//
// Only the files of csrc/vector/ include this. CMakeLists.txt compiles csrc/vector/kernels.cpp
// once for each instruction set, with the set's flags and NCUT_ISA naming its namespace.
#pragma once

#include <cstdint>

#if defined(__AVX512F__)
#define NCUT_VECTOR_BYTES 64
#define NCUT_SUMS 28
#elif defined(__AVX2__)
#define NCUT_VECTOR_BYTES 32
#define NCUT_SUMS 12
#elif defined(__aarch64__)
#define NCUT_VECTOR_BYTES 16
#define NCUT_SUMS 24
#else  // SSE2, and the 128 bits that most others have
#define NCUT_VECTOR_BYTES 16
#define NCUT_SUMS 8
#endif

#ifndef NCUT_ISA
#define NCUT_ISA baseline
#endif

namespace ncut::NCUT_ISA {

constexpr int kVectorBytes = NCUT_VECTOR_BYTES;
constexpr int kSums = NCUT_SUMS;

}  // namespace ncut::NCUT_ISA
