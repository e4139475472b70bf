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

// Registers of points compared together, at most a tile's, and centres beside each other. Narrow
// registers take the whole tile: spreading a centre's coordinate over a register costs as much as
// multiplying by it.
constexpr int kPoints = std::min(kParts<float>, kVectorBytes > 16 ? 2 : 4);
constexpr int kCentres = kSums == 8 ? 3 : std::min(kSums / kPoints, 12);

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
      // Compared once more below, so that this becomes a single instruction.
      const Floats least = scores[g][p] < best[p] ? scores[g][p] : best[p];
      const Ints closer = least < best[p];
      nearest[p] = closer ? Ints{} + (first + g) : nearest[p];
      best[p] = least;
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

// Squared distances of a tile's points to kCount candidates, or old ones that are smaller; adds
// them to the candidates' lanes of `totals`.
template <int kCount>
NCUT_INLINE void nearer_tile(const float* tile, std::int64_t d, const float* candidates,
                             const float* old, std::int64_t stride, float* nearest, float* totals) {
  for (int part = 0; part < kParts<float>; part += kPoints) {
    const std::int64_t at = part * kWidth<float>;
    Floats sums[kCount][kPoints] = {};
    for (std::int64_t c = 0; c < d; ++c) {
      for (int p = 0; p < kPoints; ++p) {
        const Floats x = load(tile + c * kLanes + at + p * kWidth<float>);
        for (int g = 0; g < kCount; ++g) {
          const Floats difference = x - candidates[g * d + c];
          sums[g][p] += difference * difference;
        }
      }
    }
    for (int p = 0; p < kPoints; ++p) {
      const std::int64_t own = at + p * kWidth<float>;
      const Floats before = load(old + own);
      for (int g = 0; g < kCount; ++g) {
        const Floats least = sums[g][p] < before ? sums[g][p] : before;
        store<float>(least, nearest + g * stride + own);
        float* total = totals + g * kLanes + own;
        store<float>(load(total) + least, total);
      }
    }
  }
}

// For each of at most kCandidates candidates (d coordinates each) and every point the squared
// distance, or old[i] if that is smaller, in rows of n_tiles * kLanes of `nearest`; and its sum
// over the points in `totals`. Equal points have distance exactly 0.
void nearer_distances(const float* tiles, std::int64_t n_tiles, std::int64_t d,
                      const float* candidates, int n_candidates, const float* old, float* nearest,
                      double* totals) {
  float lanes[kCandidates * kLanes] = {};
  const std::int64_t stride = n_tiles * kLanes;
  for (std::int64_t t = 0; t < n_tiles; ++t) {
    const float *tile = tiles + t * d * kLanes, *before = old + t * kLanes;
    float* to = nearest + t * kLanes;
    int g = 0;
    for (; g + 4 <= n_candidates; g += 4) {
      nearer_tile<4>(tile, d, candidates + g * d, before, stride, to + g * stride,
                     lanes + g * kLanes);
    }
    for (; g < n_candidates; ++g) {
      nearer_tile<1>(tile, d, candidates + g * d, before, stride, to + g * stride,
                     lanes + g * kLanes);
    }
  }
  for (int g = 0; g < n_candidates; ++g) {
    totals[g] = 0;
    for (std::int64_t l = 0; l < kLanes; ++l) {
      totals[g] += static_cast<double>(lanes[g * kLanes + l]);
    }
  }
}

}  // namespace
}  // namespace ncut::NCUT_ISA
