// What simd.h's vectors of 8 lanes need besides, to leave float32: roundings to bfloat16 and int8, ends of rows.
#pragma once
#include <algorithm>
#include <cstring>

#include "simd.h"

namespace qwen3vl {
namespace {

#if defined(QWEN3VL_AVX2)

inline Vec8 operator/(Vec8 a, Vec8 b) { return {_mm256_div_ps(a.x, b.x)}; }
inline Vec8 magnitude(Vec8 a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.x)}; }
inline void store(float* p, Vec8 value) { value.store(p); }
// To nearest, ties to even; NaN stays NaN.
inline void store(uint16_t* p, Vec8 value) {
  const __m256i u = _mm256_castps_si256(value.x), odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  __m256i r = _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd), 16);
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(value.x, value.x, _CMP_UNORD_Q));
  r = _mm256_blendv_epi8(r, _mm256_set1_epi32(0x7fc0), nan);
  r = _mm256_permute4x64_epi64(_mm256_packus_epi32(r, r), 0xd8);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(r));
}
// To nearest, ties to even; must be within [-127, 127].
inline void store(int8_t* p, Vec8 value) {
  const __m256i r = _mm256_cvtps_epi32(value.x);
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(words, words));
}

#elif defined(QWEN3VL_NEON)

inline Vec8 operator/(Vec8 a, Vec8 b) { return {vdivq_f32(a.low, b.low), vdivq_f32(a.high, b.high)}; }
inline Vec8 magnitude(Vec8 a) { return {vabsq_f32(a.low), vabsq_f32(a.high)}; }
inline void store(float* p, Vec8 value) { value.store(p); }
// To nearest, ties to even; NaN stays NaN.
inline uint16x4_t bf16_of(float32x4_t value) {
  const uint32x4_t u = vreinterpretq_u32_f32(value), odd = vandq_u32(vshrq_n_u32(u, 16), vdupq_n_u32(1));
  const uint32x4_t r = vshrq_n_u32(vaddq_u32(vaddq_u32(u, vdupq_n_u32(0x7fff)), odd), 16);
  return vmovn_u32(vbslq_u32(vceqq_f32(value, value), r, vdupq_n_u32(0x7fc0)));
}
inline void store(uint16_t* p, Vec8 value) { vst1q_u16(p, vcombine_u16(bf16_of(value.low), bf16_of(value.high))); }
// To nearest, ties to even; must be within [-127, 127].
inline void store(int8_t* p, Vec8 value) {
  const int32x4_t low = vcvtnq_s32_f32(value.low), high = vcvtnq_s32_f32(value.high);
  vst1_s8(p, vmovn_s16(vcombine_s16(vmovn_s32(low), vmovn_s32(high))));
}

#else

inline Vec8 operator/(Vec8 a, Vec8 b) {
  return Vec8::each([&](int i) { return a.x[i] / b.x[i]; });
}
inline Vec8 magnitude(Vec8 a) {
  return Vec8::each([&](int i) { return std::fabs(a.x[i]); });
}
inline void store(float* p, Vec8 value) { value.store(p); }
inline void store(uint16_t* p, Vec8 value) {
  for (int i = 0; i < 8; ++i) {
    const uint32_t u = bits_of(value.x[i]);
    p[i] = value.x[i] != value.x[i] ? 0x7fc0 : uint16_t((u + 0x7fff + ((u >> 16) & 1)) >> 16);
  }
}
inline void store(int8_t* p, Vec8 value) {
  for (int i = 0; i < 8; ++i) p[i] = int8_t(std::nearbyint(value.x[i]));
}

#endif

// `count` values, at most 8; the other lanes are zeros.
template <typename T>
inline Vec8 load_some(const T* p, int64_t count) {
  if (count >= 8) return Vec8::load(p);
  T all[8] = {};
  std::memcpy(all, p, size_t(count) * sizeof(T));
  return Vec8::load(all);
}

template <typename T>
inline void store_some(T* p, int64_t count, Vec8 value) {
  if (count >= 8) return store(p, value);
  T all[8];
  store(all, value);
  std::memcpy(p, all, size_t(count) * sizeof(T));
}

// What a value is once it was kept as T.
template <typename T>
inline Vec8 rounded(Vec8 value) {
  if (sizeof(T) == sizeof(float)) return value;
  T all[8];
  store(all, value);
  return Vec8::load(all);
}

inline float add_lanes(Vec8 v) {
  float a[8];
  v.store(a);
  return ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]));
}

inline float max_lanes(Vec8 v) {
  float a[8];
  v.store(a);
  return std::max({a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]});
}

// 1 / (1 + exp(-x)), off by at most a few units in the last place; below -87 it is 0. With e = exp(-|x|), never large:
// 1 / (1 + e) for x >= 0, else e / (1 + e). |x| * log2(e) is taken in two parts, so that a large x keeps its accuracy.
inline Vec8 sigmoid(Vec8 x) {
  const Vec8 zero = Vec8::all(0), one = Vec8::all(1), y = zero - magnitude(x), high = Vec8::all(1.44269502f);
  const Vec8 t = y * high, rest = fma(y, high, zero - t) + y * Vec8::all(1.92596299e-8f);
  Vec8 e = exp2_of(t);
  e = fma(e, rest * Vec8::all(0.693147181f), e);  // 2 ** rest, rest being tiny
  e = where_less(t, Vec8::all(-125.0f), zero, e);
  return where_less(x, zero, e, one) / (one + e);
}

}  // namespace
}  // namespace qwen3vl
