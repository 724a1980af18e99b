// Conversions between float32, float16 and bfloat16 without compiler extensions.
#pragma once
#include <cstdint>
#include <cstring>

namespace qwen3vl {

inline uint32_t bits_of(float x) {
  uint32_t u;
  std::memcpy(&u, &x, 4);
  return u;
}

inline float float_of(uint32_t u) {
  float x;
  std::memcpy(&x, &u, 4);
  return x;
}

inline float bf16_to_float(uint16_t h) { return float_of(uint32_t(h) << 16); }

inline float half_to_float(uint16_t h) {
  const uint32_t sign = uint32_t(h & 0x8000) << 16, exponent = (h >> 10) & 31, mantissa = h & 1023;
  if (exponent == 0) return float_of(sign | bits_of(mantissa * 5.9604644775390625e-08f));  // 2^-24: subnormal
  if (exponent == 31) return float_of(sign | 0x7f800000 | mantissa << 13);
  return float_of(sign | (exponent + 112) << 23 | mantissa << 13);
}

// Rounds to nearest, ties to even; what is too large becomes the largest finite value.
inline uint16_t float_to_half(float x) {
  const uint32_t u = bits_of(x), sign = (u >> 16) & 0x8000, magnitude = u & 0x7fffffff;
  if (magnitude >= 0x477ff000) return uint16_t(sign | 0x7bff);
  if (magnitude < 0x38800000) {  // subnormal in fp16: adding 0.5 aligns the mantissa and rounds
    const float shifted = float_of(magnitude) + 0.5f;
    return uint16_t(sign | (bits_of(shifted) - 0x3f000000));
  }
  const uint32_t rounded = magnitude + 0xfff + ((magnitude >> 13) & 1);
  return uint16_t(sign | ((rounded - 0x38000000) >> 13));
}

}  // namespace qwen3vl
