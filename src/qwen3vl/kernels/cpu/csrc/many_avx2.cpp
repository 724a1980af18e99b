// Products of many tokens where the CPU has no dot product of bytes. Compiled with AVX2, FMA and F16C alone; called
// only where the CPU has them.
#include "kernels.h"

#if defined(__AVX2__)
#include <immintrin.h>

#include <algorithm>
#include <memory>

namespace qwen3vl {
namespace {

// Weights are taken apart once for all tokens of a task, some groups at a time, so that they stay in the first-level
// cache, and are then multiplied by three tokens at a time: 3 x 2 integer sums, as many sums of groups, two vectors of
// weights, two of products: all 16 registers.
//
// int8: values of 16 bits. vpmaddwd multiplies pairs and adds them in 32 bits, where nothing can overflow; it is what
//       AVX2 has at twice the rate of float32. Activations are widened to 16 bits too.
// int4: values of 8 bits, as q + 8. vpmaddubsw adds pairs of products in 16 bits, where a group fits:
//       8 sums of 2 products of at most 15 * 127 are 30,480. `shift` takes the 8s away again.
constexpr int kGroups = 16;   // that are taken apart together: 16 KB of int8 values in 16 bits
constexpr int kTogether = 3;  // tokens

struct Room {
  alignas(64) uint8_t panel[kGroups * kGroup * kTile * 2];  // steps of [16 rows][2 (int8) or 4 (int4) columns]
  alignas(64) float scales[kGroups * kTile];
  alignas(64) int16_t wide[kManyTokens * kGroups * kGroup];  // activations in 16 bits, [token][column]
};

// Lines of a block (see layout.h) have the columns of int4 in the order of steps already.
inline void take_apart4(const uint8_t* values, uint8_t* panel) {
  const __m256i mask = _mm256_set1_epi8(15);
  for (int at = 0; at < 4 * kLine; at += 32) {
    const __m256i raw = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values + at));
    _mm256_store_si256(reinterpret_cast<__m256i*>(panel + at), _mm256_and_si256(raw, mask));
    const __m256i high = _mm256_and_si256(_mm256_srli_epi16(raw, 4), mask);
    _mm256_store_si256(reinterpret_cast<__m256i*>(panel + 4 * kLine + at), high);
  }
}

// Four columns of a row become two and two, of 16 bits: line v is steps 2 v and 2 v + 1.
inline void take_apart8(const uint8_t* values, uint8_t* panel) {
  const __m256i offset = _mm256_set1_epi16(128);
  const __m256i first = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13, -1));
  const __m256i second = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(2, -1, 3, -1, 6, -1, 7, -1, 10, -1, 11, -1, 14, -1, 15, -1));
  for (int line = 0; line < 8; ++line)
    for (int half = 0; half < 2; ++half) {
      const __m256i raw = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values + line * kLine + half * 32));
      __m256i* out = reinterpret_cast<__m256i*>(panel + line * 2 * kLine + half * 32);
      _mm256_store_si256(out, _mm256_sub_epi16(_mm256_shuffle_epi8(raw, first), offset));
      _mm256_store_si256(out + 2, _mm256_sub_epi16(_mm256_shuffle_epi8(raw, second), offset));
    }
}

template <int Bits>
void take_apart(const uint8_t* blocks, int groups, Room& room) {
  for (int g = 0; g < groups; ++g, blocks += block_bytes(Bits)) {
    for (int half = 0; half < 2; ++half) {
      const __m128i scales = _mm_loadu_si128(reinterpret_cast<const __m128i*>(blocks + half * 16));
      _mm256_store_ps(room.scales + g * kTile + half * 8, _mm256_cvtph_ps(scales));
    }
    if (Bits == 4)
      take_apart4(blocks + kTile * 2, room.panel + g * kGroup * kTile);
    else
      take_apart8(blocks + kTile * 2, room.panel + g * kGroup * kTile * 2);
  }
}

void widen(const int8_t* q, int64_t stride, int count, int columns, int16_t* out) {
  for (int m = 0; m < count; ++m, q += stride, out += columns)
    for (int c = 0; c < columns; c += 16) {
      const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(q + c));
      _mm256_store_si256(reinterpret_cast<__m256i*>(out + c), _mm256_cvtepi8_epi16(bytes));
    }
}

// In assembly, because compilers keep sums in memory here, at half of the speed. A step is four bytes of each token; the
// first of a group has nothing to add to.
#define QWEN3VL_BEGIN(x, low, high, multiply, add) \
  "vpbroadcastd " x ", %[v]\n" multiply " %[v], %[a], %[" low "]\n" multiply " %[v], %[b], %[" high "]\n"
#define QWEN3VL_ADD(x, low, high, multiply, add)                                                                 \
  "vpbroadcastd " x ", %[v]\n" multiply " %[v], %[a], %[u]\n" multiply " %[v], %[b], %[v]\n" add " %[u], %[" low \
  "], %[" low "]\n" add " %[v], %[" high "], %[" high "]\n"
#define QWEN3VL_STEP(token, low, high, at, multiply, add)                                \
  "vmovdqa " low "(%[panel]), %[a]\n vmovdqa " high "(%[panel]), %[b]\n"                 \
  token(at "(%[x])", "d0", "d1", multiply, add)                                          \
  token(at "(%[x],%[stride])", "d2", "d3", multiply, add)                                \
  token(at "(%[x],%[stride],2)", "d4", "d5", multiply, add)
#define QWEN3VL_FOUR_STEPS(token, how, multiply, add)                                                          \
  asm volatile(QWEN3VL_STEP(token, "0", "32", "0", multiply, add)                                              \
               QWEN3VL_STEP(QWEN3VL_ADD, "64", "96", "4", multiply, add)                                       \
               QWEN3VL_STEP(QWEN3VL_ADD, "128", "160", "8", multiply, add)                                     \
               QWEN3VL_STEP(QWEN3VL_ADD, "192", "224", "12", multiply, add)                                    \
               : [a] "=&x"(a), [b] "=&x"(b), [u] "=&x"(u), [v] "=&x"(v), [d0] how(dot[0][0]),                  \
                 [d1] how(dot[0][1]), [d2] how(dot[1][0]), [d3] how(dot[1][1]), [d4] how(dot[2][0]),           \
                 [d5] how(dot[2][1])                                                                           \
               : [panel] "r"(panel), [x] "r"(x), [stride] "r"(stride)                                          \
               : "memory")

// dot = or += the products of four steps; `stride` is the bytes from a token to the next.
template <int Bits, bool Add>
inline void four_steps(const uint8_t* panel, const char* x, int64_t stride, __m256i (&dot)[kTogether][2]) {
  __m256i a, b, u, v;
  if (Bits == 4 && Add) QWEN3VL_FOUR_STEPS(QWEN3VL_ADD, "+x", "vpmaddubsw", "vpaddw");
  if (Bits == 4 && !Add) QWEN3VL_FOUR_STEPS(QWEN3VL_BEGIN, "=&x", "vpmaddubsw", "vpaddw");
  if (Bits == 8 && Add) QWEN3VL_FOUR_STEPS(QWEN3VL_ADD, "+x", "vpmaddwd", "vpaddd");
  if (Bits == 8 && !Add) QWEN3VL_FOUR_STEPS(QWEN3VL_BEGIN, "=&x", "vpmaddwd", "vpaddd");
}

// Three tokens, or one, whose three strides are then 0: it is computed three times over.
struct Tokens {
  const char* x;
  const float* scale;
  const int32_t* shift;
  float* sums;  // [token][16]
  int64_t stride, groups_stride, sums_stride;
};

template <int Bits>
void multiply(const Room& room, int groups, const Tokens& tokens) {
  constexpr int kRuns = Bits == 4 ? 2 : 4;  // of four steps; a group
  const __m256i ones = _mm256_set1_epi16(1);
  __m256 sum[kTogether][2];
  for (int t = 0; t < kTogether; ++t)
    for (int h = 0; h < 2; ++h) sum[t][h] = _mm256_loadu_ps(tokens.sums + t * tokens.sums_stride + h * 8);
  const uint8_t* panel = room.panel;
  const char* x = tokens.x;
  for (int g = 0; g < groups; ++g) {
    __m256i dot[kTogether][2];
    four_steps<Bits, false>(panel, x, tokens.stride, dot);
    for (int i = 1; i < kRuns; ++i) four_steps<Bits, true>(panel + i * 4 * kLine, x + i * 16, tokens.stride, dot);
    panel += kRuns * 4 * kLine;
    x += kRuns * 16;
    for (int t = 0; t < kTogether; ++t) {
      const int64_t at = t * tokens.groups_stride + g;
      const __m256 scale = _mm256_broadcast_ss(tokens.scale + at);
      for (int h = 0; h < 2; ++h) {
        __m256i exact = dot[t][h];
        if (Bits == 4) exact = _mm256_sub_epi32(_mm256_madd_epi16(exact, ones), _mm256_set1_epi32(tokens.shift[at]));
        const __m256 factor = _mm256_mul_ps(_mm256_load_ps(room.scales + g * kTile + h * 8), scale);
        sum[t][h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(exact), factor, sum[t][h]);
      }
    }
  }
  for (int t = 0; t < kTogether; ++t)
    for (int h = 0; h < 2; ++h) _mm256_storeu_ps(tokens.sums + t * tokens.sums_stride + h * 8, sum[t][h]);
}

// One tile times all tokens, some groups of it: sums[count][16] +=.
template <int Bits>
void multiply_all(const Room& room, const Activations& x, int64_t first, int count, int64_t group, int groups,
                  float* sums) {
  const char* values = reinterpret_cast<const char*>(x.q + first * x.k + group * kGroup);
  int64_t stride = x.k;
  if (Bits == 8) values = reinterpret_cast<const char*>(room.wide), stride = groups * kGroup * 2;
  for (int m = 0; m < count;) {
    const bool three = m + kTogether <= count;
    const int64_t at = (first + m) * x.groups + group;
    multiply<Bits>(room, groups, {values + m * stride, x.scale + at, x.shift + at, sums + m * kTile,
                                  three ? stride : 0, three ? x.groups : 0, three ? kTile : 0});
    m += three ? kTogether : 1;
  }
}

template <int Bits>
void many(const uint8_t* tiles, int num_tiles, const Activations& x, int64_t first, int count, float* sums) {
  static thread_local std::unique_ptr<Room> room(new Room);
  const size_t tile_bytes = size_t(x.groups) * block_bytes(Bits);
  std::fill(sums, sums + int64_t(num_tiles) * count * kTile, 0.0f);
  for (int64_t group = 0; group < x.groups; group += kGroups) {
    const int groups = int(std::min<int64_t>(kGroups, x.groups - group));
    if (Bits == 8) widen(x.q + first * x.k + group * kGroup, x.k, count, groups * kGroup, room->wide);
    for (int tile = 0; tile < num_tiles; ++tile) {
      take_apart<Bits>(tiles + tile * tile_bytes + group * block_bytes(Bits), groups, *room);
      multiply_all<Bits>(*room, x, first, count, group, groups, sums + tile * count * kTile);
    }
  }
}

}  // namespace

void avx2_many4(const uint8_t* tiles, int num_tiles, const Activations& x, int64_t first, int count, float* out) {
  many<4>(tiles, num_tiles, x, first, count, out);
}
void avx2_many8(const uint8_t* tiles, int num_tiles, const Activations& x, int64_t first, int count, float* out) {
  many<8>(tiles, num_tiles, x, first, count, out);
}

}  // namespace qwen3vl
#endif
