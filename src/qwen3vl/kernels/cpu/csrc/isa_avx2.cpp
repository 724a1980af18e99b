// AVX2, FMA and F16C. Compiled with those flags alone; called only where the CPU has them.
#include "kernels.h"

#if defined(__AVX2__)
#include <immintrin.h>

#include <cstring>

#include "pack_group.h"

namespace qwen3vl {
namespace {

constexpr int64_t kAhead = 1024;  // bytes

inline __m256i broadcast4(const int8_t* q) {
  int32_t four;
  std::memcpy(&four, q, 4);
  return _mm256_set1_epi32(four);
}

struct Nibbles {
  __m256i low, high;
};

inline Nibbles nibbles(const uint8_t* bytes) {
  const __m256i mask = _mm256_set1_epi8(15), raw = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes));
  return {_mm256_and_si256(raw, mask), _mm256_and_si256(_mm256_srli_epi16(raw, 4), mask)};
}

// The dot products of one group: H halves of a tile (eight rows each; `values` points to the first) times R tokens.
//
// vpmaddubsw adds two products of an unsigned and a signed byte in 16 bits. With nibbles (at most 15) and activations of
// at most 127, eight such sums fit: 8 * 2 * 15 * 127 = 30,480. An int8 weight is therefore taken as two nibbles.
template <int R, int H>
inline void group4(const uint8_t* values, const int8_t* q, int64_t k, __m256i (&dot)[H][R]) {
  const __m256i ones = _mm256_set1_epi16(1);
  for (int h = 0; h < H; ++h)
    for (int m = 0; m < R; ++m) dot[h][m] = _mm256_setzero_si256();
#pragma GCC unroll 4
  for (int v = 0; v < 4; ++v) {
#pragma GCC unroll 2
    for (int h = 0; h < H; ++h) {
      const Nibbles weights = nibbles(values + v * kLine + h * 32);
      for (int m = 0; m < R; ++m) {
        const int8_t* four = q + m * k + 4 * v;
        dot[h][m] = _mm256_add_epi16(dot[h][m], _mm256_maddubs_epi16(weights.low, broadcast4(four)));
        dot[h][m] = _mm256_add_epi16(dot[h][m], _mm256_maddubs_epi16(weights.high, broadcast4(four + 16)));
      }
    }
  }
  for (int h = 0; h < H; ++h)
    for (int m = 0; m < R; ++m) dot[h][m] = _mm256_madd_epi16(dot[h][m], ones);
}

template <int R, int H>
inline void group8(const uint8_t* values, const int8_t* q, int64_t k, __m256i (&dot)[H][R]) {
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i upper[H][R];
  for (int h = 0; h < H; ++h)
    for (int m = 0; m < R; ++m) dot[h][m] = upper[h][m] = _mm256_setzero_si256();
#pragma GCC unroll 8
  for (int v = 0; v < 8; ++v) {
#pragma GCC unroll 2
    for (int h = 0; h < H; ++h) {
      const Nibbles weights = nibbles(values + v * kLine + h * 32);
      for (int m = 0; m < R; ++m) {
        const __m256i four = broadcast4(q + m * k + 4 * v);
        dot[h][m] = _mm256_add_epi16(dot[h][m], _mm256_maddubs_epi16(weights.low, four));
        upper[h][m] = _mm256_add_epi16(upper[h][m], _mm256_maddubs_epi16(weights.high, four));
      }
    }
  }
  for (int h = 0; h < H; ++h)
    for (int m = 0; m < R; ++m) {
      const __m256i times16 = _mm256_slli_epi32(_mm256_madd_epi16(upper[h][m], ones), 4);
      dot[h][m] = _mm256_add_epi32(_mm256_madd_epi16(dot[h][m], ones), times16);
    }
}

// H halves of a tile, from half `first` on, times R tokens. What comes next is asked for early: it lies in the next page,
// where the CPU's own reading ahead stops.
template <int Bits, int R, int H>
inline void part(const uint8_t* weights, const Activations& x, int64_t token, int first, float* out) {
  __m256 sum[H][R];
  for (int h = 0; h < H; ++h)
    for (int m = 0; m < R; ++m) sum[h][m] = _mm256_setzero_ps();
  const int8_t* q = x.q + token * x.k;
  const float* scale = x.scale + token * x.groups;
  const int32_t* shift = x.shift + token * x.groups;
  for (int64_t g = 0; g < x.groups; ++g, weights += block_bytes(Bits), q += kGroup, ++scale, ++shift) {
    __m256i dot[H][R];
    const uint8_t* values = weights + kTile * 2 + first * 32;
    if (R == 1)
      for (size_t at = 0; at < block_bytes(Bits); at += kLine)
        _mm_prefetch(reinterpret_cast<const char*>(values + kAhead + at), _MM_HINT_T0);
    Bits == 4 ? group4<R, H>(values, q, x.k, dot) : group8<R, H>(values, q, x.k, dot);
    for (int h = 0; h < H; ++h) {
      const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(weights + (first + h) * 16));
      const __m256 weight_scale = _mm256_cvtph_ps(halves);
      for (int m = 0; m < R; ++m) {
        const __m256i exact = _mm256_sub_epi32(dot[h][m], _mm256_set1_epi32(shift[m * x.groups]));
        const __m256 factor = _mm256_mul_ps(weight_scale, _mm256_set1_ps(scale[m * x.groups]));
        sum[h][m] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(exact), factor, sum[h][m]);
      }
    }
  }
  for (int h = 0; h < H; ++h)
    for (int m = 0; m < R; ++m) _mm256_storeu_ps(out + m * kTile + (first + h) * 8, sum[h][m]);
}

// A lone token's weights come from memory, which must not wait: both halves at once, so that the tile is read once.
// For more tokens the registers hold the sums of one half.
template <int Bits, int R>
inline void tokens(const uint8_t* weights, const Activations& x, int64_t token, float* out) {
  if (R == 1) return part<Bits, R, 2>(weights, x, token, 0, out);
  part<Bits, R, 1>(weights, x, token, 0, out);
  part<Bits, R, 1>(weights, x, token, 1, out);
}

template <int Bits>
void tile(const uint8_t* weights, const Activations& x, int64_t first, int count, float* out) {
  int m = 0;
  for (; m + 4 <= count; m += 4) tokens<Bits, 4>(weights, x, first + m, out + m * kTile);
  if (count - m >= 2) {
    tokens<Bits, 2>(weights, x, first + m, out + m * kTile);
    m += 2;
  }
  if (m < count) tokens<Bits, 1>(weights, x, first + m, out + m * kTile);
}

void quantize(const float* x, int64_t k, int offset, int8_t* q, float* scale, int32_t* shift) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  for (int64_t g = 0; g < k / kGroup; ++g, x += kGroup, q += kGroup) {
    __m256 v[4], largest = _mm256_setzero_ps();
    for (int i = 0; i < 4; ++i) {
      v[i] = _mm256_loadu_ps(x + 8 * i);
      largest = _mm256_max_ps(largest, _mm256_andnot_ps(sign, v[i]));
    }
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(largest), _mm256_extractf128_ps(largest, 1));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    const float peak = _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
    const __m256 inverse = _mm256_set1_ps(peak > 1e-35f ? 127.0f / peak : 0.0f);
    __m256i r[4], total = _mm256_setzero_si256();
    for (int i = 0; i < 4; ++i) {
      r[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], inverse));
      total = _mm256_add_epi32(total, r[i]);
    }
    const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(r[0], r[1]), _mm256_packs_epi32(r[2], r[3]));
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(q), _mm256_permutevar8x32_epi32(bytes, order));
    __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(total), _mm256_extracti128_si256(total, 1));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1));
    scale[g] = peak > 1e-35f ? peak / 127.0f : 0.0f;
    shift[g] = _mm_cvtsi128_si32(sum) * offset;
  }
}

template <bool Bf16>
inline __m256 load8(const void* weights, int64_t at) {
  if (!Bf16) return _mm256_loadu_ps(static_cast<const float*>(weights) + at);
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(static_cast<const uint16_t*>(weights) + at));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

inline float add_lanes8(__m256 v) {
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}

// R rows times T tokens. The order of a sum depends on K alone, so a token's result is the same in any company.
template <bool Bf16, int R, int T>
inline void dot_block(const void* weights, int64_t row, const float* x, int64_t n, int64_t k, float* out) {
  __m256 sum[R][T];
  for (int r = 0; r < R; ++r)
    for (int t = 0; t < T; ++t) sum[r][t] = _mm256_setzero_ps();
  for (int64_t c = 0; c < k; c += 8) {
    __m256 w[R];
    for (int r = 0; r < R; ++r) w[r] = load8<Bf16>(weights, (row + r) * k + c);
    for (int t = 0; t < T; ++t) {
      const __m256 v = _mm256_loadu_ps(x + t * k + c);
      for (int r = 0; r < R; ++r) sum[r][t] = _mm256_fmadd_ps(w[r], v, sum[r][t]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int t = 0; t < T; ++t) out[t * n + row + r] = add_lanes8(sum[r][t]);
}

template <bool Bf16, int R>
inline void dot_tokens(const void* weights, int64_t row, const float* x, int64_t m, int64_t n, int64_t k, float* out) {
  int64_t t = 0;
  for (; t + 4 <= m; t += 4) dot_block<Bf16, R, 4>(weights, row, x + t * k, n, k, out + t * n);
  for (; t < m; ++t) dot_block<Bf16, R, 1>(weights, row, x + t * k, n, k, out + t * n);
}

template <bool Bf16>
void dot_rows(const void* weights, int64_t first, int64_t last, const float* x, int64_t m, int64_t n, int64_t k,
              float* out) {
  int64_t row = first;
  for (; row + 3 <= last; row += 3) dot_tokens<Bf16, 3>(weights, row, x, m, n, k, out);
  for (; row < last; ++row) dot_tokens<Bf16, 1>(weights, row, x, m, n, k, out);
}

void rows(const void* weights, bool is_bf16, int64_t first, int64_t last, const float* x, int64_t m, int64_t n,
          int64_t k, float* out) {
  (is_bf16 ? dot_rows<true> : dot_rows<false>)(weights, first, last, x, m, n, k, out);
}

const Kernels table = {"avx2", tile<4>, tile<8>, avx2_many4, avx2_many8, quantize, rows, pack_group};

}  // namespace

const Kernels* avx2_kernels() { return &table; }
bool cpu_has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"); }

}  // namespace qwen3vl

#else
namespace qwen3vl {
const Kernels* avx2_kernels() { return nullptr; }
bool cpu_has_avx2() { return false; }
}  // namespace qwen3vl
#endif
