// The comparisons of k-means: points in tiles of kLanes against centres. Coordinate c of the points
// in tile t starts at tiles[(t * d + c) * kLanes].
#pragma once

#include <algorithm>
#include <limits>

#include "simd.hpp"

namespace ncut::NCUT_ISA {
namespace {

using Floats = Vector<float>;
typedef std::int32_t Ints __attribute__((vector_size(NCUT_VECTOR_BYTES)));

// Registers of points compared together, at most a tile's, and centres beside each other.
constexpr int kPoints = std::min(kParts<float>, 2);
constexpr int kCentres = std::min(kSums / kPoints, 12);

// Compares kPoints registers of a tile with `kCount` centres, numbered from `first`. The score is
// half the squared distance, less half the point's own square, which the comparison does not need.
template <int kCount>
NCUT_INLINE void compare(const float* tile, std::int64_t d, const float* centres,
                         const float* half_squares, std::int32_t first, Floats* best,
                         Ints* nearest) {
  Floats scores[kCount][kPoints];
  for (int g = 0; g < kCount; ++g) {
    for (int p = 0; p < kPoints; ++p) scores[g][p] = all_lanes(half_squares[g]);
  }
  for (std::int64_t c = 0; c < d; ++c) {
    Floats x[kPoints];
    for (int p = 0; p < kPoints; ++p) x[p] = load(tile + c * kLanes + p * kWidth<float>);
    for (int g = 0; g < kCount; ++g) {
      for (int p = 0; p < kPoints; ++p) scores[g][p] -= centres[g * d + c] * x[p];
    }
  }
  for (int g = 0; g < kCount; ++g) {
    for (int p = 0; p < kPoints; ++p) {
      const Ints closer = scores[g][p] < best[p];
      best[p] = closer ? scores[g][p] : best[p];
      nearest[p] = closer ? Ints{} + (first + g) : nearest[p];
    }
  }
}

template <int kCount>
NCUT_INLINE void compare_all(const float* tile, std::int64_t d, const float* centres,
                             const float* half_squares, std::int64_t first, std::int64_t k,
                             Floats* best, Ints* nearest) {
  for (; first + kCount <= k; first += kCount) {
    compare<kCount>(tile, d, centres + first * d, half_squares + first,
                    static_cast<std::int32_t>(first), best, nearest);
  }
  if constexpr (kCount > 1) {
    compare_all<kCount / 2>(tile, d, centres, half_squares, first, k, best, nearest);
  }
}

// The nearest of k centres for every point (padding included), the lower one in a tie.
void assign(const float* tiles, std::int64_t n_tiles, std::int64_t d, const float* centres,
            const float* half_squares, std::int64_t k, std::int32_t* labels) {
  for (std::int64_t t = 0; t < n_tiles; ++t) {
    for (int part = 0; part < kParts<float>; part += kPoints) {
      Floats best[kPoints];
      Ints nearest[kPoints] = {};
      for (Floats& b : best) b = all_lanes(std::numeric_limits<float>::infinity());
      compare_all<kCentres>(tiles + t * d * kLanes + part * kWidth<float>, d, centres, half_squares,
                            0, k, best, nearest);
      std::memcpy(labels + t * kLanes + part * kWidth<float>, nearest, sizeof(nearest));
    }
  }
}

// nearest[i] = squared distance of point i to `centre` (d coordinates), or old[i] if that is
// smaller; returns the sum. Equal points have distance exactly 0.
double nearer_distances(const float* tiles, std::int64_t n_tiles, std::int64_t d,
                        const float* centre, const float* old, float* nearest) {
  float total[kLanes] = {};
  for (std::int64_t t = 0; t < n_tiles; ++t) {
    Floats sums[kParts<float>] = {};
    for (std::int64_t c = 0; c < d; ++c) {
      for (int p = 0; p < kParts<float>; ++p) {
        const Floats difference =
            load(tiles + (t * d + c) * kLanes + p * kWidth<float>) - centre[c];
        sums[p] += difference * difference;
      }
    }
    for (int p = 0; p < kParts<float>; ++p) {
      const std::int64_t at = t * kLanes + p * kWidth<float>;
      const Floats before = load(old + at);
      const Floats least = sums[p] < before ? sums[p] : before;
      store<float>(least, nearest + at);
      store<float>(load(total + p * kWidth<float>) + least, total + p * kWidth<float>);
    }
  }
  double result = 0;
  for (const float lane : total) result += static_cast<double>(lane);
  return result;
}

}  // namespace
}  // namespace ncut::NCUT_ISA
