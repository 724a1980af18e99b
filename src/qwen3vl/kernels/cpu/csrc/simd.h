// Vectors of float32, the same source for every instruction set: `Wide` is as wide as the flags of the file that includes
// this allow (8 or 16 lanes), `Vec8` has 8 lanes everywhere. Each lane is worked on alone, with one rounding an operation,
// so results do not depend on the width. Everything is in an unnamed namespace: files with other flags have their own.
#pragma once
#include <cmath>
#include <cstdint>

#include "half.h"

#if defined(__AVX2__) && defined(__FMA__)
#define QWEN3VL_AVX2 1
#include <immintrin.h>
#elif defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD)
#define QWEN3VL_NEON 1
#include <arm_neon.h>
#endif

namespace qwen3vl {
namespace {

#if defined(QWEN3VL_AVX2)

struct Vec8 {
  static constexpr int kLanes = 8;
  __m256 x;
  static Vec8 all(float value) { return {_mm256_set1_ps(value)}; }
  static Vec8 load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static Vec8 load(const uint16_t* p) {  // bfloat16
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16))};
  }
  static Vec8 load(const int8_t* p) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes))};
  }
  void store(float* p) const { _mm256_storeu_ps(p, x); }
};
inline Vec8 operator+(Vec8 a, Vec8 b) { return {_mm256_add_ps(a.x, b.x)}; }
inline Vec8 operator-(Vec8 a, Vec8 b) { return {_mm256_sub_ps(a.x, b.x)}; }
inline Vec8 operator*(Vec8 a, Vec8 b) { return {_mm256_mul_ps(a.x, b.x)}; }
inline Vec8 fma(Vec8 a, Vec8 b, Vec8 c) { return {_mm256_fmadd_ps(a.x, b.x, c.x)}; }
inline Vec8 max(Vec8 a, Vec8 b) { return {_mm256_max_ps(a.x, b.x)}; }
inline Vec8 where_less(Vec8 a, Vec8 b, Vec8 yes, Vec8 no) {
  return {_mm256_blendv_ps(no.x, yes.x, _mm256_cmp_ps(a.x, b.x, _CMP_LT_OQ))};
}
inline Vec8 add_to_exponent(Vec8 value, Vec8 shifted) {
  const __m256i steps = _mm256_slli_epi32(_mm256_castps_si256(shifted.x), 23);
  return {_mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(value.x), steps))};
}

#elif defined(QWEN3VL_NEON)

struct Vec8 {
  static constexpr int kLanes = 8;
  float32x4_t low, high;
  static Vec8 all(float value) { return {vdupq_n_f32(value), vdupq_n_f32(value)}; }
  static Vec8 load(const float* p) { return {vld1q_f32(p), vld1q_f32(p + 4)}; }
  static Vec8 load(const uint16_t* p) {  // bfloat16
    const uint16x8_t half = vld1q_u16(p), zero = vdupq_n_u16(0);
    return {vreinterpretq_f32_u16(vzip1q_u16(zero, half)), vreinterpretq_f32_u16(vzip2q_u16(zero, half))};
  }
  static Vec8 load(const int8_t* p) {
    const int16x8_t words = vmovl_s8(vld1_s8(p));
    return {vcvtq_f32_s32(vmovl_s16(vget_low_s16(words))), vcvtq_f32_s32(vmovl_high_s16(words))};
  }
  void store(float* p) const {
    vst1q_f32(p, low);
    vst1q_f32(p + 4, high);
  }
};
inline Vec8 operator+(Vec8 a, Vec8 b) { return {vaddq_f32(a.low, b.low), vaddq_f32(a.high, b.high)}; }
inline Vec8 operator-(Vec8 a, Vec8 b) { return {vsubq_f32(a.low, b.low), vsubq_f32(a.high, b.high)}; }
inline Vec8 operator*(Vec8 a, Vec8 b) { return {vmulq_f32(a.low, b.low), vmulq_f32(a.high, b.high)}; }
inline Vec8 fma(Vec8 a, Vec8 b, Vec8 c) { return {vfmaq_f32(c.low, a.low, b.low), vfmaq_f32(c.high, a.high, b.high)}; }
inline Vec8 where_less(Vec8 a, Vec8 b, Vec8 yes, Vec8 no) {
  return {vbslq_f32(vcltq_f32(a.low, b.low), yes.low, no.low), vbslq_f32(vcltq_f32(a.high, b.high), yes.high, no.high)};
}
inline Vec8 max(Vec8 a, Vec8 b) { return where_less(b, a, a, b); }  // with NaN, vmaxq_f32 gives something else
inline float32x4_t add_to_exponent(float32x4_t value, float32x4_t shifted) {
  const int32x4_t steps = vshlq_n_s32(vreinterpretq_s32_f32(shifted), 23);
  return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(value), steps));
}
inline Vec8 add_to_exponent(Vec8 value, Vec8 shifted) {
  return {add_to_exponent(value.low, shifted.low), add_to_exponent(value.high, shifted.high)};
}

#else

struct Vec8 {
  static constexpr int kLanes = 8;
  float x[8];
  template <typename F>
  static Vec8 each(F f) {
    Vec8 out;
    for (int i = 0; i < 8; ++i) out.x[i] = f(i);
    return out;
  }
  static Vec8 all(float value) {
    return each([&](int) { return value; });
  }
  static Vec8 load(const float* p) {
    return each([&](int i) { return p[i]; });
  }
  static Vec8 load(const uint16_t* p) {  // bfloat16
    return each([&](int i) { return bf16_to_float(p[i]); });
  }
  static Vec8 load(const int8_t* p) {
    return each([&](int i) { return float(p[i]); });
  }
  void store(float* p) const {
    for (int i = 0; i < 8; ++i) p[i] = x[i];
  }
};
inline Vec8 operator+(Vec8 a, Vec8 b) {
  return Vec8::each([&](int i) { return a.x[i] + b.x[i]; });
}
inline Vec8 operator-(Vec8 a, Vec8 b) {
  return Vec8::each([&](int i) { return a.x[i] - b.x[i]; });
}
inline Vec8 operator*(Vec8 a, Vec8 b) {
  return Vec8::each([&](int i) { return a.x[i] * b.x[i]; });
}
inline Vec8 fma(Vec8 a, Vec8 b, Vec8 c) {
  return Vec8::each([&](int i) { return std::fma(a.x[i], b.x[i], c.x[i]); });
}
inline Vec8 max(Vec8 a, Vec8 b) {
  return Vec8::each([&](int i) { return a.x[i] > b.x[i] ? a.x[i] : b.x[i]; });
}
inline Vec8 where_less(Vec8 a, Vec8 b, Vec8 yes, Vec8 no) {
  return Vec8::each([&](int i) { return a.x[i] < b.x[i] ? yes.x[i] : no.x[i]; });
}
inline Vec8 add_to_exponent(Vec8 value, Vec8 shifted) {
  return Vec8::each([&](int i) { return float_of(bits_of(value.x[i]) + (bits_of(shifted.x[i]) << 23)); });
}

#endif

#if defined(QWEN3VL_AVX2) && defined(__AVX512F__) && defined(__AVX512DQ__)

struct Vec16 {
  static constexpr int kLanes = 16;
  __m512 x;
  static Vec16 all(float value) { return {_mm512_set1_ps(value)}; }
  static Vec16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
  void store(float* p) const { _mm512_storeu_ps(p, x); }
};
inline Vec16 operator+(Vec16 a, Vec16 b) { return {_mm512_add_ps(a.x, b.x)}; }
inline Vec16 operator-(Vec16 a, Vec16 b) { return {_mm512_sub_ps(a.x, b.x)}; }
inline Vec16 operator*(Vec16 a, Vec16 b) { return {_mm512_mul_ps(a.x, b.x)}; }
inline Vec16 fma(Vec16 a, Vec16 b, Vec16 c) { return {_mm512_fmadd_ps(a.x, b.x, c.x)}; }
inline Vec16 max(Vec16 a, Vec16 b) { return {_mm512_max_ps(a.x, b.x)}; }
inline Vec16 where_less(Vec16 a, Vec16 b, Vec16 yes, Vec16 no) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.x, b.x, _CMP_LT_OQ), no.x, yes.x)};
}
inline Vec16 add_to_exponent(Vec16 value, Vec16 shifted) {
  const __m512i steps = _mm512_slli_epi32(_mm512_castps_si512(shifted.x), 23);
  return {_mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(value.x), steps))};
}
using Wide = Vec16;

#else
using Wide = Vec8;
#endif

// 2 ** t for t <= 0, off by at most 1.7e-7 of its value (all float32 numbers down to -125 were tried); 0 below -125. NaN
// stays NaN, 2 ** 0 is exactly 1. t = n + f with |f| <= 1/2; 2 ** f is a polynomial fitted to least relative error. Adding
// 1.5 * 2 ** 23 rounds to an integer, whose low bits are then the lowest of the sum.
template <typename V>
inline V exp2_of(V t) {
  const V shift = V::all(12582912.0f), shifted = t + shift, f = t - (shifted - shift);
  V p = V::all(1.3211603509262204e-3f);
  p = fma(p, f, V::all(9.671293199062347e-3f));
  p = fma(p, f, V::all(5.550900101661682e-2f));
  p = fma(p, f, V::all(2.402225285768509e-1f));
  p = fma(p, f, V::all(6.931468844413757e-1f));
  p = fma(p, f, V::all(1.0f));
  return where_less(t, V::all(-125.0f), V::all(0.0f), add_to_exponent(p, shifted));
}

}  // namespace
}  // namespace qwen3vl
