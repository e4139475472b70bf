// The memory layout of vectors and points, independent of the registers.
#pragma once

#include <cstdint>

namespace ncut {

// Blocks of vectors have a multiple of this width; points come in tiles of this size.
constexpr std::int64_t kLanes = 16;

// The largest number of starting points that k-means compares at a time.
constexpr int kCandidates = 16;

}  // namespace ncut
