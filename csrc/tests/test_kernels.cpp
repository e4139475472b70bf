// The kernels without Python, against obvious loops; built with sanitizers in CI.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <numeric>
#include <set>
#include <stdexcept>
#include <vector>

#include "assemble.hpp"
#include "components.hpp"
#include "cut.hpp"
#include "kmeans.hpp"
#include "orthonormalize.hpp"
#include "parallel.hpp"
#include "product.hpp"
#include "rng.hpp"
#include "shuffle.hpp"

using namespace ncut;

namespace {

#define CHECK(condition)                                                  \
  do {                                                                    \
    if (!(condition)) {                                                   \
      std::printf("%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
      std::exit(1);                                                       \
    }                                                                     \
  } while (false)

struct Matrix {
  std::int64_t n_rows, n_cols;
  std::vector<float> values;

  Matrix(std::int64_t rows, std::int64_t cols, double density, std::uint64_t seed)
      : n_rows(rows), n_cols(cols), values(static_cast<std::size_t>(rows * cols)) {
    Philox random(seed, 7, 7);
    for (float& value : values) {
      value = random.uniform() < density ? static_cast<float>(random.uniform()) + 0.1F : 0.0F;
    }
  }

  DenseBlock<float> dense() const { return {values.data(), n_rows, n_cols}; }
};

struct Csr {
  std::vector<std::int32_t> indptr, indices;
  std::vector<float> values;
  std::int64_t n_rows, n_cols;

  explicit Csr(const Matrix& from) : n_rows(from.n_rows), n_cols(from.n_cols) {
    indptr.push_back(0);
    for (std::int64_t i = 0; i < n_rows; ++i) {
      for (std::int64_t j = 0; j < n_cols; ++j) {
        const float value = from.values[static_cast<std::size_t>(i * n_cols + j)];
        if (value == 0) continue;
        indices.push_back(static_cast<std::int32_t>(j));
        values.push_back(value);
      }
      indptr.push_back(static_cast<std::int32_t>(indices.size()));
    }
  }

  SparseBlock<float, std::int32_t> block() const {
    return {indptr.data(), indices.data(), values.data(), n_rows, n_cols};
  }
};

// Known answers of the generator's authors (Random123, kat_vectors): Philox4x32-10.
void test_philox_known_answers() {
  Philox zeros(0, 0, 0);
  const std::uint32_t expected[] = {0x6627e8d5U, 0xe169c58dU, 0xbc57ac4cU, 0x9b00dbd8U};
  for (const std::uint32_t value : expected) CHECK(zeros.next() == value);
}

void test_bounded_draws() {
  Philox random(3, 1, 4);
  std::vector<int> counts(7, 0);
  for (int i = 0; i < 70000; ++i) ++counts[random.below(7)];
  for (const int count : counts) CHECK(std::abs(count - 10000) < 500);
  const std::uint64_t large = (std::uint64_t{1} << 40) + 12345;
  for (int i = 0; i < 1000; ++i) CHECK(random.below64(large) < large);
}

void test_permute() {
  for (const std::int64_t n : {0, 1, 2, 15, 16, 17, 1000}) {
    std::vector<double> values(static_cast<std::size_t>(n));
    std::iota(values.begin(), values.end(), 0.0);
    Philox random(5, 0, 0);
    permute(values.data(), n, random);
    CHECK(std::set<double>(values.begin(), values.end()).size() == values.size());
  }
  // Sizes around the limit of the cache, and far above it.
  for (const std::int64_t n : {262144, 262145, 262147, 1000001}) {
    std::vector<double> values(static_cast<std::size_t>(n)), out(values.size());
    std::iota(values.begin(), values.end(), 0.0);
    Philox random(5, 0, 0);
    permuted(values.data(), out.data(), n, random);
    std::int64_t in_place = 0;
    double correlation = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      in_place += out[i] == values[i];
      correlation += (out[i] / n - 0.5) * (values[i] / n - 0.5) * 12 / n;
    }
    CHECK(in_place < 12 && std::abs(correlation) < 5 / std::sqrt(n));
    std::sort(out.begin(), out.end());
    CHECK(out == values);
  }
}

void test_random_pattern() {
  struct Case {
    std::int64_t rows, cols;
    std::uint64_t size;
    bool triangle;
  };
  const Case cases[] = {{5, 9, 13, false},      {5, 9, 40, false}, {5, 9, 45, false},
                        {5, 9, 0, false},       {40, 40, 3, true}, {40, 40, 700, true},
                        {0, 4, 0, false},       {3, 0, 0, false},  {1, 1, 0, true},
                        {3000, 4000, 50, false}};
  for (const Case& c : cases) {
    std::vector<std::int64_t> indptr(static_cast<std::size_t>(c.rows + 1)), indices(c.size);
    Philox random(11, 2, 0);
    random_pattern(Positions{c.rows, c.cols, c.triangle}, c.size, random, indptr.data(),
                   indices.data());
    CHECK(indptr[0] == 0 && indptr.back() == static_cast<std::int64_t>(c.size));
    for (std::int64_t row = 0; row < c.rows; ++row) {
      for (auto at = indptr[row]; at < indptr[row + 1]; ++at) {
        CHECK(indices[at] < c.cols && indices[at] >= (c.triangle ? row + 1 : 0));
        CHECK(at == indptr[row] || indices[at] > indices[at - 1]);
      }
    }
  }
}

void test_cut_and_degrees() {
  for (const double density : {0.0, 0.1, 1.0}) {
    const Matrix matrix(7, 5, density, 21);
    const Csr csr(matrix);
    const std::vector<std::int32_t> rows = {0, 1, 2, 0, 1, 2, 0}, cols = {2, 1, 0, 0, 1};
    double volume[3] = {}, cut[3] = {}, volume_csr[3] = {}, cut_csr[3] = {}, expected[3] = {};
    add_cut(matrix.dense(), rows.data(), cols.data(), 3, volume, cut);
    add_cut(csr.block(), rows.data(), cols.data(), 3, volume_csr, cut_csr);
    double total = 0;
    for (int i = 0; i < 7; ++i) {
      for (int j = 0; j < 5; ++j) {
        const double weight = matrix.values[i * 5 + j];
        total += 2 * weight;
        if (rows[i] != cols[j]) {
          expected[rows[i]] += weight;
          expected[cols[j]] += weight;
        }
      }
    }
    for (int c = 0; c < 3; ++c) {
      CHECK(std::abs(cut[c] - expected[c]) < 1e-12);
      CHECK(std::abs(cut_csr[c] - expected[c]) < 1e-12);
      CHECK(std::abs(volume[c] - volume_csr[c]) < 1e-12);
    }
    CHECK(std::abs(volume[0] + volume[1] + volume[2] - total) < 1e-12);
    std::vector<double> degrees(12, 0.0);
    add_degrees(matrix.dense(), degrees.data(), degrees.data() + 7);
    CHECK(std::abs(std::accumulate(degrees.begin(), degrees.end(), 0.0) - total) < 1e-12);
  }
}

void test_links_and_squares() {
  constexpr std::int64_t kWidth = 4;
  for (const double density : {0.0, 0.1, 1.0}) {
    const Matrix matrix(7, 5, density, 22);
    const Csr csr(matrix);
    const std::vector<std::int32_t> rows = {0, 1, 2, 0, 1, 2, 0}, cols = {2, 1, 0, 0, 1};
    std::vector<double> dense(12 * kWidth), sparse(dense), expected(dense);
    add_links(matrix.dense(), rows.data(), cols.data(), 3, kWidth, dense.data(),
              dense.data() + 7 * kWidth);
    add_links(csr.block(), rows.data(), cols.data(), 3, kWidth, sparse.data(),
              sparse.data() + 7 * kWidth);
    double squares[2] = {}, squares_csr[2] = {}, inside = 0, all = 0;
    add_squares(matrix.dense(), rows.data(), cols.data(), squares);
    add_squares(csr.block(), rows.data(), cols.data(), squares_csr);
    for (int i = 0; i < 7; ++i) {
      for (int j = 0; j < 5; ++j) {
        const double weight = matrix.values[i * 5 + j];
        expected[i * kWidth + cols[j]] += weight;
        expected[(7 + j) * kWidth + rows[i]] += weight;
        all += weight * weight;
        if (rows[i] == cols[j]) inside += weight * weight;
      }
    }
    for (std::size_t at = 0; at < expected.size(); ++at) {
      CHECK(std::abs(dense[at] - expected[at]) < 1e-12);
      CHECK(std::abs(sparse[at] - expected[at]) < 1e-12);
    }
    CHECK(std::abs(squares[0] - inside) < 1e-12 && std::abs(squares_csr[0] - inside) < 1e-12);
    CHECK(std::abs(squares[1] - all) < 1e-12 && std::abs(squares_csr[1] - all) < 1e-12);
  }
}

// A matrix of two dense blocks and a sparse one over odd sizes, for one and two threads.
template <class T>
void test_product() {
  const std::int64_t sizes[] = {259, 1, 33, 300};
  const Matrix a(259, 1, 1.0, 31), b(1, 33, 1.0, 32), sparse(33, 300, 0.05, 33);
  const std::int64_t n = 593, width = 32;
  const std::int64_t starts[] = {0, 259, 260, 293};
  std::vector<double> full(static_cast<std::size_t>(n * n), 0.0);
  const Matrix* blocks[] = {&a, &b, &sparse};
  for (int k = 0; k < 3; ++k) {
    for (std::int64_t i = 0; i < sizes[k]; ++i) {
      for (std::int64_t j = 0; j < sizes[k + 1]; ++j) {
        const double weight = blocks[k]->values[static_cast<std::size_t>(i * sizes[k + 1] + j)];
        full[(starts[k] + i) * n + starts[k + 1] + j] = weight;
        full[(starts[k + 1] + j) * n + starts[k] + i] = weight;
      }
    }
  }
  std::vector<std::int64_t> cursor(static_cast<std::size_t>(n + 1), 0);
  count_nonzero(sparse.dense(), cursor.data() + 261, cursor.data() + 294);
  std::partial_sum(cursor.begin(), cursor.end(), cursor.begin());
  const std::vector<std::int64_t> indptr = cursor;
  std::vector<std::int64_t> indices(static_cast<std::size_t>(indptr.back()));
  std::vector<float> values(indices.size());
  fill_symmetric(sparse.dense(), 260, 293, cursor.data(), indptr.back(), indices.data(),
                 values.data());
  const SymmetricMatrix<float, std::int64_t> matrix{
      {{a.dense(), 0, 259}, {b.dense(), 259, 260}},
      {indptr.data(), indices.data(), values.data(), n, n}};
  std::vector<T> x(static_cast<std::size_t>(n * width)), scale(static_cast<std::size_t>(n));
  Philox random(41, 0, 0);
  for (T& value : x) value = static_cast<T>(random.normal());
  for (T& value : scale) value = static_cast<T>(random.uniform());
  std::vector<T> once(x.size(), T{-7}), twice(x.size(), T{-7});
  multiply(matrix, x.data(), width, scale.data(), 0, n, once.data(), 1);
  multiply(matrix, x.data(), width, scale.data(), 100, 500, twice.data(), 2);
  for (std::int64_t v = 0; v < n; ++v) {
    for (std::int64_t lane = 0; lane < width; ++lane) {
      double sum = 0;
      for (std::int64_t u = 0; u < n; ++u) sum += full[v * n + u] * x[u * width + lane];
      const std::size_t at = static_cast<std::size_t>(v * width + lane);
      CHECK(std::abs(once[at] - sum * scale[v]) < 1e-4);
      CHECK(v >= 100 && v < 500 ? twice[at] == once[at] : twice[at] == T{-7});
    }
  }
}

void test_orthonormalize() {
  for (const std::int64_t n : {40, 41, 43}) {
    const std::int64_t m = 9, stride = 11;
    std::vector<double> against(static_cast<std::size_t>(n * stride), 0.0);
    for (std::int64_t j = 0; j < m; ++j) against[j * stride + j] = 1;  // the first unit vectors
    std::vector<double> block(static_cast<std::size_t>(n * 16)), out(block.size());
    Philox random(71, 0, 0);
    for (double& value : block) value = random.normal();
    std::vector<double> inside(block.begin(), block.begin() + m * 16), factor(256);
    CHECK(orthonormalize(block.data(), against.data(), n, m, stride, inside.data(), out.data(),
                         factor.data()));
    for (int a = 0; a < 16; ++a) {
      for (int b = 0; b < 16; ++b) {
        double sum = 0;
        for (std::int64_t i = 0; i < n; ++i) sum += out[i * 16 + a] * out[i * 16 + b];
        CHECK(std::abs(sum - (a == b)) < 1e-12);
      }
      for (std::int64_t i = 0; i < n; ++i) {
        double sum = 0;
        for (int b = 0; b < 16; ++b) sum += out[i * 16 + b] * factor[b * 16 + a];
        CHECK(std::abs(sum - (i < m ? 0 : block[i * 16 + a])) < 1e-12);
      }
    }
    std::fill(block.begin(), block.end(), 0.0);
    std::fill(inside.begin(), inside.end(), 0.0);
    CHECK(!orthonormalize(block.data(), against.data(), n, m, stride, inside.data(), out.data(),
                          factor.data()));
  }
}

void test_components() {
  std::vector<std::int64_t> parent(10);
  std::iota(parent.begin(), parent.end(), 0);
  const Matrix full(3, 2, 1.0, 51);
  connect(full.dense(), 0, 3, parent.data());
  Matrix identity(2, 2, 0.0, 52);
  identity.values = {1, 0, 0, 1};
  connect(Csr(identity).block(), 5, 7, parent.data());
  for (int v = 0; v < 5; ++v) CHECK(find_root(parent.data(), v) == 0);
  CHECK(find_root(parent.data(), 7) == 5 && find_root(parent.data(), 8) == 6);
  CHECK(find_root(parent.data(), 9) == 9);
}

void test_kmeans() {
  for (const std::int64_t n : {5, 16, 17, 100}) {
    std::vector<float> points(static_cast<std::size_t>(n * 3));
    Philox random(61, 0, 0);
    for (float& value : points) value = static_cast<float>(random.normal());
    for (const std::int64_t k : {1, 2, 5}) {
      std::vector<std::int32_t> once(static_cast<std::size_t>(n)), twice(once.size());
      const double one = kmeans(points.data(), n, 3, {k, 4, 100, 1e-4, 9, 0, 1}, once.data());
      const double two = kmeans(points.data(), n, 3, {k, 4, 100, 1e-4, 9, 0, 3}, twice.data());
      CHECK(one == two && once == twice);
      for (const std::int32_t label : once) CHECK(label >= 0 && label < k);
    }
  }
  const std::vector<float> equal(40, 1.5F);
  std::vector<std::int32_t> labels(20);
  CHECK(kmeans(equal.data(), 20, 2, {4, 3, 100, 1e-4, 9, 0, 1}, labels.data()) == 0);
}

void test_parallel_errors() {
  bool caught = false;
  try {
    parallel_for(100, 3, [](std::int64_t i) {
      if (i == 50) throw std::runtime_error("expected");
    });
  } catch (const std::runtime_error&) {
    caught = true;
  }
  CHECK(caught);
}

}  // namespace

int main() {
  test_philox_known_answers();
  test_bounded_draws();
  test_permute();
  test_random_pattern();
  test_cut_and_degrees();
  test_links_and_squares();
  test_product<float>();
  test_product<double>();
  test_orthonormalize();
  test_components();
  test_kmeans();
  test_parallel_errors();
  std::printf("all kernel tests passed\n");
  return 0;
}
