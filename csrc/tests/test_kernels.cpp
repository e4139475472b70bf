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
#include "kernels.hpp"
#include "kmeans.hpp"
#include "lanes.hpp"
#include "orthonormalize.hpp"
#include "parallel.hpp"
#include "product.hpp"
#include "rescale.hpp"
#include "rng.hpp"
#include "shuffle.hpp"
#include "sinkhorn.hpp"
#include "subspace.hpp"
#include "trade.hpp"

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

// Values stay as a multiset and sums in their bins, along rows, columns and vertices.
void test_trade() {
  const Csr csr(Matrix(40, 30, 0.4, 3));
  const std::vector<std::int64_t> indptr(csr.indptr.begin(), csr.indptr.end());
  const std::vector<std::int64_t> indices(csr.indices.begin(), csr.indices.end());
  const std::vector<double> before(csr.values.begin(), csr.values.end());
  const auto binned = [](Lines& lines, const std::vector<double>& values) {
    lines.add_up(values.data());
    for (const double sum : lines.sum) {
      lines.low.push_back(sum - 0.2);
      lines.high.push_back(sum + 0.2);
    }
  };
  const auto check = [](Lines& lines, const std::vector<double>& values) {
    lines.add_up(values.data());
    for (std::size_t line = 0; line < lines.sum.size(); ++line) {
      CHECK(lines.sum[line] > lines.low[line] - 1e-9 && lines.sum[line] < lines.high[line] + 1e-9);
    }
  };
  std::vector<double> values = before;
  Lines rows = rows_of(indptr.data(), indices.data(), 40);
  Lines columns = columns_of(indptr.data(), indices.data(), 40, 30);
  binned(rows, values);
  binned(columns, values);
  Philox random(5, 0, 0);
  trade(rows, &columns, values.data(), 20, random);
  check(rows, values);
  check(columns, values);
  std::size_t moved = 0;
  for (std::size_t at = 0; at < values.size(); ++at) moved += values[at] != before[at];
  CHECK(2 * moved > values.size());
  std::vector<double> one = values, other = before;
  std::sort(one.begin(), one.end());
  std::sort(other.begin(), other.end());
  CHECK(one == other);
  // A path of three vertices, 0 - 1 - 2: no pair has two neighbours in common.
  const std::int64_t path[] = {0, 1, 2, 2}, ends[] = {1, 2};
  Lines vertices = vertices_of(path, ends, 3);
  CHECK((vertices.start == std::vector<std::int64_t>{0, 1, 3, 4}));
  CHECK((vertices.crossing == std::vector<std::int64_t>{1, 0, 2, 1}));
  CHECK((vertices.place == std::vector<std::int64_t>{0, 0, 1, 1}));
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

// Two layers of signed weights, the vertices of one colour first, n x n in full.
template <class T>
struct Chain {
  std::int64_t n_first, n;
  std::vector<T> first, second;  // (hidden, in) and (out, hidden)
  std::vector<double> full;

  // Entries between 0.1 and 1.1 where both vertices are of one quarter, `low` times that elsewhere.
  Chain(std::int64_t n_in, std::int64_t n_hidden, std::int64_t n_out, double low)
      : n_first(n_in + n_out), n(n_in + n_hidden + n_out) {
    Philox random(91, 0, 0);
    full.assign(static_cast<std::size_t>(n * n), 0.0);
    const auto fill = [&](std::vector<T>& weights, std::int64_t rows, std::int64_t columns,
                          std::int64_t first_row, std::int64_t first_column) {
      for (std::int64_t i = 0; i < rows; ++i) {
        for (std::int64_t j = 0; j < columns; ++j) {
          const bool same = i * 4 / rows == j * 4 / columns;
          const double size = (random.uniform() + 0.1) * (same ? 1 : low);
          weights.push_back(static_cast<T>(random.uniform() < 0.5 ? -size : size));
          const double weight = std::abs(static_cast<double>(weights.back()));
          full[static_cast<std::size_t>((first_row + i) * n + first_column + j)] = weight;
          full[static_cast<std::size_t>((first_column + j) * n + first_row + i)] = weight;
        }
      }
    };
    fill(first, n_hidden, n_in, n_first, 0);
    fill(second, n_out, n_hidden, n_in, n_first);
  }

  WeightedGraph<T> graph(bool two_colours) const {
    const std::int64_t n_hidden = n - n_first;
    const std::int64_t n_in = static_cast<std::int64_t>(first.size()) / n_hidden;
    const auto view = [](const std::vector<T>& weights) {
      return reinterpret_cast<const Magnitude<T>*>(weights.data());
    };
    return {{{{view(first), n_hidden, n_in}, n_first, 0},
             {{view(second), n_first - n_in, n_hidden}, n_in, n_first}},
            n,
            two_colours ? n_first : 0};
  }
};

template <class T>
struct Update {
  std::vector<T> basis, vectors;
  std::vector<double> degrees, values, residuals;
  Progress progress;

  Update(const WeightedGraph<T>& graph, const Accuracy& accuracy, int n_threads)
      : basis(static_cast<std::size_t>(graph.n_side() * kLanes)),
        vectors(static_cast<std::size_t>(graph.n * kLanes), T{-7}),
        degrees(static_cast<std::size_t>(graph.n)),
        values(kLanes),
        residuals(kLanes) {
    Philox start(92, 0, 0);
    for (T& value : basis) value = static_cast<T>(start.normal());
    Philox random(93, 0, 0);
    progress = update_eigenvectors(graph, accuracy, random, n_threads, basis.data(), degrees.data(),
                                   values.data(), residuals.data(), vectors.data());
  }
};

// Residuals by loops, and the gradient along one direction against a difference of eigenvalues.
template <class T>
void test_eigenvectors(bool two_colours) {
  Chain<T> chain(41, 37, 30, 0.2);
  const double tolerance = sizeof(T) == 4 ? 1e-5 : 1e-11;
  const Accuracy accuracy{3, tolerance, 500};
  const auto graph = chain.graph(two_colours);
  const Update<T> found(graph, accuracy, 1), again(graph, accuracy, 2);
  CHECK(found.progress.converged && !found.progress.broken);
  CHECK(found.values == again.values && found.vectors == again.vectors);
  CHECK(found.basis == again.basis && found.progress.n_products == again.progress.n_products);
  const std::int64_t n = chain.n;
  for (int c = 0; c < 3; ++c) {
    double wrong = 0, length = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      double sum = 0, degree = 0;
      for (std::int64_t j = 0; j < n; ++j) {
        degree += chain.full[static_cast<std::size_t>(i * n + j)];
        sum += chain.full[static_cast<std::size_t>(i * n + j)] * found.vectors[j * kLanes + c];
      }
      CHECK(std::abs(found.degrees[i] - degree) < 1e-4);
      // u = D^-1/2 v: M v - mu v = D^-1/2 (A u - mu D u).
      const double u = found.vectors[i * kLanes + c];
      wrong += std::pow(sum - found.values[c] * degree * u, 2) / degree;
      length += degree * u * u;
    }
    CHECK(std::abs(length - 1) < 10 * tolerance && std::sqrt(wrong) < 10 * tolerance);
    CHECK(found.values[c] > found.values[c + 1] && found.values[c] < 1);
  }
  if (sizeof(T) == 4) return;
  std::vector<T> first(chain.first.size()), second(chain.second.size());
  std::vector<double> slopes(kLanes, 0.0);
  slopes[0] = 1.5;
  slopes[2] = -0.5;
  eigenvalue_gradient(graph, slopes.data(), found.values.data(), found.vectors.data(), 2,
                      {first.data(), second.data()});
  const auto level = [&] {
    const Update<T> moved(chain.graph(two_colours), accuracy, 1);
    return -1.5 * moved.values[0] + 0.5 * moved.values[2];
  };
  for (const std::size_t at : {0U, 100U, 1000U}) {
    const T weight = chain.second[at];
    chain.second[at] = static_cast<T>(weight + 1e-4);
    const double above = level();
    chain.second[at] = static_cast<T>(weight - 1e-4);
    const double below = level();
    chain.second[at] = weight;
    CHECK(std::abs((above - below) / 2e-4 - second[at]) < 1e-6);
  }
}

// Without clusters eigenvalues are about 1 / sqrt(n): their squares must not look like zero.
void test_eigenvectors_of_wide_layers() {
  const Chain<float> chain(600, 1200, 600, 1.0);
  const Update<float> found(chain.graph(true), {1, 1e-3, 300}, 2);
  CHECK(found.progress.converged && found.values[0] > found.values[1] && found.values[1] > 0);
}

void test_eigenvectors_that_break() {
  const double none = std::numeric_limits<double>::quiet_NaN();
  for (const double wrong : {none, std::numeric_limits<double>::infinity()}) {
    for (const bool two_colours : {true, false}) {
      Chain<double> chain(41, 37, 30, 0.2);
      chain.first[5] = wrong;
      CHECK(Update<double>(chain.graph(two_colours), {3, 1e-6, 50}, 1).progress.broken);
      std::fill(chain.first.begin(), chain.first.end(), 0.0);
      std::fill(chain.second.begin(), chain.second.end(), 0.0);
      CHECK(Update<double>(chain.graph(two_colours), {3, 1e-6, 50}, 1).progress.broken);
    }
  }
  const Chain<double> small(41, 9, 30, 0.2);  // fewer vertices than vectors
  CHECK(Update<double>(small.graph(true), {3, 1e-6, 50}, 1).progress.broken);
}

template <class T>
void test_normalize_neurons() {
  for (const std::int64_t n_in : {1, 16, 37}) {
    const std::int64_t n = 5, n_rows = 3, width = 2;
    std::vector<T> incoming(static_cast<std::size_t>(n * n_in)), bias(n),
        outgoing(n_rows * n * width);
    Philox random(94, 0, 0);
    for (auto* values : {&incoming, &bias, &outgoing}) {
      for (T& value : *values) value = static_cast<T>(random.normal());
    }
    std::fill_n(incoming.begin() + 2 * n_in, n_in, T{0});
    bias[2] = 0;
    auto rows = incoming, shifts = bias, next = outgoing;
    normalize_neurons(rows.data(), n, n_in, shifts.data(), next.data(), n_rows, width, 2.0);
    for (std::int64_t i = 0; i < n; ++i) {
      double squares = static_cast<double>(bias[i]) * bias[i];
      for (std::int64_t j = 0; j < n_in; ++j) {
        squares += std::pow(static_cast<double>(incoming[i * n_in + j]), 2);
      }
      const double factor = squares > 0 ? 2 / std::sqrt(squares) : 1;
      CHECK(std::abs(shifts[i] - factor * bias[i]) < 1e-5);
      for (std::int64_t j = 0; j < n_in; ++j) {
        CHECK(std::abs(rows[i * n_in + j] - factor * incoming[i * n_in + j]) < 1e-5);
      }
      for (std::int64_t r = 0; r < n_rows; ++r) {
        for (std::int64_t m = 0; m < width; ++m) {
          const auto at = static_cast<std::size_t>((r * n + i) * width + m);
          CHECK(std::abs(next[at] - outgoing[at] / factor) < 1e-5);
        }
      }
    }
  }
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

// Dense and sparse, by sweeps alone and by Newton's method after a few: sums of scaled rows and
// columns are their numbers of entries, as nearly as rounding lets Newton's method find.
void test_sinkhorn() {
  const Matrix matrix(40, 30, 0.2, 3);
  const Csr csr(matrix);
  const std::vector<double> wide(matrix.values.begin(), matrix.values.end());
  const std::vector<double> values(csr.values.begin(), csr.values.end());
  const DenseBlock<double> dense{wide.data(), 40, 30};
  const SparseBlock<double, std::int32_t> sparse{csr.indptr.data(), csr.indices.data(),
                                                 values.data(), 40, 30};
  for (const SinkhornLimits& limits :
       {SinkhornLimits{1e-10, 5000, 0, 0}, SinkhornLimits{1e-12, 30, 100, 500}}) {
    std::vector<double> factors(70), same(70);
    CHECK(sinkhorn(dense, false, limits, factors.data()) <= 1e-8);
    CHECK(sinkhorn(sparse, false, limits, same.data()) <= 1e-8);
    std::vector<double> sums(70, 0.0), entries(70, 0.0);
    for (std::size_t row = 0; row < 40; ++row) {
      for (std::size_t column = 0; column < 30; ++column) {
        const double weight = wide[row * 30 + column];
        if (weight == 0) continue;
        const double scaled = weight * factors[row] * factors[40 + column];
        CHECK(std::abs(scaled / (weight * same[row] * same[40 + column]) - 1) < 1e-6);
        for (const std::size_t line : {row, 40 + column}) {
          sums[line] += scaled;
          entries[line] += 1;
        }
      }
    }
    for (std::size_t line = 0; line < 70; ++line) {
      CHECK(std::abs(sums[line] - entries[line]) <= 1e-8 * entries[line]);
    }
  }
}

// Everything that runs vectorized kernels.
void test_vectorized() {
  test_philox_known_answers();
  test_bounded_draws();
  test_permute();
  test_random_pattern();
  test_trade();
  test_sinkhorn();
  test_product<float>();
  test_product<double>();
  test_orthonormalize();
  test_kmeans();
  for (const bool two_colours : {true, false}) {
    test_eigenvectors<float>(two_colours);
    test_eigenvectors<double>(two_colours);
  }
  test_eigenvectors_that_break();
  test_normalize_neurons<float>();
  test_normalize_neurons<double>();
  test_eigenvectors_of_wide_layers();
}

}  // namespace

int main() {
  for (const std::string& name : instruction_sets()) {
    use_instruction_set(name);
    test_vectorized();
    std::printf("%s\n", name.c_str());
  }
  test_cut_and_degrees();
  test_links_and_squares();
  test_components();
  test_parallel_errors();
  std::printf("all kernel tests passed\n");
  return 0;
}
