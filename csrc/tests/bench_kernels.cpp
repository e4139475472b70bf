// Kernels of every instruction set against what one core can do, as JSON.
//
// bench_kernels [SHARE] exits 1 if a kernel reaches less than SHARE of the rate of multiply-adds.
// The limit is measured in turns with each kernel, and the best of many short rounds counts for
// both, so that what else the machine does changes the shares little.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "kernels.hpp"
#include "lanes.hpp"
#include "rng.hpp"

using namespace ncut;

namespace {

constexpr int kRounds = 60;

double seconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::vector<float> random_floats(std::int64_t n) {
  Philox random(1, 2, 3);
  std::vector<float> values(static_cast<std::size_t>(n));
  for (float& value : values) value = static_cast<float>(random.uniform()) - 0.5F;
  return values;
}

struct Case {
  std::string name;
  double operations;  // of one call
  std::function<void()> run;
};

// Points and centres as k-means has them on a network's embedding.
Case comparison(const Kernels& use) {
  constexpr std::int64_t n_tiles = 114, d = 12, k = 12;
  static const auto tiles = random_floats(n_tiles * kLanes * d), centres = random_floats(k * d);
  static const auto halves = random_floats(k);
  static std::vector<std::int32_t> labels(n_tiles * kLanes);
  return {"comparison of k-means, d = k = 12", 2.0 * n_tiles * kLanes * d * k, [&use] {
            use.assign(tiles.data(), n_tiles, d, centres.data(), halves.data(), k, labels.data());
          }};
}

// One dense block, times the vectors of its columns or (mirrored) of its rows.
template <class T>
Case product(const Kernels& use, const char* name, std::int64_t rows, std::int64_t cols,
             bool mirrored) {
  static std::vector<std::vector<float>> kept;
  kept.push_back(random_floats(rows * cols));
  SymmetricMatrix<float, std::int32_t> matrix{{}, {}};
  matrix.dense.push_back({{kept.back().data(), rows, cols}, 0, rows});
  const auto size = static_cast<std::size_t>((rows + cols) * kLanes);
  std::vector<T> x(size, T{1}), y(size), scale(static_cast<std::size_t>(rows + cols), T{1});
  const auto panel = std::get<Panel<float, std::int32_t, T>>(use.panels);
  return {name, 2.0 * static_cast<double>(rows * cols * kLanes),
          [matrix, x, y, scale, panel, rows, cols, mirrored]() mutable {
            const std::int64_t first = mirrored ? rows : 0, last = mirrored ? rows + cols : rows;
            for (std::int64_t begin = first; begin < last; begin += kPanel) {
              panel(matrix, x.data(), kLanes, scale.data(), begin, std::min(begin + kPanel, last),
                    y.data());
            }
          }};
}

Case projection(const Kernels& use, bool back) {
  constexpr std::int64_t n = 906, m = 96;
  static const auto basis = random_floats(n * m), block = random_floats(n * kLanes);
  static std::vector<float> inside(m * kLanes), out(n * kLanes);
  const auto& vectors = std::get<VectorKernels<float>>(use.vectors);
  return {back ? "orthonormalization: subtract" : "orthonormalization: inner products",
          2.0 * n * m * kLanes, [&vectors, back] {
            if (back) {
              vectors.subtract(basis.data(), n, m, m, inside.data(), out.data());
            } else {
              vectors.inner_products(block.data(), basis.data(), n, m, m, inside.data());
            }
          }};
}

}  // namespace

int main(int argc, char** argv) {
  const double least = argc > 1 ? std::atof(argv[1]) : 0;
  bool good = true;
  const auto large = random_floats(std::int64_t{1} << 25);  // 128 MB
  std::printf("{\n");
  const std::vector<std::string> sets = instruction_sets();
  for (const std::string& name : sets) {
    use_instruction_set(name);
    const Kernels& use = kernels();
    double reading = 1e9;
    volatile float sum = 0;
    for (int round = 0; round < 8; ++round) {
      reading = std::min(reading, seconds([&] {
                           sum =
                               use.read_all(large.data(), static_cast<std::int64_t>(large.size()));
                         }));
    }
    const Case cases[] = {
        comparison(use),
        product<float>(use, "product, rows of 256 x 256", 256, 256, false),
        product<float>(use, "product, columns of 256 x 256", 256, 256, true),
        product<float>(use, "product, rows of 784 x 256", 784, 256, false),
        product<float>(use, "product, columns of 784 x 256", 784, 256, true),
        projection(use, false),
        projection(use, true),
    };
    double limit = 0;
    std::vector<double> rates(std::size(cases), 0.0);
    for (int round = 0; round < kRounds; ++round) {
      for (std::size_t c = 0; c < std::size(cases); ++c) {
        double operations = 0;
        const double time = seconds([&] { operations = use.multiply_adds(20000); });
        limit = std::max(limit, operations / time);
        rates[c] = std::max(rates[c], cases[c].operations / seconds(cases[c].run));
      }
    }
    std::printf(" \"%s\": {\n  \"multiply-adds, GFLOP/s\": %.1f,\n  \"reading, GB/s\": %.1f",
                name.c_str(), limit / 1e9, static_cast<double>(large.size()) * 4 / reading / 1e9);
    for (std::size_t c = 0; c < std::size(cases); ++c) {
      std::printf(",\n  \"%s\": %.2f", cases[c].name.c_str(), rates[c] / limit);
      if (rates[c] < least * limit) {
        good = false;
        std::fprintf(stderr, "%s: %s reaches %.2f of the limit, less than %.2f\n", name.c_str(),
                     cases[c].name.c_str(), rates[c] / limit, least);
      }
    }
    std::printf("\n }%s\n", &name == &sets.back() ? "" : ",");
  }
  std::printf("}\n");
  return good ? 0 : 1;
}
