// k-means: Lloyd's algorithm from greedy k-means++ starts, many restarts, the best one kept.
#pragma once

#include <cstdint>

#include "poll.hpp"

namespace ncut {

struct KMeansOptions {
  std::int64_t n_clusters;
  std::int64_t n_init;          // restarts
  std::int64_t max_iterations;  // per restart
  double tolerance;             // stop when the centres moved by less, as a sum of squares
  std::uint64_t seed;
  std::uint32_t stream;  // with the seed, chooses the random numbers
  int n_threads;
  Poll poll = {};
};

// Partitions n points of d coordinates (row-major) and writes labels (n) in
// [0, n_clusters). Returns the inertia, the sum of squared distances to the nearest centre.
// Ties go to the lower cluster, equal restarts to the earlier one: the result does not depend on
// n_threads. A cluster that becomes empty takes the point farthest from its centre.
// Cost: O(n n_clusters d) an iteration, a restart; T = double, without vector kernels, takes
// several times as long as float. Sources: Lloyd (1982); Arthur and Vassilvitskii (2007),
// k-means++, with the greedy choice among 2 + log(n_clusters) candidates of their conclusion.
template <class T>
double kmeans(const T* points, std::int64_t n, std::int64_t d, const KMeansOptions& options,
              std::int32_t* labels);

}  // namespace ncut
