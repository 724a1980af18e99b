// Attention in products of 16 bits for AVX2 and FMA. Compiled with those flags alone; called only where the CPU has them.
//
// 16 rows lie across the lanes of two vectors, in scores [key][row] as in sums [column][row]; nothing is ever added
// across lanes. Both products are one and the same: pairs of 16 bits of a panel [pair][row][2], times rows of pairs, of
// which each is spread over the lanes. A pair is two values of a head for scores, two keys for sums.
#include "attention_words.h"

#if defined(__AVX2__)
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "simd.h"

namespace qwen3vl {
namespace {

constexpr int kRows = kWordPanel, kVectors = 2, kTogether = 4;
constexpr float kWeight = 8192, kValueLimit = 2047;  // kBlock * 8192 * 2047 < 2 ** 31
constexpr float kLowest = -3.4028234663852886e38f;

// H * limit ** 2 < 2 ** 31. Example: 5792 for heads of 64.
float limit_of(int64_t size) { return std::floor(std::sqrt(2147483520.0f / float(size))); }

// In assembly for the reason that many_avx2.cpp has. A step is a pair of each row.
#define QWEN3VL_ROW(x, low, high)                                                                            \
  "vpbroadcastd " x ", %[v]\n vpmaddwd %[v], %[a], %[u]\n vpmaddwd %[v], %[b], %[v]\n vpaddd %[u], %[" low   \
  "], %[" low "]\n vpaddd %[v], %[" high "], %[" high "]\n"
#define QWEN3VL_STEP(panel, panel2, at)                                             \
  "vmovdqa " panel "(%[panel]), %[a]\n vmovdqa " panel2 "(%[panel]), %[b]\n"        \
  QWEN3VL_ROW(at "(%[x])", "d0", "d1") QWEN3VL_ROW(at "(%[x],%[stride])", "d2", "d3") \
  QWEN3VL_ROW(at "(%[x],%[stride],2)", "d4", "d5") QWEN3VL_ROW(at "(%[x],%[triple])", "d6", "d7")

// dot[row of x][vector] = sums over pairs, a multiple of 4, of panel times four rows of x, `stride` bytes apart.
inline void multiply(const int16_t* panel, const int16_t* rows, int64_t stride, int64_t pairs,
                     __m256i (&dot)[kTogether][kVectors]) {
  const char* x = reinterpret_cast<const char*>(rows);
  const int64_t triple = 3 * stride;
  for (auto& row : dot) row[0] = row[1] = _mm256_setzero_si256();
  __m256i a, b, u, v;
  for (int64_t pair = 0; pair < pairs; pair += 4, panel += 4 * kRows * 2, x += 16)
    asm volatile(QWEN3VL_STEP("0", "32", "0") QWEN3VL_STEP("64", "96", "4") QWEN3VL_STEP("128", "160", "8")
                     QWEN3VL_STEP("192", "224", "12")
                 : [a] "=&x"(a), [b] "=&x"(b), [u] "=&x"(u), [v] "=&x"(v), [d0] "+x"(dot[0][0]),
                   [d1] "+x"(dot[0][1]), [d2] "+x"(dot[1][0]), [d3] "+x"(dot[1][1]), [d4] "+x"(dot[2][0]),
                   [d5] "+x"(dot[2][1]), [d6] "+x"(dot[3][0]), [d7] "+x"(dot[3][1])
                 : [panel] "r"(panel), [x] "r"(x), [stride] "r"(stride), [triple] "r"(triple)
                 : "memory");
}

inline Vec8 to_float(__m256i integers) { return {_mm256_cvtepi32_ps(integers)}; }

// 2 ** t * 8192 as an integer, for t of about 0 at most: a polynomial off by 2.6e-6, less than what rounding costs.
inline __m256i weight_of(Vec8 t) {
  t = max(t, Vec8::all(-30));
  const Vec8 shift = Vec8::all(12582912.0f), shifted = t + shift, f = t - (shifted - shift);
  Vec8 p = Vec8::all(kWeight * 0.009570101276040077f);
  p = fma(p, f, Vec8::all(kWeight * 0.05591785907745361f));
  p = fma(p, f, Vec8::all(kWeight * 0.240247443318367f));
  p = fma(p, f, Vec8::all(kWeight * 0.6931217908859253f));
  p = fma(p, f, Vec8::all(kWeight * 0.9999992847442627f));
  return _mm256_cvtps_epi32(add_to_exponent(p, shifted).x);
}

// Integers of a row of `count` values (a multiple of 8), of at most `limit`. -> their scale.
inline float to_words(const float* x, int64_t count, float limit, int16_t* out) {
  Vec8 most = Vec8::all(0);
  const __m256 sign = _mm256_set1_ps(-0.0f);
  for (int64_t i = 0; i < count; i += 8) most = max({_mm256_andnot_ps(sign, _mm256_loadu_ps(x + i))}, most);
  alignas(32) float lanes[8];
  most.store(lanes);
  const float peak = *std::max_element(lanes, lanes + 8);
  if (!(peak > 1e-30f)) {
    std::memset(out, 0, size_t(count) * 2);
    return 0;
  }
  const __m256 inverse = _mm256_set1_ps(limit / peak);
  for (int64_t i = 0; i < count; i += 8) {
    const __m256i r = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i), inverse));
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), words);
  }
  return peak / limit;
}

void pack_head(const KeyBlock& rows, int64_t size, int64_t k_at, int64_t v_at, const WordBlock& out) {
  alignas(32) float column[kBlock] = {};
  const float limit = limit_of(size);
  for (int j = 0; j < kBlock; ++j) {
    if (j < rows.count) {
      const float* k = reinterpret_cast<const float*>(static_cast<const char*>(rows.k[j]) + k_at);
      out.k_scale[j] = to_words(k, size, limit, out.k + j * size);
    } else {
      std::memset(out.k + j * size, 0, size_t(size) * 2);
      out.k_scale[j] = 0;
    }
  }
  for (int64_t c = 0; c < size; ++c) {
    for (int j = 0; j < rows.count; ++j)
      column[j] = reinterpret_cast<const float*>(static_cast<const char*>(rows.v[j]) + v_at)[c];
    out.v_scale[c] = to_words(column, kBlock, kValueLimit, out.v + c * kBlock);
  }
}

void pack(const KeyBlock& rows, int64_t size, int64_t num_heads, int64_t k_head, int64_t v_head, char* room,
          int64_t head_bytes) {
  for (int64_t head = 0; head < num_heads; ++head)
    pack_head(rows, size, head * k_head, head * v_head, WordBlock::at(room + head * head_bytes, size));
}

// 16 rows of queries, and what they have seen so far. Lanes without a row compute along with zeros.
struct Panel {
  alignas(64) int16_t q[kMostWords * kRows];  // [pair][row][2]
  alignas(64) float out[kMostWords * kRows];  // [column][row]
  alignas(64) float scale[kRows], peak[kRows], total[kRows];
};

// Of one block; stays in the first-level cache.
struct Room {
  alignas(64) float scores[kBlock * kRows];    // [key][row]
  alignas(64) int16_t weights[kBlock * kRows];  // [pair of keys][row][2]
  Panel panels[kTaskRows / kRows];
};

void fill(Panel& panel, const QueryRows& rows, int64_t start, int64_t count) {
  std::memset(static_cast<void*>(&panel), 0, sizeof panel);
  int16_t words[kMostWords];
  const float limit = limit_of(rows.size);
  for (int64_t i = 0; i < kRows; ++i) {
    panel.peak[i] = kLowest;
    if (i >= count) continue;
    const float* q = reinterpret_cast<const float*>(rows.q) + (rows.first + start + i) * rows.q_token;
    panel.scale[i] = to_words(q, rows.size, limit, words) * rows.scale;
    for (int64_t x = 0; x < rows.size; x += 2) std::memcpy(panel.q + (x / 2 * kRows + i) * 2, words + x, 4);
  }
}

void score(const Panel& panel, int64_t size, const WordBlock& block, int count, float* scores, Vec8 (&peak)[kVectors]) {
  const Vec8 scale[kVectors] = {Vec8::load(panel.scale), Vec8::load(panel.scale + 8)};
  for (int j = 0; j < count; j += kTogether) {
    __m256i dot[kTogether][kVectors];
    multiply(panel.q, block.k + j * size, size * 2, size / 2, dot);
    for (int n = 0; n < kTogether && j + n < count; ++n)
      for (int v = 0; v < kVectors; ++v) {
        const Vec8 s = to_float(dot[n][v]) * (scale[v] * Vec8::all(block.k_scale[j + n]));
        peak[v] = max(s, peak[v]);
        s.store(scores + (j + n) * kRows + v * 8);
      }
  }
}

// Scores to weights; `total` takes their sums. -> pairs of keys, rounded up to a multiple of 4 with zeros.
int64_t weigh(const float* scores, int count, const Vec8 (&peak)[kVectors], int16_t* weights, Vec8 (&total)[kVectors]) {
  const int64_t pairs = (count + 7) / 8 * 4;
  const __m256i ones = _mm256_set1_epi16(1), none = _mm256_setzero_si256();
  for (int v = 0; v < kVectors; ++v) {
    __m256i sum = none;
    for (int64_t pair = 0; pair < pairs; ++pair) {
      const float* at = scores + 2 * pair * kRows + v * 8;
      const __m256i low = 2 * pair < count ? weight_of(Vec8::load(at) - peak[v]) : none;
      const __m256i high = 2 * pair + 1 < count ? weight_of(Vec8::load(at + kRows) - peak[v]) : none;
      const __m256i both = _mm256_or_si256(low, _mm256_slli_epi32(high, 16));
      sum = _mm256_add_epi32(sum, _mm256_madd_epi16(both, ones));
      _mm256_store_si256(reinterpret_cast<__m256i*>(weights + (pair * kRows + v * 8) * 2), both);
    }
    total[v] = to_float(sum);
  }
  return pairs;
}

void see(Panel& panel, int64_t size, const WordBlock& block, int count, Room& room) {
  Vec8 peak[kVectors] = {Vec8::all(kLowest), Vec8::all(kLowest)}, total[kVectors];
  score(panel, size, block, count, room.scores, peak);
  const int64_t pairs = weigh(room.scores, count, peak, room.weights, total);
  Vec8 before[kVectors], after[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    const Vec8 old = Vec8::load(panel.peak + v * 8), now = max(old, peak[v]);
    before[v] = exp2_of(old - now);
    after[v] = exp2_of(peak[v] - now);
    fma(total[v], after[v], Vec8::load(panel.total + v * 8) * before[v]).store(panel.total + v * 8);
    now.store(panel.peak + v * 8);
  }
  for (int64_t c = 0; c < size; c += kTogether) {
    __m256i dot[kTogether][kVectors];
    multiply(room.weights, block.v + c * kBlock, kBlock * 2, pairs, dot);
    for (int n = 0; n < kTogether; ++n)
      for (int v = 0; v < kVectors; ++v) {
        float* at = panel.out + (c + n) * kRows + v * 8;
        const Vec8 factor = after[v] * Vec8::all(block.v_scale[c + n]);
        fma(to_float(dot[n][v]), factor, Vec8::load(at) * before[v]).store(at);
      }
  }
}

void write(const Panel& panel, const QueryRows& rows, int64_t start, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    float* out = reinterpret_cast<float*>(rows.out) + (rows.first + start + i) * rows.out_token;
    const float inverse = 1.0f / panel.total[i];
    for (int64_t c = 0; c < rows.size; ++c) out[c] = panel.out[c * kRows + i] * inverse;
  }
}

void panels(const QueryRows& rows, char* blocks, int64_t num_keys) {
  static thread_local std::unique_ptr<Room> room(new Room);
  const int64_t num_panels = (rows.count + kRows - 1) / kRows;
  for (int64_t i = 0; i < num_panels; ++i)
    fill(room->panels[i], rows, i * kRows, std::min<int64_t>(kRows, rows.count - i * kRows));
  for (int64_t first = 0; first < num_keys; first += kBlock) {
    const WordBlock block = WordBlock::at(blocks + first / kBlock * WordBlock::bytes(rows.size), rows.size);
    const int count = int(std::min<int64_t>(kBlock, num_keys - first));
    for (int64_t i = 0; i < num_panels; ++i) see(room->panels[i], rows.size, block, count, *room);
  }
  for (int64_t i = 0; i < num_panels; ++i)
    write(room->panels[i], rows, i * kRows, std::min<int64_t>(kRows, rows.count - i * kRows));
}

}  // namespace

const WordKernels* avx2_words() {
  static constexpr WordKernels table = {pack, panels};
  return &table;
}

}  // namespace qwen3vl

#else
namespace qwen3vl {
const WordKernels* avx2_words() { return nullptr; }
}  // namespace qwen3vl
#endif
