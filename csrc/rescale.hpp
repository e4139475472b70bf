// Rescaling of a layer's neurons that preserves the network's function.
#pragma once

#include <cstdint>

namespace ncut {

// Multiplies each row of `incoming` (n x n_in), and its entry of `bias` (n, may be null), so that
// the two together have the given norm, and divides its readers by the same factor: the `width`
// columns from i * width of `outgoing` (n_rows x n * width). Rows of norm zero, and rows that
// already have the norm up to rounding, stay unchanged. Returns whether anything was changed. O(n
// (n_in + n_rows * width)).
template <class T>
bool normalize_neurons(T* incoming, std::int64_t n, std::int64_t n_in, T* bias, T* outgoing,
                       std::int64_t n_rows, std::int64_t width, double norm);

}  // namespace ncut
