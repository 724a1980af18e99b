// 64-bit Arm: NEON with dot products of bytes. Compiled with that extension alone; called only where the CPU has it.
#include "kernels.h"

#if defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#if defined(__linux__)
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

#include "pack_group.h"
#include "simd.h"

namespace qwen3vl {
namespace {

// R tokens, quantised: columns 0 to 15 and 16 to 31 of a group.
template <int R>
struct Columns {
  int8x16_t low[R], high[R];
};

// Line `Lane` of int4, rows 4 h .. 4 h + 3 in `dot[..][h]`. sdot multiplies each row's four bytes with the same four of a
// token, those of one lane: lane `Lane` of columns 0 to 15 goes with the low nibbles, that of 16 to 31 with the high ones.
template <int R, int Q, int Lane>
inline void line4(const uint8_t* values, const Columns<R>& x, int32x4_t (&dot)[R][Q]) {
  for (int h = 0; h < Q; ++h) {
    const uint8x16_t raw = vld1q_u8(values + Lane * kLine + 16 * h);
    const int8x16_t low = vreinterpretq_s8_u8(vandq_u8(raw, vdupq_n_u8(15)));
    const int8x16_t high = vreinterpretq_s8_u8(vshrq_n_u8(raw, 4));
    for (int m = 0; m < R; ++m) {
      dot[m][h] = vdotq_laneq_s32(dot[m][h], low, x.low[m], Lane);
      dot[m][h] = vdotq_laneq_s32(dot[m][h], high, x.high[m], Lane);
    }
  }
}

// Lines `Lane` and 4 + `Lane` of int8. sdot takes signed bytes: q + 128 with its highest bit turned over is q.
template <int R, int Q, int Lane>
inline void lines8(const uint8_t* values, const Columns<R>& x, int32x4_t (&dot)[R][Q]) {
  const uint8x16_t offset = vdupq_n_u8(128);
  for (int h = 0; h < Q; ++h) {
    const int8x16_t low = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(values + Lane * kLine + 16 * h), offset));
    const int8x16_t high = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(values + (4 + Lane) * kLine + 16 * h), offset));
    for (int m = 0; m < R; ++m) {
      dot[m][h] = vdotq_laneq_s32(dot[m][h], low, x.low[m], Lane);
      dot[m][h] = vdotq_laneq_s32(dot[m][h], high, x.high[m], Lane);
    }
  }
}

template <int Bits, int R, int Q, int Lane>
inline void lines(const uint8_t* values, const Columns<R>& x, int32x4_t (&dot)[R][Q]) {
  if (Bits == 4) line4<R, Q, Lane>(values, x, dot);
  if (Bits == 8) lines8<R, Q, Lane>(values, x, dot);
}

// 4 Q rows of a tile, from `row` on, times R tokens.
template <int Bits, int R, int Q>
inline void part(const uint8_t* weights, const Activations& x, int64_t token, int row, float* out) {
  float32x4_t sum[R][Q];
#pragma GCC unroll 4
  for (int m = 0; m < R; ++m)
#pragma GCC unroll 4
    for (int h = 0; h < Q; ++h) sum[m][h] = vdupq_n_f32(0);
  const int8_t* q = x.q + token * x.k;
  const float* scale = x.scale + token * x.groups;
  const int32_t* shift = x.shift + token * x.groups;
  for (int64_t g = 0; g < x.groups; ++g, weights += block_bytes(Bits), q += kGroup, ++scale, ++shift) {
    Columns<R> columns;
    int32x4_t dot[R][Q];
#pragma GCC unroll 4
    for (int m = 0; m < R; ++m) {
      columns.low[m] = vld1q_s8(q + m * x.k);
      columns.high[m] = vld1q_s8(q + m * x.k + 16);
      const int32x4_t start = vdupq_n_s32(Bits == 4 ? -shift[m * x.groups] : 0);
#pragma GCC unroll 4
      for (int h = 0; h < Q; ++h) dot[m][h] = start;
    }
    const uint8_t* values = weights + kTile * 2 + row * 4;
    lines<Bits, R, Q, 0>(values, columns, dot);
    lines<Bits, R, Q, 1>(values, columns, dot);
    lines<Bits, R, Q, 2>(values, columns, dot);
    lines<Bits, R, Q, 3>(values, columns, dot);
#pragma GCC unroll 4
    for (int h = 0; h < Q; ++h) {
      const float32x4_t weight_scale = vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(weights + 2 * row + 8 * h)));
#pragma GCC unroll 4
      for (int m = 0; m < R; ++m) {
        const float32x4_t factor = vmulq_n_f32(weight_scale, scale[m * x.groups]);
        sum[m][h] = vfmaq_f32(sum[m][h], vcvtq_f32_s32(dot[m][h]), factor);
      }
    }
  }
#pragma GCC unroll 4
  for (int m = 0; m < R; ++m)
#pragma GCC unroll 4
    for (int h = 0; h < Q; ++h) vst1q_f32(out + m * kTile + row + 4 * h, sum[m][h]);
}

// As many rows at a time as the registers hold sums for: 8 for four tokens, 16 for fewer.
template <int Bits>
void tile(const uint8_t* weights, const Activations& x, int64_t first, int count, float* out) {
  int m = 0;
  for (; m + 4 <= count; m += 4)
    for (int row = 0; row < kTile; row += 8) part<Bits, 4, 2>(weights, x, first + m, row, out + m * kTile);
  if (count - m >= 2) {
    part<Bits, 2, 4>(weights, x, first + m, 0, out + m * kTile);
    m += 2;
  }
  if (m < count) part<Bits, 1, 4>(weights, x, first + m, 0, out + m * kTile);
}

void quantize(const float* x, int64_t k, int offset, int8_t* q, float* scale, int32_t* shift) {
  for (int64_t g = 0; g < k / kGroup; ++g, x += kGroup, q += kGroup) {
    float32x4_t v[8], largest = vdupq_n_f32(0);
    for (int i = 0; i < 8; ++i) {
      v[i] = vld1q_f32(x + 4 * i);
      largest = vmaxnmq_f32(largest, vabsq_f32(v[i]));
    }
    const float peak = vmaxnmvq_f32(largest), inverse = peak > 1e-35f ? 127.0f / peak : 0.0f;
    int32x4_t total = vdupq_n_s32(0);
    for (int i = 0; i < 8; i += 2) {
      const int32x4_t a = vcvtnq_s32_f32(vmulq_n_f32(v[i], inverse));
      const int32x4_t b = vcvtnq_s32_f32(vmulq_n_f32(v[i + 1], inverse));
      total = vaddq_s32(total, vaddq_s32(a, b));
      vst1_s8(q + 4 * i, vmovn_s16(vcombine_s16(vmovn_s32(a), vmovn_s32(b))));
    }
    scale[g] = peak > 1e-35f ? peak / 127.0f : 0.0f;
    shift[g] = vaddvq_s32(total) * offset;
  }
}

inline float add_lanes8(Vec8 v) {
  float a[8];
  v.store(a);
  return add_lanes(a);
}

// R rows times T tokens. The order of a sum depends on K alone, so a token's result is the same in any company.
template <typename W, int R, int T>
inline void dot_block(const W* weights, int64_t row, const float* x, int64_t n, int64_t k, float* out) {
  Vec8 sum[R][T];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) sum[r][t] = Vec8::all(0);
  for (int64_t c = 0; c < k; c += 8) {
    Vec8 w[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) w[r] = Vec8::load(weights + (row + r) * k + c);
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) {
      const Vec8 v = Vec8::load(x + t * k + c);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) sum[r][t] = fma(w[r], v, sum[r][t]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) out[t * n + row + r] = add_lanes8(sum[r][t]);
}

template <typename W, int R>
inline void dot_tokens(const W* weights, int64_t row, const float* x, int64_t m, int64_t n, int64_t k, float* out) {
  int64_t t = 0;
  for (; t + 2 <= m; t += 2) dot_block<W, R, 2>(weights, row, x + t * k, n, k, out + t * n);
  if (t < m) dot_block<W, R, 1>(weights, row, x + t * k, n, k, out + t * n);
}

template <typename W>
void dot_rows(const void* weights, int64_t first, int64_t last, const float* x, int64_t m, int64_t n, int64_t k,
              float* out) {
  const W* from = static_cast<const W*>(weights);
  int64_t row = first;
  for (; row + 4 <= last; row += 4) dot_tokens<W, 4>(from, row, x, m, n, k, out);
  for (; row < last; ++row) dot_tokens<W, 1>(from, row, x, m, n, k, out);
}

void rows(const void* weights, bool is_bf16, int64_t first, int64_t last, const float* x, int64_t m, int64_t n,
          int64_t k, float* out) {
  (is_bf16 ? dot_rows<uint16_t> : dot_rows<float>)(weights, first, last, x, m, n, k, out);
}

const Kernels table = {"neon", tile<4>, tile<8>, nullptr, nullptr, quantize, rows, pack_group};

}  // namespace

const Kernels* neon_kernels() { return &table; }

bool cpu_has_neon() {
#if defined(__linux__)
  return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#elif defined(__APPLE__)
  int has = 0;
  size_t size = sizeof has;
  return sysctlbyname("hw.optional.arm.FEAT_DotProd", &has, &size, nullptr, 0) == 0 && has != 0;
#else
  return false;
#endif
}

}  // namespace qwen3vl

#else
namespace qwen3vl {
const Kernels* neon_kernels() { return nullptr; }
bool cpu_has_neon() { return false; }
}  // namespace qwen3vl
#endif
