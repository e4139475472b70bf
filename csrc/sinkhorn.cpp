#include "sinkhorn.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace ncut {
namespace {

using Vector = std::vector<double>;

// Rows of a product between two polls.
constexpr std::int64_t kRowsAtOnce = 1024;

double dot(const Vector& a, const Vector& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// The largest relative difference from the wanted sums, where these are non-zero.
double deviation(const Vector& sums, const Vector& wanted) {
  double worst = 0;
  for (std::size_t i = 0; i < sums.size(); ++i) {
    if (!(wanted[i] > 0)) continue;
    const double one = std::abs(sums[i] / wanted[i] - 1);
    worst = one <= worst ? worst : one;  // a NaN stays
  }
  return worst;
}

// The symmetric matrix A = [0 M; M' 0], or M + M', to be scaled as x A x.
template <class Block>
class System {
 public:
  System(const Block& block, bool triangle, Poll poll)
      : block_(block),
        first_column_(triangle ? 0 : static_cast<std::size_t>(block.n_rows)),
        poll_(std::move(poll)) {
    wanted.resize(first_column_ + static_cast<std::size_t>(block.n_cols));
    for (std::int64_t row = 0; row < block.n_rows; ++row) {
      for (std::int64_t at = 0; at < block.row_length(row); ++at) {
        if (!(block.weight(row, at) > 0)) continue;
        wanted[static_cast<std::size_t>(row)] += 1;
        wanted[first_column_ + static_cast<std::size_t>(block.column(row, at))] += 1;
      }
    }
  }

  Vector apply(const Vector& x) const {
    Vector out(x.size(), 0.0);
    add_to_rows(x, out);
    add_to_columns(x, out);
    return out;
  }

  // Factors of the columns from those of the rows, then of the rows, unless they are right.
  bool sweep(const SinkhornLimits& limits, Vector& x) const {
    Vector sums(x.size(), 0.0);
    add_to_columns(x, sums);
    update(first_column_, x.size(), sums, x);
    add_to_rows(x, sums);
    double worst = 0;
    for (std::size_t row = 0; row < first_column_; ++row) {
      if (sums[row] > 0) worst = std::max(worst, std::abs(x[row] * sums[row] / wanted[row] - 1));
    }
    if (worst <= limits.tolerance) return true;
    update(0, first_column_, sums, x);
    return false;
  }

  // The same for the vertices of a symmetric matrix, all at once.
  void symmetric_sweep(Vector& x) const {
    const Vector sums = apply(x);
    for (std::size_t i = 0; i < x.size(); ++i) {
      if (sums[i] > 0) x[i] *= std::sqrt(wanted[i] / (x[i] * sums[i]));
    }
  }

  Vector wanted;  // numbers of entries

 private:
  // M x of the columns' factors, and M' x of the rows'.
  void add_to_rows(const Vector& x, Vector& out) const {
    const double* from = x.data() + first_column_;
    for (std::int64_t row = 0; row < block_.n_rows; ++row) {
      if (row % kRowsAtOnce == 0 && poll_) poll_();
      const std::int64_t n = block_.row_length(row);
      double sums[4] = {};  // additions that do not wait for each other
      std::int64_t at = 0;
      for (; at + 4 <= n; at += 4) {
        for (int lane = 0; lane < 4; ++lane) {
          sums[lane] += block_.weight(row, at + lane) * from[block_.column(row, at + lane)];
        }
      }
      for (; at < n; ++at) sums[0] += block_.weight(row, at) * from[block_.column(row, at)];
      out[static_cast<std::size_t>(row)] += (sums[0] + sums[1]) + (sums[2] + sums[3]);
    }
  }

  void add_to_columns(const Vector& x, Vector& out) const {
    double* to = out.data() + first_column_;
    for (std::int64_t row = 0; row < block_.n_rows; ++row) {
      const double factor = x[static_cast<std::size_t>(row)];
      const std::int64_t n = block_.row_length(row);
      for (std::int64_t at = 0; at < n; ++at) {
        to[block_.column(row, at)] += block_.weight(row, at) * factor;
      }
    }
  }

  void update(std::size_t first, std::size_t end, const Vector& sums, Vector& x) const {
    for (std::size_t i = first; i < end; ++i) x[i] = sums[i] > 0 ? wanted[i] / sums[i] : 1.0;
  }

  const Block& block_;
  std::size_t first_column_;
  Poll poll_;
};

// (diagonal + X A X) y = right by conjugate gradients, preconditioned by the diagonal.
template <class Block>
Vector solved(const System<Block>& system, const Vector& x, const Vector& diagonal, Vector right,
              std::int64_t max_products) {
  const auto preconditioned = [&](const Vector& left) {
    Vector scaled(left.size());
    for (std::size_t i = 0; i < left.size(); ++i) {
      scaled[i] = diagonal[i] > 0 ? left[i] / diagonal[i] : 0.0;
    }
    return scaled;
  };
  Vector solution(x.size(), 0.0), scaled = preconditioned(right), direction = scaled;
  Vector product(x.size());
  double rho = dot(right, scaled);
  // Near the end rounding leaves `right` a part that no solution has, which conjugate gradients
  // would magnify in search of more digits; and the next step of Newton's method finds those.
  const double goal = 1e-6 * rho;
  for (std::int64_t n = 0; n < max_products && rho > goal && rho != 0; ++n) {
    for (std::size_t i = 0; i < x.size(); ++i) product[i] = x[i] * direction[i];
    Vector image = system.apply(product);
    for (std::size_t i = 0; i < x.size(); ++i) {
      image[i] = diagonal[i] * direction[i] + x[i] * image[i];
    }
    const double curvature = dot(direction, image);
    if (!(curvature > 0)) break;
    for (std::size_t i = 0; i < x.size(); ++i) {
      solution[i] += rho / curvature * direction[i];
      right[i] -= rho / curvature * image[i];
    }
    scaled = preconditioned(right);
    const double before = rho;
    rho = dot(right, scaled);
    for (std::size_t i = 0; i < x.size(); ++i) {
      direction[i] = scaled[i] + rho / before * direction[i];
    }
  }
  return solution;
}

template <class Block>
Vector sums_of(const System<Block>& system, const Vector& x) {
  Vector sums = system.apply(x);
  for (std::size_t i = 0; i < x.size(); ++i) sums[i] *= x[i];
  return sums;
}

template <class Block>
double newton(const System<Block>& system, const SinkhornLimits& limits, Vector& x) {
  Vector sums = sums_of(system, x);
  double now = deviation(sums, system.wanted);
  for (std::int64_t step = 0; step < limits.max_steps && !(now <= limits.tolerance); ++step) {
    Vector right(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) right[i] = system.wanted[i] - sums[i];
    const Vector direction = solved(system, x, sums, right, limits.max_products);
    double size = 0;
    for (const double one : direction) size = std::max(size, std::abs(one));
    double length = size > 2 ? 2 / size : 1.0;
    bool better = false;
    for (int halving = 0; halving < 20 && !better; ++halving, length /= 2) {
      Vector tried(x.size());
      for (std::size_t i = 0; i < x.size(); ++i) tried[i] = x[i] * std::exp(length * direction[i]);
      Vector tried_sums = sums_of(system, tried);
      const double found = deviation(tried_sums, system.wanted);
      if (found < now) {
        x.swap(tried);
        sums.swap(tried_sums);
        now = found;
        better = true;
      }
    }
    if (!better) break;
  }
  return now;
}

}  // namespace

template <class Block>
double sinkhorn(const Block& block, bool triangle, const SinkhornLimits& limits, double* factors) {
  const System<Block> system(block, triangle, limits.poll);
  Vector x(system.wanted.size(), 1.0);
  for (std::int64_t n = 0; n < limits.max_sweeps; ++n) {
    if (triangle) {
      system.symmetric_sweep(x);
    } else if (system.sweep(limits, x)) {
      break;
    }
  }
  const double left = newton(system, limits, x);
  std::copy(x.begin(), x.end(), factors);
  return left;
}

template double sinkhorn(const DenseBlock<double>&, bool, const SinkhornLimits&, double*);
template double sinkhorn(const SparseBlock<double, std::int32_t>&, bool, const SinkhornLimits&,
                         double*);
template double sinkhorn(const SparseBlock<double, std::int64_t>&, bool, const SinkhornLimits&,
                         double*);

}  // namespace ncut
