#include "trade.hpp"

#include <algorithm>
#include <numeric>
#include <utility>

#include "shuffle.hpp"

namespace ncut {
namespace {

constexpr int kAtOnce = 6;  // as many as there are bits in the number of a set among 64

// The positions of the two values that a pair of lines may exchange.
struct Exchange {
  std::int64_t one, other;
};

std::vector<Exchange> exchanges_of(const Lines& lines, std::int64_t one, std::int64_t other) {
  std::vector<Exchange> found;
  auto a = static_cast<std::size_t>(lines.start[static_cast<std::size_t>(one)]);
  auto b = static_cast<std::size_t>(lines.start[static_cast<std::size_t>(other)]);
  const auto a_end = static_cast<std::size_t>(lines.start[static_cast<std::size_t>(one) + 1]);
  const auto b_end = static_cast<std::size_t>(lines.start[static_cast<std::size_t>(other) + 1]);
  found.reserve(std::min(a_end - a, b_end - b));
  while (a < a_end && b < b_end) {
    const std::int64_t there = lines.crossing[a], here = lines.crossing[b];
    if (there == here) found.push_back({lines.place[a], lines.place[b]});
    a += there <= here;
    b += here <= there;
  }
  return found;
}

// The bits of the sets whose sum of differences lies between the limits.
std::uint64_t allowed(const double* sums, int size, double low, double high) {
  std::uint64_t bits = 0;
  for (int set = 0; set < size; ++set) {
    bits |= static_cast<std::uint64_t>(sums[set] >= low && sums[set] <= high) << set;
  }
  return bits;
}

void trade_pair(Lines& lines, std::size_t one, std::size_t other, double* values, Philox& random) {
  std::vector<Exchange> exchanges =
      exchanges_of(lines, static_cast<std::int64_t>(one), static_cast<std::int64_t>(other));
  permute(exchanges.data(), static_cast<std::int64_t>(exchanges.size()), random);
  double sums[1 << kAtOnce];
  sums[0] = 0.0;
  for (std::size_t first = 0; first < exchanges.size(); first += kAtOnce) {
    const int n = static_cast<int>(std::min<std::size_t>(kAtOnce, exchanges.size() - first));
    for (int at = 0; at < n; ++at) {
      const Exchange& exchange = exchanges[first + static_cast<std::size_t>(at)];
      const double difference = values[exchange.other] - values[exchange.one];
      for (int set = 0; set < 1 << at; ++set) sums[(1 << at) + set] = sums[set] + difference;
    }
    const double low =
        std::max(lines.low[one] - lines.sum[one], lines.sum[other] - lines.high[other]);
    const double high =
        std::min(lines.high[one] - lines.sum[one], lines.sum[other] - lines.low[other]);
    std::uint64_t sets = allowed(sums, 1 << n, low, high) | 1U;  // nothing exchanged: where it is
    const auto count = static_cast<std::uint32_t>(__builtin_popcountll(sets));
    for (std::uint32_t skip = random.below(count); skip > 0; --skip) sets &= sets - 1;
    const int chosen = __builtin_ctzll(sets);
    for (int at = 0; at < n; ++at) {
      if ((chosen >> at & 1) == 0) continue;
      const Exchange& exchange = exchanges[first + static_cast<std::size_t>(at)];
      std::swap(values[exchange.one], values[exchange.other]);
    }
    lines.sum[one] += sums[chosen];
    lines.sum[other] -= sums[chosen];
  }
}

}  // namespace

void Lines::add_up(const double* values) {
  sum.assign(static_cast<std::size_t>(count()), 0.0);
  for (std::size_t line = 0; line < sum.size(); ++line) {
    for (std::int64_t at = start[line]; at < start[line + 1]; ++at) {
      sum[line] += values[place[static_cast<std::size_t>(at)]];
    }
  }
}

Lines rows_of(const std::int64_t* indptr, const std::int64_t* indices, std::int64_t n_rows) {
  Lines lines;
  lines.start.assign(indptr, indptr + n_rows + 1);
  lines.crossing.assign(indices, indices + indptr[n_rows]);
  lines.place.resize(lines.crossing.size());
  std::iota(lines.place.begin(), lines.place.end(), std::int64_t{0});
  return lines;
}

Lines columns_of(const std::int64_t* indptr, const std::int64_t* indices, std::int64_t n_rows,
                 std::int64_t n_cols) {
  Lines lines;
  const std::int64_t n = indptr[n_rows];
  lines.start.assign(static_cast<std::size_t>(n_cols) + 1, 0);
  for (std::int64_t at = 0; at < n; ++at) ++lines.start[static_cast<std::size_t>(indices[at]) + 1];
  std::partial_sum(lines.start.begin(), lines.start.end(), lines.start.begin());
  std::vector<std::int64_t> next(lines.start.begin(), lines.start.end() - 1);
  lines.crossing.resize(static_cast<std::size_t>(n));
  lines.place.resize(static_cast<std::size_t>(n));
  for (std::int64_t row = 0; row < n_rows; ++row) {
    for (std::int64_t at = indptr[row]; at < indptr[row + 1]; ++at) {
      const auto to = static_cast<std::size_t>(next[static_cast<std::size_t>(indices[at])]++);
      lines.crossing[to] = row;
      lines.place[to] = at;
    }
  }
  return lines;
}

Lines vertices_of(const std::int64_t* indptr, const std::int64_t* indices, std::int64_t n) {
  const Lines above = rows_of(indptr, indices, n), below = columns_of(indptr, indices, n, n);
  Lines lines;
  lines.start.push_back(0);
  for (std::size_t vertex = 0; vertex < static_cast<std::size_t>(n); ++vertex) {
    // Neighbours before the vertex, with entries in its column, then neighbours after it.
    for (const Lines* part : {&below, &above}) {
      const std::int64_t from = part->start[vertex], to = part->start[vertex + 1];
      lines.crossing.insert(lines.crossing.end(), part->crossing.begin() + from,
                            part->crossing.begin() + to);
      lines.place.insert(lines.place.end(), part->place.begin() + from, part->place.begin() + to);
    }
    lines.start.push_back(static_cast<std::int64_t>(lines.crossing.size()));
  }
  return lines;
}

void trade(Lines& lines, double* values, Philox& random) {
  std::vector<std::size_t> order(lines.sum.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  permute(order.data(), static_cast<std::int64_t>(order.size()), random);
  for (std::size_t at = 0; at + 1 < order.size(); at += 2) {
    trade_pair(lines, order[at], order[at + 1], values, random);
  }
}

void trade(Lines& first, Lines* second, double* values, std::int64_t halves, Philox& random,
           const Poll& poll) {
  for (std::int64_t half = 0; half < halves; ++half) {
    if (poll) poll();
    Lines& lines = second != nullptr && random.below(2) == 1 ? *second : first;
    lines.add_up(values);  // trades along the other kind keep these sums but for rounding
    trade(lines, values, random);
  }
}

}  // namespace ncut
