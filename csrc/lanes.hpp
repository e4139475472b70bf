// The layout that vectors and points have in memory, whatever the registers are.
#pragma once

#include <cstdint>

namespace ncut {

// Blocks of vectors are a multiple of this wide; points come in tiles of as many.
constexpr std::int64_t kLanes = 16;

// The most starting points that k-means compares at a time.
constexpr int kCandidates = 16;

}  // namespace ncut
