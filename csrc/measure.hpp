// One shuffled network, from its random numbers to the inputs of the statistics.
#pragma once

#include <cstdint>
#include <vector>

#include "lanczos.hpp"
#include "network.hpp"

namespace ncut {

struct MeasureOptions {
  std::int64_t k, n_init, max_iterations;
  double tolerance;         // of k-means, in units of the points' variance
  std::int64_t max_passes;  // of refinement
  std::uint64_t seed;
  std::vector<std::uint32_t> kmeans_streams;  // a partition for each
  bool refined_squares;                       // whether `squares` are of refined labels
  LanczosOptions lanczos;
  int n_threads;
};

// Labels with their clusters' volumes and cuts, each (k).
struct Partition {
  std::vector<std::int32_t> labels;
  std::vector<double> volume, cut;
};

struct Measured {
  Spectrum spectrum;
  std::vector<std::int64_t> sizes;           // of the layers without isolated vertices
  std::vector<double> degrees;               // of their vertices
  std::vector<Partition> spectral, refined;  // for each stream of k-means
  std::vector<double>
      squares;  // of each block: sums of squared weights inside clusters, and of all
};

// Shuffles, removes isolated vertices, embeds, partitions, refines and measures. `start` as in
// `embed`. Returns false if the Python path must take over.
bool measure_shuffle(const Network& network, Null null, std::uint32_t stream, const float* start,
                     std::int64_t n_start, const MeasureOptions& options, Measured& result);

// Embeds the network with the rows of each source layer's blocks permuted by the given order, if
// not empty: row i of a block becomes the former row order[i]. `start` and what it returns as in
// `measure_shuffle`; n is the number of vertices with edges.
bool embed_reordered(const Network& network, const std::vector<std::vector<std::int64_t>>& orders,
                     std::int64_t k, const float* start, std::int64_t n_start,
                     const LanczosOptions& options, int n_threads, std::int64_t& n,
                     Spectrum& spectrum);

// Points (n x d) in single precision, scaled to an average variance of 1 over their coordinates,
// unless all points are equal. Returns whether single precision can tell them apart.
bool unit_variance(const double* points, std::int64_t n, std::int64_t d, float* scaled);

}  // namespace ncut
