// Orthonormalization of a block of kLanes vectors against others, for block Lanczos.
#pragma once

#include <cstdint>

namespace ncut {

// Writes to `out` (n x kLanes) an orthonormal basis of what is left of `block` (n x kLanes) after
// projection out of the span of the first m columns of `against` (n x stride, orthonormal), and to
// `factor` (kLanes x kLanes) the triangle R with block = out R + a part in that span. `inside`
// (m x kLanes) is against' block, and is overwritten. All row-major.
//
// Projects and normalizes by Cholesky of the Gram matrix (in double precision) until a pass
// changes little, at least twice. Returns false, with `out` undefined, if the block is
// rank-deficient, so that Cholesky is unreliable. O(n m) a pass.
template <class T>
bool orthonormalize(const T* block, const T* against, std::int64_t n, std::int64_t m,
                    std::int64_t stride, T* inside, T* out, double* factor);

}  // namespace ncut
