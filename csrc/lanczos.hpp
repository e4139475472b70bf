// Spectral embeddings of layered networks by block Lanczos, without Python.
#pragma once

#include <cstdint>
#include <vector>

#include "lapack.hpp"
#include "network.hpp"

namespace ncut {

struct LanczosOptions {
  SymmetricSolver solver;
  double tolerance;  // of |M u - mu u|
  int max_products;
};

// The eigenvectors of M for its k largest eigenvalues, k <= 16, as points.
struct Spectrum {
  std::vector<double> values;     // (k), descending
  std::vector<double> residuals;  // R' R (k x k) for the residuals R of the eigenvectors
  std::vector<double> points;     // D^-1/2 u, (n x k) in the network's numbering
  std::int64_t n_known;           // of them, eigenvectors of the components
  double following;               // an estimate from below of the next eigenvalue
};

// Returns whether the embedding was found. The known eigenvectors, one per connected component, are
// locked; `start` has the numbers of the start block (at least n_side * 16).
//
// The same steps as `spectral.embedding.embed` with block Lanczos in float32, which is the
// reference and takes over if this returns false: no component of notable volume, vertices with
// almost no weight, a rank-deficient block.
bool embed(const PlacedNetwork& network, const std::vector<std::int64_t>& component, std::int64_t k,
           const float* start, const LanczosOptions& options, int n_threads, Spectrum& spectrum);

}  // namespace ncut
