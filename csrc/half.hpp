// 16-bit weights, widened on use.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "portable.hpp"

namespace ncut {

NCUT_INLINE float float_from_bits(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// IEEE 754 binary16.
struct Half {
  std::uint16_t bits;

  NCUT_INLINE operator float() const {
    const std::uint32_t magnitude = static_cast<std::uint32_t>(bits & 0x7fffU) << 13;
    const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000U) << 16;
    const std::uint32_t special = (bits & 0x7c00U) == 0x7c00U ? 0x7f800000U : 0U;
    // The factor shifts the exponent's bias, and normalizes subnormal numbers.
    const float value = float_from_bits(magnitude) * 0x1p112F;
    std::uint32_t widened;
    std::memcpy(&widened, &value, sizeof(widened));
    return float_from_bits(widened | sign | special);
  }
};

// The upper half of a float.
struct BFloat16 {
  std::uint16_t bits;

  NCUT_INLINE operator float() const {
    return float_from_bits(static_cast<std::uint32_t>(bits) << 16);
  }
};

// The type in which sums of products with such weights are stored in a matrix.
template <class W>
struct Wide {
  using type = W;
};
template <>
struct Wide<Half> {
  using type = float;
};
template <>
struct Wide<BFloat16> {
  using type = float;
};

template <class W>
constexpr bool is_narrow = !std::is_same_v<W, typename Wide<W>::type>;

}  // namespace ncut
