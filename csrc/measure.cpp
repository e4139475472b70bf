#include "measure.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "components.hpp"
#include "cut.hpp"
#include "kmeans.hpp"
#include "lanes.hpp"
#include "refine.hpp"

namespace ncut {
namespace {

// Beyond these single precision confuses distances between points with its rounding: the ratio of
// the longest point to the shortest, and of the points' mean to their standard deviation.
constexpr double kMaxRange = 1e6, kMaxOffset = 32;

// Number of the connected component of each vertex in the operator's numbering, in the order of
// their first vertices.
std::vector<std::int64_t> components(const Network& network, const PlacedNetwork& placed) {
  std::vector<std::int64_t> parent(static_cast<std::size_t>(placed.n));
  std::iota(parent.begin(), parent.end(), std::int64_t{0});
  const std::vector<std::int64_t> first = network.starts();
  for_each_block(network, [&](const auto& block, const Edges& edges) {
    connect(block, first[static_cast<std::size_t>(edges.source)],
            first[static_cast<std::size_t>(edges.target)], parent.data());
  });
  std::vector<std::int64_t> number(parent.size()), found(parent.size());
  std::int64_t count = 0;
  for (std::size_t v = 0; v < parent.size(); ++v) {
    const auto root =
        static_cast<std::size_t>(find_root(parent.data(), static_cast<std::int64_t>(v)));
    number[v] = root == v ? count++ : number[root];
    found[static_cast<std::size_t>(placed.place[v])] = number[v];
  }
  return found;
}

Partition with_cuts(const Network& network, std::int64_t k, std::vector<std::int32_t> labels) {
  const auto size = static_cast<std::size_t>(k);
  Partition partition{std::move(labels), std::vector<double>(size), std::vector<double>(size)};
  const std::vector<std::int64_t> first = network.starts();
  for_each_block(network, [&](const auto& block, const Edges& edges) {
    const std::int32_t* all = partition.labels.data();
    add_cut(block, all + first[static_cast<std::size_t>(edges.source)],
            all + first[static_cast<std::size_t>(edges.target)], k, partition.volume.data(),
            partition.cut.data());
  });
  return partition;
}

std::vector<std::int32_t> refined(const Network& network, const PlacedNetwork& placed,
                                  const std::vector<double>& degrees, std::int64_t k,
                                  std::int64_t max_passes,
                                  const std::vector<std::int32_t>& labels) {
  const std::int64_t width = (k + kLanes - 1) / kLanes * kLanes;
  std::vector<double> links(static_cast<std::size_t>(placed.n * width)), there(links.size());
  const std::vector<std::int64_t> first = network.starts();
  for_each_block(network, [&](const auto& block, const Edges& edges) {
    const std::int64_t row = first[static_cast<std::size_t>(edges.source)];
    const std::int64_t column = first[static_cast<std::size_t>(edges.target)];
    add_links(block, labels.data() + row, labels.data() + column, k, width,
              links.data() + row * width, links.data() + column * width);
  });
  std::vector<std::int32_t> own(labels.size());
  std::vector<double> own_degrees(degrees.size());
  for (std::size_t v = 0; v < labels.size(); ++v) {
    const auto at = static_cast<std::size_t>(placed.place[v]);
    own[at] = labels[v];
    own_degrees[at] = degrees[v];
    std::copy_n(&links[v * static_cast<std::size_t>(width)], width,
                &there[at * static_cast<std::size_t>(width)]);
  }
  const auto size = static_cast<std::size_t>(k);
  std::vector<double> totals(3 * size, 0.0);
  for (std::size_t v = 0; v < own.size(); ++v) {
    const auto c = static_cast<std::size_t>(own[v]);
    totals[c] += there[v * static_cast<std::size_t>(width) + c];
    totals[size + c] += own_degrees[v];
    totals[2 * size + c] += 1;
  }
  refine(placed.matrix, own_degrees.data(), placed.n, k, width, max_passes, there.data(),
         totals.data(), own.data());
  std::vector<std::int32_t> result(labels.size());
  for (std::size_t v = 0; v < labels.size(); ++v) {
    result[v] = own[static_cast<std::size_t>(placed.place[v])];
  }
  return result;
}

// The network without isolated vertices, and the sums of its weights.
Network connected(Network network, std::vector<double>& degrees) {
  degrees = network.degrees();
  if (std::all_of(degrees.begin(), degrees.end(), [](double d) { return d > 0; })) return network;
  std::vector<std::int64_t> kept;
  network = network.without_isolated(degrees, kept);
  degrees = network.degrees();
  return network;
}

bool embed_placed(const Network& network, const PlacedNetwork& placed, std::int64_t k,
                  const float* start, std::int64_t n_start, const LanczosOptions& options,
                  int n_threads, Spectrum& spectrum) {
  return placed.n_side() * kLanes <= n_start &&
         embed(placed, components(network, placed), k, start, options, n_threads, spectrum);
}

}  // namespace

bool embed_reordered(const Network& network, const std::vector<std::vector<std::int64_t>>& orders,
                     std::int64_t k, const float* start, std::int64_t n_start,
                     const LanczosOptions& options, int n_threads, std::int64_t& n,
                     Spectrum& spectrum) {
  std::vector<double> degrees;
  const Network ordered = connected(network.reordered(orders), degrees);
  n = ordered.n_vertices();
  if (n <= k) return false;
  const PlacedNetwork placed(ordered, degrees);
  return embed_placed(ordered, placed, k, start, n_start, options, n_threads, spectrum);
}

bool unit_variance(const double* points, std::int64_t n, std::int64_t d, float* scaled) {
  std::vector<double> mean(static_cast<std::size_t>(d), 0.0);
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t c = 0; c < d; ++c) mean[static_cast<std::size_t>(c)] += points[i * d + c];
  }
  double squares = 0, offset = 0, shortest = std::numeric_limits<double>::infinity(), longest = 0;
  for (double& one : mean) {
    one /= static_cast<double>(n);
    offset = std::max(offset, std::abs(one));
  }
  for (std::int64_t i = 0; i < n; ++i) {
    double size = 0;
    for (std::int64_t c = 0; c < d; ++c) {
      const double difference = points[i * d + c] - mean[static_cast<std::size_t>(c)];
      squares += difference * difference;
      size = std::max(size, std::abs(points[i * d + c]));
    }
    if (size > 0) shortest = std::min(shortest, size);
    longest = std::max(longest, size);
  }
  const double scale = std::sqrt(squares / static_cast<double>(n * d));
  for (std::int64_t i = 0; i < n * d; ++i) {
    scaled[i] = static_cast<float>(scale > 0 ? points[i] / scale : points[i]);
  }
  return std::isfinite(scale) && !(longest > kMaxRange * shortest) &&
         (scale == 0 || offset <= kMaxOffset * scale);
}

bool measure_shuffle(const Network& network, Null null, std::uint32_t stream, const float* start,
                     std::int64_t n_start, const MeasureOptions& options, Measured& result) {
  const Network shuffled = connected(network.shuffled(null, options.seed, stream), result.degrees);
  if (shuffled.n_vertices() <= options.k) return false;
  const PlacedNetwork placed(shuffled, result.degrees);
  if (!embed_placed(shuffled, placed, options.k, start, n_start, options.lanczos, options.n_threads,
                    result.spectrum)) {
    return false;
  }
  const std::int64_t n = placed.n, k = options.k;
  std::vector<float> points(static_cast<std::size_t>(n * k));
  if (!unit_variance(result.spectrum.points.data(), n, k, points.data())) return false;
  for (const std::uint32_t kmeans_stream : options.kmeans_streams) {
    std::vector<std::int32_t> labels(static_cast<std::size_t>(n));
    kmeans(points.data(), n, k,
           {k, options.n_init, options.max_iterations, options.tolerance, options.seed,
            kmeans_stream, options.n_threads},
           labels.data());
    std::vector<std::int32_t> better =
        refined(shuffled, placed, result.degrees, k, options.max_passes, labels);
    result.spectral.push_back(with_cuts(shuffled, k, std::move(labels)));
    result.refined.push_back(with_cuts(shuffled, k, std::move(better)));
  }
  const std::int32_t* labels =
      (options.refined_squares ? result.refined : result.spectral).front().labels.data();
  const std::vector<std::int64_t> first = shuffled.starts();
  for_each_block(shuffled, [&](const auto& block, const Edges& edges) {
    double sums[2] = {};
    add_squares(block, labels + first[static_cast<std::size_t>(edges.source)],
                labels + first[static_cast<std::size_t>(edges.target)], sums);
    result.squares.insert(result.squares.end(), sums, sums + 2);
  });
  result.sizes = shuffled.sizes;
  return true;
}

}  // namespace ncut
