#include "product.hpp"

#include <algorithm>

#include "kernels.hpp"
#include "parallel.hpp"

namespace ncut {

template <class W, class I, class T>
void multiply(const SymmetricMatrix<W, I>& matrix, const T* x, std::int64_t width, const T* scale,
              std::int64_t first, std::int64_t last, T* y, int n_threads) {
  const auto panel = std::get<Panel<W, I, T>>(kernels().panels);
  const std::int64_t n_panels = (last - first + kPanel - 1) / kPanel;
  parallel_for(n_panels, n_threads, [&](std::int64_t number) {
    const std::int64_t begin = first + number * kPanel;
    panel(matrix, x, width, scale, begin, std::min(begin + kPanel, last), y);
  });
}

// clang-format off
#define NCUT_EACH_TYPE(F)                                             \
  F(float, std::int32_t, float)     F(float, std::int64_t, float)     \
  F(float, std::int32_t, double)    F(float, std::int64_t, double)    \
  F(double, std::int32_t, float)    F(double, std::int64_t, float)    \
  F(double, std::int32_t, double)   F(double, std::int64_t, double)   \
  F(Half, std::int32_t, float)      F(Half, std::int64_t, float)      \
  F(Half, std::int32_t, double)     F(Half, std::int64_t, double)     \
  F(BFloat16, std::int32_t, float)  F(BFloat16, std::int64_t, float)  \
  F(BFloat16, std::int32_t, double) F(BFloat16, std::int64_t, double) \
  F(Magnitude<float>, std::int32_t, float)                            \
  F(Magnitude<double>, std::int32_t, double)
// clang-format on
#define NCUT_MULTIPLY(W, I, T)                                                           \
  template void multiply(const SymmetricMatrix<W, I>&, const T*, std::int64_t, const T*, \
                         std::int64_t, std::int64_t, T*, int);
NCUT_EACH_TYPE(NCUT_MULTIPLY)
#undef NCUT_MULTIPLY

}  // namespace ncut
