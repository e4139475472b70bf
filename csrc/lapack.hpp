// The eigenproblem of a small dense matrix, by the LAPACK already loaded in the process.
#pragma once

#include <vector>

namespace ncut {

// LAPACK's dsyevd, with pointers to 32-bit integers as SciPy exports it.
using SymmetricSolver = void (*)(char* jobz, char* uplo, int* n, double* a, int* lda, double* w,
                                 double* work, int* lwork, int* iwork, int* liwork, int* info);

// Eigenvalues (n) of the symmetric `matrix` (n x n), descending, and orthonormal eigenvectors as
// the columns of `vectors` (n x n, row-major). Returns false if LAPACK fails. O(n^3).
bool symmetric_eigenpairs(SymmetricSolver solver, const std::vector<double>& matrix, int n,
                          std::vector<double>& values, std::vector<double>& vectors);

}  // namespace ncut
