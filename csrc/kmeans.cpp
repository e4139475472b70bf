#include "kmeans.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "parallel.hpp"
#include "portable.hpp"
#include "rng.hpp"

namespace ncut {
namespace {

constexpr std::int64_t kTile = 16;  // points handled side by side in vector registers
constexpr int kGroup = 6;           // centres handled together, so that a load serves several

// Points as tiles: coordinate c of the points in tile t starts at tiles[(t * d + c) * kTile].
// The last tile is filled up with copies of the last point, which nobody reads.
struct Points {
  const float* rows;
  std::int64_t n, d, n_tiles;
  std::vector<float> tiles;

  Points(const float* values, std::int64_t count, std::int64_t dimension)
      : rows(values), n(count), d(dimension), n_tiles((count + kTile - 1) / kTile) {
    tiles.resize(static_cast<std::size_t>(n_tiles * d * kTile));
    for (std::int64_t i = 0; i < n_tiles * kTile; ++i) {
      const float* row = rows + std::min(i, n - 1) * d;
      float* tile = tiles.data() + (i / kTile) * d * kTile + i % kTile;
      for (std::int64_t c = 0; c < d; ++c) tile[c * kTile] = row[c];
    }
  }
};

// Half squared distances, less the point's own half square, of one tile to `kCount` centres.
template <int kCount>
NCUT_INLINE void tile_scores(const float* NCUT_RESTRICT tile, std::int64_t d,
                             const float* NCUT_RESTRICT centres,
                             const float* NCUT_RESTRICT half_squares,
                             float (*NCUT_RESTRICT scores)[kTile]) {
  float sums[kCount][kTile];
  for (int g = 0; g < kCount; ++g) {
    for (int lane = 0; lane < kTile; ++lane) sums[g][lane] = half_squares[g];
  }
  for (std::int64_t c = 0; c < d; ++c) {
    const float* x = tile + c * kTile;
    for (int g = 0; g < kCount; ++g) {
      const float centre = centres[g * d + c];
      for (int lane = 0; lane < kTile; ++lane) sums[g][lane] -= centre * x[lane];
    }
  }
  for (int g = 0; g < kCount; ++g) {
    for (int lane = 0; lane < kTile; ++lane) scores[g][lane] = sums[g][lane];
  }
}

NCUT_INLINE void keep_nearest(const float (*scores)[kTile], int count, std::int32_t first,
                              float* best, std::int32_t* nearest) {
  for (int g = 0; g < count; ++g) {
    for (int lane = 0; lane < kTile; ++lane) {
      const bool closer = scores[g][lane] < best[lane];
      best[lane] = closer ? scores[g][lane] : best[lane];
      nearest[lane] = closer ? first + g : nearest[lane];
    }
  }
}

// The nearest of k centres for every point (padding included), the lower one in a tie.
NCUT_CLONES
void assign(const float* tiles, std::int64_t n_tiles, std::int64_t d, const float* centres,
            const float* half_squares, std::int64_t k, std::int32_t* labels) {
  float scores[kGroup][kTile];
  for (std::int64_t t = 0; t < n_tiles; ++t) {
    const float* tile = tiles + t * d * kTile;
    float best[kTile];
    std::int32_t nearest[kTile];
    for (int lane = 0; lane < kTile; ++lane) {
      best[lane] = std::numeric_limits<float>::infinity();
      nearest[lane] = 0;
    }
    std::int64_t first = 0;
    for (; first + kGroup <= k; first += kGroup) {
      tile_scores<kGroup>(tile, d, centres + first * d, half_squares + first, scores);
      keep_nearest(scores, kGroup, static_cast<std::int32_t>(first), best, nearest);
    }
    for (; first < k; ++first) {
      tile_scores<1>(tile, d, centres + first * d, half_squares + first, scores);
      keep_nearest(scores, 1, static_cast<std::int32_t>(first), best, nearest);
    }
    for (int lane = 0; lane < kTile; ++lane) labels[t * kTile + lane] = nearest[lane];
  }
}

// distances[i] = squared distance of point i to `centre` (d coordinates), or the old value if
// that is smaller. Exact zeros for equal points.
NCUT_CLONES
void squared_distances(const float* tiles, std::int64_t n_tiles, std::int64_t d,
                       const float* centre, const float* old, float* distances) {
  for (std::int64_t t = 0; t < n_tiles; ++t) {
    const float* tile = tiles + t * d * kTile;
    float sums[kTile] = {};
    for (std::int64_t c = 0; c < d; ++c) {
      for (int lane = 0; lane < kTile; ++lane) {
        const float difference = tile[c * kTile + lane] - centre[c];
        sums[lane] += difference * difference;
      }
    }
    for (int lane = 0; lane < kTile; ++lane) {
      const std::int64_t i = t * kTile + lane;
      distances[i] = std::min(sums[lane], old[i]);
    }
  }
}

class Restart {
 public:
  Restart(const Points& points, const KMeansOptions& options, std::uint32_t number)
      : points_(points),
        options_(options),
        k_(options.n_clusters),
        random_(options.seed, options.stream, number),
        centres_(static_cast<std::size_t>(k_ * points.d)),
        half_squares_(static_cast<std::size_t>(k_)),
        labels_(static_cast<std::size_t>(points.n_tiles * kTile), -1),
        next_labels_(labels_.size()),
        sums_(centres_.size()),
        counts_(static_cast<std::size_t>(k_)) {}

  double run() {
    choose_centres();
    for (std::int64_t iteration = 0; iteration < options_.max_iterations; ++iteration) {
      if (!reassign()) break;
      if (move_centres() <= options_.tolerance) {
        reassign();
        break;
      }
    }
    return inertia();
  }

  const std::int32_t* labels() const { return labels_.data(); }

 private:
  const float* row(std::int64_t i) const { return points_.rows + i * points_.d; }

  void set_centre(std::int64_t cluster, std::int64_t point) {
    std::copy_n(row(point), points_.d, centres_.begin() + cluster * points_.d);
  }

  // Greedy k-means++: of a few candidates drawn with probability proportional to the squared
  // distance to the nearest centre so far, the one that lowers the sum of distances most.
  void choose_centres() {
    const auto n = static_cast<std::size_t>(points_.n);
    const std::size_t padded = labels_.size();
    const int n_candidates = 2 + static_cast<int>(std::log(static_cast<double>(k_)));
    std::vector<float> nearest(padded, std::numeric_limits<float>::infinity());
    std::vector<float> trial(padded), best_trial(padded);
    std::vector<double> cumulative(n);
    set_centre(0, static_cast<std::int64_t>(random_.below64(n)));
    squared_distances(points_.tiles.data(), points_.n_tiles, points_.d, centres_.data(),
                      nearest.data(), nearest.data());
    for (std::int64_t cluster = 1; cluster < k_; ++cluster) {
      double total = 0;
      for (std::size_t i = 0; i < n; ++i) cumulative[i] = total += nearest[i];
      double best_sum = std::numeric_limits<double>::infinity();
      std::int64_t best_point = 0;
      for (int candidate = 0; candidate < n_candidates; ++candidate) {
        const double draw = random_.uniform() * total;
        const auto at = std::upper_bound(cumulative.begin(), cumulative.end(), draw);
        const std::int64_t point = std::min<std::int64_t>(at - cumulative.begin(), points_.n - 1);
        squared_distances(points_.tiles.data(), points_.n_tiles, points_.d, row(point),
                          nearest.data(), trial.data());
        const double sum = std::accumulate(trial.begin(), trial.begin() + points_.n, 0.0);
        if (sum < best_sum) {
          best_sum = sum;
          best_point = point;
          best_trial.swap(trial);
        }
      }
      set_centre(cluster, best_point);
      nearest.swap(best_trial);
    }
  }

  // Gives every point to its nearest centre; keeps the sums and counts of the clusters up to
  // date with the points that changed. Returns whether any did.
  bool reassign() {
    const std::int64_t d = points_.d;
    for (std::int64_t c = 0; c < k_; ++c) {
      float square = 0;
      for (std::int64_t j = 0; j < d; ++j) square += centres_[c * d + j] * centres_[c * d + j];
      half_squares_[c] = square / 2;
    }
    assign(points_.tiles.data(), points_.n_tiles, d, centres_.data(), half_squares_.data(), k_,
           next_labels_.data());
    bool changed = false;
    for (std::int64_t i = 0; i < points_.n; ++i) {
      if (next_labels_[i] == labels_[i]) continue;
      changed = true;
      if (labels_[i] >= 0) add(i, labels_[i], -1);
      add(i, next_labels_[i], 1);
      labels_[i] = next_labels_[i];
    }
    return changed;
  }

  void add(std::int64_t point, std::int32_t cluster, int sign) {
    const float* x = row(point);
    double* sum = sums_.data() + cluster * points_.d;
    for (std::int64_t j = 0; j < points_.d; ++j) sum[j] += sign * static_cast<double>(x[j]);
    counts_[cluster] += sign;
  }

  // Returns the sum of the squared distances by which the centres moved.
  double move_centres() {
    const std::int64_t d = points_.d;
    for (std::int64_t c = 0; c < k_; ++c) {
      if (counts_[c] == 0) refill(static_cast<std::int32_t>(c));
    }
    double moved = 0;
    for (std::int64_t c = 0; c < k_; ++c) {
      if (counts_[c] == 0) continue;
      for (std::int64_t j = 0; j < d; ++j) {
        const double mean = sums_[c * d + j] / static_cast<double>(counts_[c]);
        const double step = mean - centres_[c * d + j];
        moved += step * step;
        centres_[c * d + j] = static_cast<float>(mean);
      }
    }
    return moved;
  }

  double squared_distance(std::int64_t point) const {
    const float* x = row(point);
    const float* centre = centres_.data() + labels_[point] * points_.d;
    double sum = 0;
    for (std::int64_t j = 0; j < points_.d; ++j) {
      const double difference = static_cast<double>(x[j]) - centre[j];
      sum += difference * difference;
    }
    return sum;
  }

  // Moves the point that lies farthest from its centre into an empty cluster.
  void refill(std::int32_t empty) {
    std::int64_t farthest = -1;
    double distance = 0;
    for (std::int64_t i = 0; i < points_.n; ++i) {
      if (counts_[labels_[i]] < 2) continue;
      const double candidate = squared_distance(i);
      if (candidate > distance) {
        distance = candidate;
        farthest = i;
      }
    }
    if (farthest < 0) return;  // fewer distinct points than clusters
    add(farthest, labels_[farthest], -1);
    add(farthest, empty, 1);
    labels_[farthest] = empty;
  }

  double inertia() const {
    double sum = 0;
    for (std::int64_t i = 0; i < points_.n; ++i) sum += squared_distance(i);
    return sum;
  }

  const Points& points_;
  const KMeansOptions& options_;
  std::int64_t k_;
  Philox random_;
  std::vector<float> centres_, half_squares_;
  std::vector<std::int32_t> labels_, next_labels_;
  std::vector<double> sums_;
  std::vector<std::int64_t> counts_;
};

}  // namespace

double kmeans(const float* points, std::int64_t n, std::int64_t d, const KMeansOptions& options,
              std::int32_t* labels) {
  const Points tiled(points, n, d);
  const auto n_init = static_cast<std::size_t>(options.n_init);
  std::vector<double> inertia(n_init);
  std::vector<std::vector<std::int32_t>> results(n_init);
  parallel_for(options.n_init, options.n_threads, [&](std::int64_t number) {
    Restart restart(tiled, options, static_cast<std::uint32_t>(number));
    inertia[static_cast<std::size_t>(number)] = restart.run();
    results[static_cast<std::size_t>(number)].assign(restart.labels(), restart.labels() + n);
  });
  const auto best = std::min_element(inertia.begin(), inertia.end()) - inertia.begin();
  std::copy_n(results[static_cast<std::size_t>(best)].begin(), n, labels);
  return inertia[static_cast<std::size_t>(best)];
}

}  // namespace ncut
