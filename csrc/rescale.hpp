// Rescaling of the neurons of a layer, which leaves what a network computes as it is.
#pragma once

#include <cstdint>

namespace ncut {

// Multiplies each row of `incoming` (n x n_in), and its entry of `bias` (n, may be null), so that
// the two together have the norm given, and divides what reads it by the same factor: the `width`
// columns from i * width of `outgoing` (n_rows x n * width). Rows of norm zero, and those that have
// the norm to rounding, stay as they are. Whether anything was changed.
// O(n (n_in + n_rows * width)).
template <class T>
bool normalize_neurons(T* incoming, std::int64_t n, std::int64_t n_in, T* bias, T* outgoing,
                       std::int64_t n_rows, std::int64_t width, double norm);

}  // namespace ncut
