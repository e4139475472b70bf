// What an instruction set is to a kernel: how wide a vector register is, and how many of them an
// inner loop fills with sums: as many as leave room for what is multiplied (without fused
// multiply-adds for the products, too).
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
