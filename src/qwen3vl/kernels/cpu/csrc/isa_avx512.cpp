// AVX-512 with VNNI. Compiled with those flags alone; called only where the CPU has them.
#include "kernels.h"

#if defined(__AVX512VNNI__)
#include <immintrin.h>

#include <cstring>

namespace qwen3vl {
namespace {

inline __m512i broadcast4(const int8_t* q) {
  int32_t four;
  std::memcpy(&four, q, 4);
  return _mm512_set1_epi32(four);
}

// Sixteen rows (a tile) times R tokens. vpdpbusd adds four products in 32 bits, without saturation.
template <int Bits, int R>
inline void tokens(const uint8_t* weights, const Activations& x, int64_t token, float* out) {
  const __m512i mask = _mm512_set1_epi8(15);
  __m512 sum[R];
  for (int m = 0; m < R; ++m) sum[m] = _mm512_setzero_ps();
  const int8_t* q = x.q + token * x.k;
  const float* scale = x.scale + token * x.groups;
  const int32_t* shift = x.shift + token * x.groups;
  for (int64_t g = 0; g < x.groups; ++g, weights += block_bytes(Bits), q += kGroup, ++scale, ++shift) {
    const uint8_t* values = weights + kTile * 2;
    __m512i dot[R];
    for (int m = 0; m < R; ++m) dot[m] = _mm512_set1_epi32(-shift[m * x.groups]);
    for (int v = 0; v < Bits; ++v) {  // 4 lines of int4, 8 lines of int8
      const __m512i raw = _mm512_loadu_si512(values + v * kLine);
      if (Bits == 4) {
        const __m512i low = _mm512_and_si512(raw, mask), high = _mm512_and_si512(_mm512_srli_epi16(raw, 4), mask);
        for (int m = 0; m < R; ++m) {
          const int8_t* four = q + m * x.k + 4 * v;
          dot[m] = _mm512_dpbusd_epi32(dot[m], low, broadcast4(four));
          dot[m] = _mm512_dpbusd_epi32(dot[m], high, broadcast4(four + 16));
        }
      } else {
        for (int m = 0; m < R; ++m) dot[m] = _mm512_dpbusd_epi32(dot[m], raw, broadcast4(q + m * x.k + 4 * v));
      }
    }
    const __m512 weight_scale = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights)));
    for (int m = 0; m < R; ++m) {
      const __m512 factor = _mm512_mul_ps(weight_scale, _mm512_set1_ps(scale[m * x.groups]));
      sum[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[m]), factor, sum[m]);
    }
  }
  for (int m = 0; m < R; ++m) _mm512_storeu_ps(out + m * kTile, sum[m]);
}

template <int Bits>
void tile(const uint8_t* weights, const Activations& x, int64_t first, int count, float* out) {
  int m = 0;
  for (; m + 8 <= count; m += 8) tokens<Bits, 8>(weights, x, first + m, out + m * kTile);
  if (count - m >= 4) {
    tokens<Bits, 4>(weights, x, first + m, out + m * kTile);
    m += 4;
  }
  if (count - m >= 2) {
    tokens<Bits, 2>(weights, x, first + m, out + m * kTile);
    m += 2;
  }
  if (m < count) tokens<Bits, 1>(weights, x, first + m, out + m * kTile);
}

}  // namespace

const Kernels* avx512_kernels() {
  static const Kernels table = {"avx512", tile<4>, tile<8>, nullptr, nullptr, avx2_kernels()->quantize,
                                avx2_kernels()->rows, avx2_kernels()->pack_group};
  return &table;
}
bool cpu_has_avx512() {
  return cpu_has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}

}  // namespace qwen3vl

#else
namespace qwen3vl {
const Kernels* avx512_kernels() { return nullptr; }
bool cpu_has_avx512() { return false; }
}  // namespace qwen3vl
#endif
