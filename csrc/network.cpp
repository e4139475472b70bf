#include "network.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>

#include "assemble.hpp"
#include "shuffle.hpp"

namespace ncut {
namespace {

std::vector<float> permuted_values(const std::vector<float>& values, std::uint64_t seed,
                                   std::uint32_t stream, std::uint32_t substream) {
  std::vector<float> shuffled(values.size());
  Philox random(seed, stream, substream);
  permuted(values.data(), shuffled.data(), static_cast<std::int64_t>(values.size()), random);
  return shuffled;
}

Edges shuffle(const Edges& block, Null null, std::uint64_t seed, std::uint32_t stream) {
  const std::uint32_t places = block.substream, values = block.substream + 1;
  Edges result{block.source, block.target, block.substream, block.n_rows,
               block.n_cols, {},           block.indptr,    block.indices};
  if (block.is_sparse()) {
    if (null == Null::kLayer) {
      Philox random(seed, stream, places);
      random_pattern({block.n_rows, block.n_cols, block.source == block.target},
                     block.values.size(), random, result.indptr.data(), result.indices.data());
    }
    result.values = permuted_values(block.values, seed, stream, values);
  } else if (null == Null::kLayer) {
    result.values = permuted_values(block.values, seed, stream, places);
  } else {
    std::vector<float> nonzero;
    for (const float value : block.values) {
      if (value != 0) nonzero.push_back(value);
    }
    nonzero = permuted_values(nonzero, seed, stream, values);
    auto next = nonzero.begin();
    result.values = block.values;
    for (float& value : result.values) {
      if (value != 0) value = *next++;
    }
  }
  return result;
}

Edges reorder(const Edges& block, const std::vector<std::int64_t>& order) {
  Edges result{block.source, block.target, block.substream, block.n_rows, block.n_cols, {}, {}, {}};
  result.values.reserve(block.values.size());
  if (block.is_sparse()) {
    result.indices.reserve(block.indices.size());
    result.indptr.push_back(0);
  }
  for (const std::int64_t row : order) {
    const auto at = static_cast<std::size_t>(row);
    const std::int64_t from = block.is_sparse() ? block.indptr[at] : row * block.n_cols;
    const std::int64_t end = block.is_sparse() ? block.indptr[at + 1] : from + block.n_cols;
    result.values.insert(result.values.end(), block.values.begin() + from,
                         block.values.begin() + end);
    if (!block.is_sparse()) continue;
    result.indices.insert(result.indices.end(), block.indices.begin() + from,
                          block.indices.begin() + end);
    result.indptr.push_back(static_cast<std::int32_t>(result.values.size()));
  }
  return result;
}

// The kept rows and columns of a block: the new number of each, or -1.
Edges select(const Edges& block, const std::int64_t* rows, const std::int64_t* cols,
             std::int64_t n_rows, std::int64_t n_cols) {
  Edges small{block.source, block.target, block.substream, n_rows, n_cols, {}, {}, {}};
  if (!block.is_sparse()) {
    small.values.reserve(static_cast<std::size_t>(n_rows * n_cols));
    for (std::int64_t i = 0; i < block.n_rows; ++i) {
      if (rows[i] < 0) continue;
      const float* row = block.values.data() + i * block.n_cols;
      for (std::int64_t j = 0; j < block.n_cols; ++j) {
        if (cols[j] >= 0) small.values.push_back(row[j]);
      }
    }
    return small;
  }
  small.indptr.push_back(0);
  for (std::int64_t i = 0; i < block.n_rows; ++i) {
    if (rows[i] < 0) continue;
    for (std::int32_t at = block.indptr[static_cast<std::size_t>(i)];
         at < block.indptr[static_cast<std::size_t>(i) + 1]; ++at) {
      const auto entry = static_cast<std::size_t>(at);
      const std::int64_t column = cols[block.indices[entry]];
      if (column < 0) continue;  // an explicit zero
      small.indices.push_back(static_cast<std::int32_t>(column));
      small.values.push_back(block.values[entry]);
    }
    small.indptr.push_back(static_cast<std::int32_t>(small.values.size()));
  }
  return small;
}

}  // namespace

std::int64_t Network::n_vertices() const {
  return std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0});
}

std::vector<std::int64_t> Network::starts() const {
  std::vector<std::int64_t> first(sizes.size());
  std::exclusive_scan(sizes.begin(), sizes.end(), first.begin(), std::int64_t{0});
  return first;
}

std::vector<double> Network::degrees() const {
  std::vector<double> sums(static_cast<std::size_t>(n_vertices()), 0.0);
  const std::vector<std::int64_t> first = starts();
  for_each_block(*this, [&](const auto& block, const Edges& edges) {
    add_degrees(block, sums.data() + first[static_cast<std::size_t>(edges.source)],
                sums.data() + first[static_cast<std::size_t>(edges.target)]);
  });
  return sums;
}

Network Network::shuffled(Null null, std::uint64_t seed, std::uint32_t stream) const {
  Network result{sizes, colours, {}};
  for (const Edges& block : blocks) result.blocks.push_back(shuffle(block, null, seed, stream));
  return result;
}

Network Network::reordered(const std::vector<std::vector<std::int64_t>>& orders) const {
  Network result{sizes, colours, {}};
  for (const Edges& block : blocks) {
    const std::vector<std::int64_t>& order = orders[static_cast<std::size_t>(block.source)];
    result.blocks.push_back(order.empty() ? block : reorder(block, order));
  }
  return result;
}

Network Network::without_isolated(const std::vector<double>& degrees,
                                  std::vector<std::int64_t>& kept) const {
  Network small{{}, colours, {}};
  std::vector<std::int64_t> number(degrees.size(), -1);  // within its layer
  kept.clear();
  std::size_t vertex = 0;
  for (const std::int64_t size : sizes) {
    std::int64_t n_kept = 0;
    for (std::int64_t i = 0; i < size; ++i, ++vertex) {
      if (degrees[vertex] <= 0) continue;
      number[vertex] = n_kept++;
      kept.push_back(static_cast<std::int64_t>(vertex));
    }
    small.sizes.push_back(n_kept);
  }
  const std::vector<std::int64_t> first = starts();
  for (const Edges& block : blocks) {
    const auto source = static_cast<std::size_t>(block.source);
    const auto target = static_cast<std::size_t>(block.target);
    small.blocks.push_back(select(block, number.data() + first[source],
                                  number.data() + first[target], small.sizes[source],
                                  small.sizes[target]));
  }
  return small;
}

PlacedNetwork::PlacedNetwork(const Network& network, const std::vector<double>& graph_degrees)
    : n(network.n_vertices()), n_first(0), place(static_cast<std::size_t>(n)) {
  const std::size_t n_layers = network.sizes.size();
  std::vector<std::size_t> order(n_layers);
  std::iota(order.begin(), order.end(), std::size_t{0});
  if (!network.colours.empty()) {
    std::int64_t side[2] = {0, 0};
    for (std::size_t l = 0; l < n_layers; ++l) side[network.colours[l]] += network.sizes[l];
    const int larger = side[1] > side[0] ? 1 : 0;
    std::stable_partition(order.begin(), order.end(),
                          [&](std::size_t l) { return network.colours[l] == larger; });
    n_first = side[larger];
  }
  std::vector<std::int64_t> first(n_layers);
  std::int64_t next = 0;
  for (const std::size_t layer : order) {
    first[layer] = next;
    next += network.sizes[layer];
  }
  std::size_t vertex = 0;
  for (std::size_t layer = 0; layer < n_layers; ++layer) {
    for (std::int64_t i = 0; i < network.sizes[layer]; ++i) place[vertex++] = first[layer] + i;
  }
  std::frexp(*std::max_element(graph_degrees.begin(), graph_degrees.end()), &exponent);
  degrees.resize(graph_degrees.size());
  root_degrees.resize(graph_degrees.size());
  for (std::size_t v = 0; v < graph_degrees.size(); ++v) {
    const auto at = static_cast<std::size_t>(place[v]);
    degrees[at] = std::ldexp(graph_degrees[v], -exponent);
    root_degrees[at] = std::sqrt(degrees[at]);
  }
  std::vector<const Edges*> sparse;
  for (const Edges& block : network.blocks) {
    const auto row = first[static_cast<std::size_t>(block.source)];
    const auto column = first[static_cast<std::size_t>(block.target)];
    if (block.is_sparse()) {
      sparse.push_back(&block);
    } else {
      matrix.dense.push_back({block.dense(), row, column});
    }
  }
  if (sparse.empty()) return;
  const auto row_of = [&](const Edges* b) { return first[static_cast<std::size_t>(b->source)]; };
  const auto col_of = [&](const Edges* b) { return first[static_cast<std::size_t>(b->target)]; };
  std::sort(sparse.begin(), sparse.end(), [&](const Edges* a, const Edges* b) {
    return std::pair(row_of(a), col_of(a)) < std::pair(row_of(b), col_of(b));
  });
  std::vector<std::int64_t> cursor(static_cast<std::size_t>(n) + 1, 0);
  for (const Edges* block : sparse) {
    count_nonzero(block->sparse(), cursor.data() + 1 + row_of(block),
                  cursor.data() + 1 + col_of(block));
  }
  std::partial_sum(cursor.begin(), cursor.end(), cursor.begin());
  indptr_.assign(cursor.begin(), cursor.end());
  const std::int64_t n_entries = cursor.back();
  if (n_entries > INT32_MAX) throw std::length_error("network: too many entries for its indices");
  indices_.resize(static_cast<std::size_t>(n_entries));
  values_.resize(static_cast<std::size_t>(n_entries));
  for (const Edges* block : sparse) {
    fill_symmetric(block->sparse(), row_of(block), col_of(block), cursor.data(), n_entries,
                   indices_.data(), values_.data());
  }
  matrix.sparse = {indptr_.data(), indices_.data(), values_.data(), n, n};
}

}  // namespace ncut
