// The random parts of the null models.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "rng.hpp"

namespace ncut {

// Permutes n values uniformly at random, in place (Fisher and Yates; Durstenfeld 1964). O(n).
template <class T>
void permute(T* values, std::int64_t n, Philox& random) {
  // Targets are drawn some steps ahead, so that their loads overlap.
  constexpr std::int64_t kAhead = 16;
  std::uint64_t target[kAhead];
  for (std::int64_t last = n - 1; last > 0;) {
    const std::int64_t batch = std::min(kAhead, last);
    for (std::int64_t b = 0; b < batch; ++b) {
      target[b] = random.below64(static_cast<std::uint64_t>(last - b + 1));
    }
    for (std::int64_t b = 0; b < batch; ++b, --last) std::swap(values[last], values[target[b]]);
  }
}

// Larger arrays (in bytes) are shuffled in pieces, so that random access stays in the cache.
constexpr std::int64_t kCacheBytes = std::int64_t{1} << 21;
constexpr int kMaxPieceBits = 12;

// Fills `to` with the n values of `from` in random order, every order equally likely. O(n).
//
// Large arrays are first distributed to pieces at random, each value independently; the pieces,
// each permuted and concatenated, form a uniformly random order. The draws of the distribution are
// made twice, once to count and once to write, which the counter-based generator allows.
// Source: Rao (1961) and Sandelius (1962), described in Bacher, Bodini, Hollender, Lumbroso
// (2015), MergeShuffle.
template <class T>
void permuted(const T* from, T* to, std::int64_t n, Philox& random) {
  int bits = 0;
  while (bits < kMaxPieceBits && n * static_cast<std::int64_t>(sizeof(T)) > (kCacheBytes << bits)) {
    ++bits;
  }
  if (bits == 0) {
    std::copy_n(from, n, to);
    permute(to, n, random);
    return;
  }
  const std::uint32_t mask = (1U << bits) - 1;
  std::vector<std::int64_t> next((std::size_t{1} << bits) + 1, 0);
  Philox again = random;
  const auto deal = [mask, n](Philox& generator, auto put) {
    for (std::int64_t i = 0; i + 1 < n; i += 2) {
      const std::uint32_t draw = generator.next();
      put(i, draw & mask);
      put(i + 1, (draw >> 16) & mask);
    }
    if (n % 2 != 0) put(n - 1, generator.next() & mask);
  };
  deal(again, [&](std::int64_t, std::uint32_t piece) { ++next[piece + 1]; });
  for (std::size_t piece = 1; piece < next.size(); ++piece) next[piece] += next[piece - 1];
  std::vector<std::int64_t> start = next;
  deal(random, [&](std::int64_t i, std::uint32_t piece) { to[next[piece]++] = from[i]; });
  for (std::size_t piece = 0; piece + 1 < start.size(); ++piece) {
    permute(to + start[piece], start[piece + 1] - start[piece], random);
  }
}

// The positions that a block's non-zero entries can take: all of an n_rows x n_cols matrix, or
// the strict upper triangle of a square one (`triangle`).
struct Positions {
  std::int64_t n_rows, n_cols;
  bool triangle;

  std::int64_t row_length(std::int64_t row) const { return triangle ? n_cols - 1 - row : n_cols; }
  std::int64_t first_column(std::int64_t row) const { return triangle ? row + 1 : 0; }
  std::uint64_t count() const {
    const auto rows = static_cast<std::uint64_t>(n_rows), cols = static_cast<std::uint64_t>(n_cols);
    return triangle ? rows * (rows - (rows > 0)) / 2 : rows * cols;
  }
};

// `size` different numbers below `count`, ascending, every subset equally likely. Marks bits, or
// sorts the draws if there are too few for the number of bits. O(size + count / 64), or O(size log
// size).
inline std::vector<std::uint64_t> random_subset(std::uint64_t count, std::uint64_t size,
                                                Philox& random) {
  std::vector<std::uint64_t> chosen;
  chosen.reserve(size);
  if (size == 0) return chosen;
  if (count / 64 > size) {
    // The first `size` distinct draws of a uniform sequence, for any batch size.
    while (chosen.size() < size) {
      for (std::uint64_t missing = size - chosen.size(); missing > 0; --missing) {
        chosen.push_back(random.below64(count));
      }
      std::sort(chosen.begin(), chosen.end());
      chosen.erase(std::unique(chosen.begin(), chosen.end()), chosen.end());
    }
    return chosen;
  }
  const bool inverted = size > count / 2;  // mark the smaller of the subset and its complement
  std::vector<std::uint64_t> bits((count + 63) / 64, 0);
  for (std::uint64_t left = inverted ? count - size : size; left > 0;) {
    const std::uint64_t draw = random.below64(count);
    const std::uint64_t bit = std::uint64_t{1} << (draw & 63);
    left -= (bits[draw >> 6] & bit) == 0;
    bits[draw >> 6] |= bit;
  }
  for (std::size_t word = 0; word < bits.size(); ++word) {
    std::uint64_t rest = inverted ? ~bits[word] : bits[word];
    for (; rest != 0; rest &= rest - 1) {
      const std::uint64_t position = word * 64 + static_cast<std::uint64_t>(__builtin_ctzll(rest));
      if (position < count) chosen.push_back(position);
    }
  }
  return chosen;
}

// Fills indptr (n_rows + 1) and indices (size) of a CSR matrix with `size` entries at uniformly
// random positions. O(size + n_rows + cost of random_subset).
template <class I>
void random_pattern(const Positions& positions, std::uint64_t size, Philox& random, I* indptr,
                    I* indices) {
  const std::vector<std::uint64_t> chosen = random_subset(positions.count(), size, random);
  std::uint64_t row_start = 0;
  std::size_t next = 0;
  indptr[0] = 0;
  for (std::int64_t row = 0; row < positions.n_rows; ++row) {
    const auto length = static_cast<std::uint64_t>(positions.row_length(row));
    const auto shift = static_cast<std::uint64_t>(positions.first_column(row));
    for (; next < chosen.size() && chosen[next] < row_start + length; ++next) {
      indices[next] = static_cast<I>(chosen[next] - row_start + shift);
    }
    row_start += length;
    indptr[row + 1] = static_cast<I>(next);
  }
}

// Replaces n positive values by draws from the Gaussian kernel density estimate of `sample`
// (n_sample values), folded at zero: |a random value + bandwidth * a standard normal|. O(n).
template <class T>
void draw_kde(const T* sample, std::int64_t n_sample, double bandwidth, T* values, std::int64_t n,
              Philox& random) {
  for (std::int64_t i = 0; i < n; ++i) {
    const double centre = sample[random.below64(static_cast<std::uint64_t>(n_sample))];
    values[i] = static_cast<T>(std::abs(centre + bandwidth * random.normal()));
  }
}

}  // namespace ncut
