#include "kmeans.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "cut.hpp"
#include "kernels.hpp"
#include "lanes.hpp"
#include "parallel.hpp"
#include "rng.hpp"

namespace ncut {
namespace {

// Points in tiles of kLanes: coordinate c of the points in tile t starts at
// values[(t * d + c) * kLanes]. The last tile is filled up with copies of the last point.
template <class T>
struct Points {
  const T* rows;
  std::int64_t n, d, n_tiles;
  std::vector<T> tiles;

  Points(const T* values, std::int64_t count, std::int64_t dimension)
      : rows(values), n(count), d(dimension), n_tiles((count + kLanes - 1) / kLanes) {
    tiles.resize(static_cast<std::size_t>(n_tiles * d * kLanes));
    for (std::int64_t i = 0; i < n_tiles * kLanes; ++i) {
      const T* row = rows + std::min(i, n - 1) * d;
      T* tile = tiles.data() + (i / kLanes) * d * kLanes + i % kLanes;
      for (std::int64_t c = 0; c < d; ++c) tile[c * kLanes] = row[c];
    }
  }
};

// Tiles whose points are compared with all centres between two polls.
constexpr std::int64_t kTilesAtOnce = 1024;

// The comparisons of csrc/vector/nearest.hpp for other types than float.
template <class T>
void assign(const T* tiles, std::int64_t n_tiles, std::int64_t d, const T* centres,
            const T* half_squares, std::int64_t k, std::int32_t* labels) {
  for (std::int64_t t = 0; t < n_tiles; ++t) {
    const T* tile = tiles + t * d * kLanes;
    T best[kLanes];
    std::fill_n(best, kLanes, std::numeric_limits<T>::infinity());
    std::fill_n(labels + t * kLanes, kLanes, 0);
    for (std::int64_t c = 0; c < k; ++c) {
      T scores[kLanes];
      std::fill_n(scores, kLanes, half_squares[c]);
      for (std::int64_t j = 0; j < d; ++j) {
        for (std::int64_t l = 0; l < kLanes; ++l) {
          scores[l] -= centres[c * d + j] * tile[j * kLanes + l];
        }
      }
      for (std::int64_t l = 0; l < kLanes; ++l) {
        if (!(scores[l] < best[l])) continue;
        best[l] = scores[l];
        labels[t * kLanes + l] = static_cast<std::int32_t>(c);
      }
    }
  }
}

template <class T>
void nearer_distances(const T* tiles, std::int64_t n_tiles, std::int64_t d, const T* candidates,
                      int n_candidates, const T* old, T* nearest, double* totals) {
  for (int g = 0; g < n_candidates; ++g) {
    totals[g] = 0;
    for (std::int64_t t = 0; t < n_tiles; ++t) {
      T sums[kLanes] = {};
      for (std::int64_t j = 0; j < d; ++j) {
        for (std::int64_t l = 0; l < kLanes; ++l) {
          const T difference = tiles[(t * d + j) * kLanes + l] - candidates[g * d + j];
          sums[l] += difference * difference;
        }
      }
      for (std::int64_t l = 0; l < kLanes; ++l) {
        const T least = std::min(sums[l], old[t * kLanes + l]);
        nearest[(g * n_tiles + t) * kLanes + l] = least;
        totals[g] += static_cast<double>(least);
      }
    }
  }
}

template <class T>
class Restart {
 public:
  Restart(const Points<T>& points, const KMeansOptions& options, std::uint32_t number)
      : use_(kernels()),
        points_(points),
        options_(options),
        k_(options.n_clusters),
        random_(options.seed, options.stream, number),
        centres_(static_cast<std::size_t>(k_ * points.d)),
        half_squares_(static_cast<std::size_t>(k_)),
        labels_(static_cast<std::size_t>(points.n_tiles * kLanes), -1),
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
  void poll() const {
    if (options_.poll) options_.poll();
  }

  const T* row(std::int64_t i) const { return points_.rows + i * points_.d; }

  void set_centre(std::int64_t cluster, std::int64_t point) {
    std::copy_n(row(point), points_.d, centres_.begin() + cluster * points_.d);
  }

  // Greedy k-means++: of a few candidates drawn with probability proportional to the squared
  // distance to the nearest centre so far, the one that lowers the sum of distances most.
  void choose_centres() {
    const auto padded = static_cast<std::int64_t>(labels_.size());
    const int n_candidates =
        std::min(2 + static_cast<int>(std::log(static_cast<double>(k_))), kCandidates);
    std::vector<T> nearest(labels_.size(), T{0});  // the padding stays at distance 0
    std::fill_n(nearest.begin(), points_.n, std::numeric_limits<T>::infinity());
    std::vector<T> trials(labels_.size() * static_cast<std::size_t>(n_candidates));
    std::vector<T> candidates(static_cast<std::size_t>(n_candidates * points_.d));
    std::vector<double> cumulative(static_cast<std::size_t>(points_.n_tiles));
    double totals[kCandidates];
    const auto compare = [&](const T* from, int count) {
      poll();
      const T* tiles = points_.tiles.data();
      if constexpr (std::is_same_v<T, float>) {
        use_.nearer_distances(tiles, points_.n_tiles, points_.d, from, count, nearest.data(),
                              trials.data(), totals);
      } else {
        nearer_distances(tiles, points_.n_tiles, points_.d, from, count, nearest.data(),
                         trials.data(), totals);
      }
    };
    set_centre(0,
               static_cast<std::int64_t>(random_.below64(static_cast<std::uint64_t>(points_.n))));
    compare(centres_.data(), 1);
    std::copy_n(trials.begin(), padded, nearest.begin());
    for (std::int64_t cluster = 1; cluster < k_; ++cluster) {
      add_up(nearest, cumulative);
      for (int c = 0; c < n_candidates; ++c) {
        const T* chosen = row(draw(nearest, cumulative));
        std::copy_n(chosen, points_.d, candidates.begin() + c * points_.d);
      }
      compare(candidates.data(), n_candidates);
      const auto best = std::min_element(totals, totals + n_candidates) - totals;
      std::copy_n(candidates.begin() + best * points_.d, points_.d,
                  centres_.begin() + cluster * points_.d);
      std::copy_n(trials.begin() + best * padded, padded, nearest.begin());
    }
  }

  // Sums of the distances up to the end of each tile.
  void add_up(const std::vector<T>& distances, std::vector<double>& cumulative) const {
    double total = 0;
    for (std::size_t t = 0; t < cumulative.size(); ++t) {
      double own = 0;
      for (std::size_t l = 0; l < kLanes; ++l)
        own += static_cast<double>(distances[t * kLanes + l]);
      cumulative[t] = total += own;
    }
  }

  // A point with probability proportional to its distance.
  std::int64_t draw(const std::vector<T>& distances, const std::vector<double>& cumulative) {
    const double at = random_.uniform() * cumulative.back();
    const auto tile = std::upper_bound(cumulative.begin(), cumulative.end() - 1, at);
    double rest = at - (tile == cumulative.begin() ? 0.0 : *(tile - 1));
    std::int64_t point = (tile - cumulative.begin()) * kLanes;
    const std::int64_t last = std::min(point + kLanes, points_.n) - 1;
    for (; point < last && rest >= distances[static_cast<std::size_t>(point)]; ++point) {
      rest -= distances[static_cast<std::size_t>(point)];
    }
    return point;
  }

  // Assigns every point to its nearest centre; updates the sums and counts of the clusters for the
  // points that changed. Returns whether any did.
  bool reassign() {
    const std::int64_t d = points_.d;
    for (std::int64_t c = 0; c < k_; ++c) {
      T square = 0;
      for (std::int64_t j = 0; j < d; ++j) square += centres_[c * d + j] * centres_[c * d + j];
      half_squares_[c] = square / 2;
    }
    for (std::int64_t t = 0; t < points_.n_tiles; t += kTilesAtOnce) {
      poll();
      const std::int64_t count = std::min(kTilesAtOnce, points_.n_tiles - t);
      const T* tiles = points_.tiles.data() + t * d * kLanes;
      std::int32_t* labels = next_labels_.data() + t * kLanes;
      if constexpr (std::is_same_v<T, float>) {
        use_.assign(tiles, count, d, centres_.data(), half_squares_.data(), k_, labels);
      } else {
        assign(tiles, count, d, centres_.data(), half_squares_.data(), k_, labels);
      }
    }
    bool changed = false;
    for (std::int64_t t = 0; t < points_.n_tiles; ++t) {
      const std::int64_t start = t * kLanes, end = std::min(start + kLanes, points_.n);
      if (std::equal(&labels_[start], &labels_[start] + (end - start), &next_labels_[start])) {
        continue;
      }
      changed = true;
      for (std::int64_t i = start; i < end; ++i) {
        if (next_labels_[i] == labels_[i]) continue;
        if (labels_[i] >= 0) add(i, labels_[i], -1);
        add(i, next_labels_[i], 1);
        labels_[i] = next_labels_[i];
      }
    }
    return changed;
  }

  void add(std::int64_t point, std::int32_t cluster, int sign) {
    const T* x = row(point);
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
        centres_[c * d + j] = static_cast<T>(mean);
      }
    }
    return moved;
  }

  double squared_distance(std::int64_t point) const {
    const T* x = row(point);
    const T* centre = centres_.data() + labels_[point] * points_.d;
    double sums[4] = {};  // that do not wait for each other
    in_turns<4>(points_.d, [&](std::int64_t j, std::int64_t turn) {
      const double difference = static_cast<double>(x[j]) - centre[j];
      sums[turn] += difference * difference;
    });
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
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

  const Kernels& use_;
  const Points<T>& points_;
  const KMeansOptions& options_;
  std::int64_t k_;
  Philox random_;
  std::vector<T> centres_, half_squares_;
  std::vector<std::int32_t> labels_, next_labels_;
  std::vector<double> sums_;
  std::vector<std::int64_t> counts_;
};

}  // namespace

template <class T>
double kmeans(const T* points, std::int64_t n, std::int64_t d, const KMeansOptions& options,
              std::int32_t* labels) {
  const Points<T> tiled(points, n, d);
  const auto n_init = static_cast<std::size_t>(options.n_init);
  std::vector<double> inertia(n_init);
  std::vector<std::vector<std::int32_t>> results(n_init);
  parallel_for(options.n_init, options.n_threads, [&](std::int64_t number) {
    Restart<T> restart(tiled, options, static_cast<std::uint32_t>(number));
    inertia[static_cast<std::size_t>(number)] = restart.run();
    results[static_cast<std::size_t>(number)].assign(restart.labels(), restart.labels() + n);
  });
  const auto best = std::min_element(inertia.begin(), inertia.end()) - inertia.begin();
  std::copy_n(results[static_cast<std::size_t>(best)].begin(), n, labels);
  return inertia[static_cast<std::size_t>(best)];
}

template double kmeans(const float*, std::int64_t, std::int64_t, const KMeansOptions&,
                       std::int32_t*);
template double kmeans(const double*, std::int64_t, std::int64_t, const KMeansOptions&,
                       std::int32_t*);

}  // namespace ncut
