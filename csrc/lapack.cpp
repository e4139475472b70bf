#include "lapack.hpp"

#include <cmath>

namespace ncut {

bool symmetric_eigenpairs(SymmetricSolver solver, const std::vector<double>& matrix, int n,
                          std::vector<double>& values, std::vector<double>& vectors) {
  const auto size = static_cast<std::size_t>(n);
  std::vector<double> a = matrix, ascending(size);
  std::vector<double> work(1 + 6 * size + 2 * size * size);
  std::vector<int> iwork(3 + 5 * size);
  char with_vectors = 'V', lower = 'L';
  int n_work = static_cast<int>(work.size()), n_iwork = static_cast<int>(iwork.size()), info = 0;
  solver(&with_vectors, &lower, &n, a.data(), &n, ascending.data(), work.data(), &n_work,
         iwork.data(), &n_iwork, &info);
  if (info != 0) return false;
  values.resize(size);
  vectors.resize(size * size);
  for (std::size_t c = 0; c < size; ++c) {
    // LAPACK's columns are rows here.
    const std::size_t from = size - 1 - c;
    values[c] = ascending[from];
    if (!std::isfinite(values[c])) return false;
    for (std::size_t r = 0; r < size; ++r) vectors[r * size + c] = a[from * size + r];
  }
  return true;
}

}  // namespace ncut
