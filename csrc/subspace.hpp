// The leading eigenvectors of a network's normalized adjacency matrix, updated while its weights
// change.
#pragma once

#include <cstdint>
#include <vector>

#include "magnitude.hpp"
#include "product.hpp"
#include "rng.hpp"

namespace ncut {

// A graph of signed weights, n vertices. If the layers have two colours, the n_first vertices of
// one colour come first, and every block joins the two colours; else n_first is 0.
template <class T>
struct WeightedGraph {
  std::vector<PlacedBlock<Magnitude<T>>> blocks;
  std::int64_t n, n_first;

  bool bipartite() const { return n_first > 0; }
  // The vertices whose part of the eigenvectors is iterated.
  std::int64_t n_side() const { return n - n_first; }
};

struct Accuracy {
  std::int64_t n_wanted;  // eigenvectors whose residuals count, besides the constant one
  double tolerance;       // of |M v - mu v|
  int max_products;
};

struct Progress {
  int n_products;
  bool converged;
  bool broken;  // the basis lost its rank or held NaN: start anew from random vectors
};

// Moves `basis` (n_side x 16), start vectors that span roughly the eigenvectors of
// M = D^-1/2 A D^-1/2 for its largest eigenvalues but the first, closer to them, until the
// residuals of the first n_wanted are small. Writes the degrees (n), the eigenvalues mu and their
// residuals (16 each, descending), and D^-1/2 v for the unit eigenvectors v as rows of `vectors`
// (n x 16). Vertices without edges have zero rows.
//
// Subspace iteration with a Chebyshev filter and a Rayleigh-Ritz step in each iteration, on C'C if
// M = [[0, C], [C', 0]]. The first eigenvector, D^1/2 1, is known and projected out. The last start
// vector is redrawn, so that no direction stays unseen. Between two training steps a filter of
// degree 1 suffices: one or two products with the weights in total.
// Cost: 64 flops per weight and product, O(n) else.
// Source: Zhou, Saad, Tiago, Chelikowsky (2006), Self-consistent-field calculations using
// Chebyshev-filtered subspace iteration.
template <class T>
Progress update_eigenvectors(const WeightedGraph<T>& graph, const Accuracy& accuracy,
                             Philox& random, int n_threads, T* basis, double* degrees,
                             double* values, double* residuals, T* vectors);

// The gradient of L = sum_c slopes[c] lambda_c, lambda_c = 1 - values[c], for the weights of each
// block: slopes, values (16), vectors (n x 16) as above, gradients[b] of block b's shape.
//
// With u = D^-1/2 v: d lambda / d A_ij = (1 - lambda) (u_i^2 + u_j^2) - 2 u_i u_j for an undirected
// edge, times the sign of the weight. Cost: O(k) per weight for k slopes that are not zero.
// Source: Filan et al. (2021), Clusterability in Neural Networks, appendix A.9.
template <class T>
void eigenvalue_gradient(const WeightedGraph<T>& graph, const double* slopes, const double* values,
                         const T* vectors, int n_threads, const std::vector<T*>& gradients);

}  // namespace ncut
