// Few rows: the time is that of reading keys and values, each once for all heads that share them.
//
// Here lanes are keys for the scores (keys are turned in registers, 8 by 8) and columns for the sums of values. Every sum is
// taken in the order of attention_panels.h, so that both give the same bits.
#pragma once
#include "attention_panels.h"

namespace qwen3vl {
namespace {

constexpr int kTurned = 32;  // keys that are turned at a time: what follows is in the first-level cache

#if defined(QWEN3VL_AVX2)

// Dword i of eight rows becomes row i.
inline void turn(__m256i* r) {
  __m256 t[8], u[8];
  const __m256* x = reinterpret_cast<const __m256*>(r);
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(x[i], x[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(x[i], x[i + 1]);
  }
  for (int i = 0; i < 8; i += 4)
    for (int h = 0; h < 2; ++h) {
      u[i + 2 * h] = _mm256_shuffle_ps(t[i + h], t[i + h + 2], 0x44);
      u[i + 2 * h + 1] = _mm256_shuffle_ps(t[i + h], t[i + h + 2], 0xee);
    }
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm256_castps_si256(_mm256_permute2f128_ps(u[i], u[i + 4], 0x20));
    r[i + 4] = _mm256_castps_si256(_mm256_permute2f128_ps(u[i], u[i + 4], 0x31));
  }
}

inline void put(float* out, __m256i bits) { _mm256_storeu_ps(out, _mm256_castsi256_ps(bits)); }

// The values that lie in dword `four` of eight keys.
inline void put_values(__m256i four, const float*, float* out) { put(out, four); }
inline void put_values(__m256i four, const uint16_t*, float* out) {
  put(out, _mm256_slli_epi32(four, 16));
  put(out + kTurned, _mm256_and_si256(four, _mm256_set1_epi32(int(0xffff0000))));
}
inline void put_values(__m256i four, const int8_t*, float* out) {
  _mm256_storeu_ps(out, _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(four, 24), 24)));
  _mm256_storeu_ps(out + kTurned, _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(four, 16), 24)));
  _mm256_storeu_ps(out + 2 * kTurned, _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(four, 8), 24)));
  _mm256_storeu_ps(out + 3 * kTurned, _mm256_cvtepi32_ps(_mm256_srai_epi32(four, 24)));
}

// Whole pieces of 32 bytes of eight keys; returns how many values of each are done.
template <typename T>
inline int64_t turn_pieces(const void* const* keys, int64_t size, float* out) {
  constexpr int kPiece = 32 / sizeof(T), kDword = 4 / sizeof(T);
  int64_t x = 0;
  for (; x + kPiece <= size; x += kPiece) {
    __m256i r[8];
    for (int i = 0; i < 8; ++i)
      r[i] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(static_cast<const T*>(keys[i]) + x));
    turn(r);
    for (int i = 0; i < 8; ++i) put_values(r[i], static_cast<const T*>(nullptr), out + (x + i * kDword) * kTurned);
  }
  return x;
}

#elif defined(QWEN3VL_NEON)

// The values that lie in dword `four` of four keys.
inline void put_values(int32x4_t four, const float*, float* out) { vst1q_f32(out, vreinterpretq_f32_s32(four)); }
inline void put_values(int32x4_t four, const uint16_t*, float* out) {
  vst1q_f32(out, vreinterpretq_f32_s32(vshlq_n_s32(four, 16)));
  vst1q_f32(out + kTurned, vreinterpretq_f32_s32(vandq_s32(four, vdupq_n_s32(int(0xffff0000)))));
}
inline void put_values(int32x4_t four, const int8_t*, float* out) {
  vst1q_f32(out, vcvtq_f32_s32(vshrq_n_s32(vshlq_n_s32(four, 24), 24)));
  vst1q_f32(out + kTurned, vcvtq_f32_s32(vshrq_n_s32(vshlq_n_s32(four, 16), 24)));
  vst1q_f32(out + 2 * kTurned, vcvtq_f32_s32(vshrq_n_s32(vshlq_n_s32(four, 8), 24)));
  vst1q_f32(out + 3 * kTurned, vcvtq_f32_s32(vshrq_n_s32(four, 24)));
}

// 16 bytes of four keys: dword i of each becomes row i.
template <typename T>
inline void turn_four(const void* const* keys, int64_t x, float* out) {
  int64x2_t pairs[4];  // dwords 0 and 2 of keys 0 and 1, 1 and 3 of them; the same of keys 2 and 3
  for (int i = 0; i < 4; i += 2) {
    const int32x4_t a = vreinterpretq_s32_u8(vld1q_u8(reinterpret_cast<const uint8_t*>(static_cast<const T*>(keys[i]) + x)));
    const int32x4_t b =
        vreinterpretq_s32_u8(vld1q_u8(reinterpret_cast<const uint8_t*>(static_cast<const T*>(keys[i + 1]) + x)));
    pairs[i] = vreinterpretq_s64_s32(vtrn1q_s32(a, b));
    pairs[i + 1] = vreinterpretq_s64_s32(vtrn2q_s32(a, b));
  }
  constexpr int kDword = 4 / sizeof(T);
  const T* type = nullptr;
  for (int i = 0; i < 2; ++i) {
    put_values(vreinterpretq_s32_s64(vtrn1q_s64(pairs[i], pairs[i + 2])), type, out + i * kDword * kTurned);
    put_values(vreinterpretq_s32_s64(vtrn2q_s64(pairs[i], pairs[i + 2])), type, out + (i + 2) * kDword * kTurned);
  }
}

// Whole pieces of 16 bytes of eight keys; returns how many values of each are done.
template <typename T>
inline int64_t turn_pieces(const void* const* keys, int64_t size, float* out) {
  constexpr int kPiece = 16 / sizeof(T);
  int64_t x = 0;
  for (; x + kPiece <= size; x += kPiece)
    for (int h = 0; h < 8; h += 4) turn_four<T>(keys + h, x, out + x * kTurned + h);
  return x;
}

#else

template <typename T>
inline int64_t turn_pieces(const void* const*, int64_t, float*) {
  return 0;
}

#endif

// Keys [j, j + kTurned) of the block as out[size][kTurned]; lanes behind the last key repeat it.
template <typename T>
void turn_keys(const KeyBlock& block, int j, int64_t size, float* out) {
  for (int lane = 0; lane < kTurned && j + lane < block.count; lane += 8) {
    const void* keys[8];
    for (int i = 0; i < 8; ++i) keys[i] = block.k[j + lane + i < block.count ? j + lane + i : block.count - 1];
    for (int64_t x = turn_pieces<T>(keys, size, out + lane); x < size; ++x)
      for (int i = 0; i < 8; ++i) out[x * kTurned + lane + i] = value_of(static_cast<const T*>(keys[i])[x]);
  }
}

// Rows on their way into the cache while others are worked on: as many bytes as these are read, line by line in the order
// in which they lie. In bursts they would wait for each other and the arithmetic for them; as the sums below read, every
// fourth line first, a CPU does not foresee what comes.
struct Ahead {
  const void* const* rows;
  int count;
  int64_t bytes;  // of a row
  int row = 0;
  int64_t at = 0, owed = 0;

  void step(int64_t read) {
    for (owed += read; owed >= 64 && row < count; owed -= 64) {
      __builtin_prefetch(static_cast<const char*>(rows[row]) + at);
      at += 64;
      if (at >= bytes) at = 0, ++row;
    }
  }
};

// Scores of R rows with the turned keys, of T before.
template <typename T, int R>
inline void score_turned(const float* q, int64_t size, const float* turned, float* scores, Ahead& ahead) {
  constexpr int kVectors = kTurned / 8;
  Vec8 s[R][kVectors];
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < kVectors; ++v) s[r][v] = Vec8::all(0);
  for (int64_t x = 0; x < size; ++x, turned += kTurned) {
    ahead.step(kTurned * sizeof(T));
    Vec8 key[kVectors];
    for (int v = 0; v < kVectors; ++v) key[v] = Vec8::load(turned + 8 * v);
    for (int r = 0; r < R; ++r) {
      const Vec8 value = Vec8::all(q[r * size + x]);
      for (int v = 0; v < kVectors; ++v) s[r][v] = fma(key[v], value, s[r][v]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < kVectors; ++v) s[r][v].store(scores + r * kBlock + 8 * v);
}

// Scores of one row to weights; returns their sum. `count` keys, of which the row sees `seen`.
inline float weigh_row(const KeyBlock& block, int count, int seen, bool scaled, float* scores, float* peak) {
  const int padded = int(round_up(count, 8));
  for (int j = 0; scaled && j < count; ++j) scores[j] *= block.k_scale[j];
  for (int j = seen; j < padded; ++j) scores[j] = -INFINITY;
  Vec8 largest = Vec8::all(kLowest), sum = Vec8::all(0);
  for (int j = 0; j < padded; j += 8) largest = max(Vec8::load(scores + j), largest);
  float lanes[8];
  largest.store(lanes);
  *peak = lanes[0];
  for (int i = 1; i < 8; ++i) *peak = lanes[i] > *peak ? lanes[i] : *peak;
  for (int j = 0; j < padded; j += 8) {
    const Vec8 weight = exp2_of(Vec8::load(scores + j) - Vec8::all(*peak));
    sum = sum + weight;
    weight.store(scores + j);
  }
  for (int j = 0; scaled && j < count; ++j) scores[j] *= block.v_scale[j];
  float s[8];
  sum.store(s);
  return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

// Sums of values, weighed by R rows, C vectors of columns.
template <typename T, int R, int C>
inline void mix_few(const KeyBlock& block, const float* weights, int64_t column, float* states, int64_t stride,
                    Ahead& ahead) {
  Vec8 sum[R][C];
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) sum[r][c] = Vec8::all(0);
  for (int j = 0; j < block.count; ++j) {
    const T* row = static_cast<const T*>(block.v[j]) + column;
    ahead.step(8 * C * sizeof(T));
    for (int c = 0; c < C; ++c) {
      const Vec8 value = Vec8::load(row + 8 * c);
      for (int r = 0; r < R; ++r) sum[r][c] = fma(Vec8::all(weights[r * kBlock + j]), value, sum[r][c]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) sum[r][c].store(states + r * stride + State::kOut + column + 8 * c);
}

template <typename T, int R>
void mix_few_rows(const KeyBlock& block, const float* weights, int64_t size, float* states, int64_t stride,
                  Ahead& ahead) {
  int64_t column = 0;
  constexpr int kColumns = R > 2 ? 2 : 4;
  for (; column + 8 * kColumns <= size; column += 8 * kColumns)
    mix_few<T, R, kColumns>(block, weights, column, states, stride, ahead);
  for (; column < size; column += 8) mix_few<T, R, 1>(block, weights, column, states, stride, ahead);
}

// Scores of all rows with one block.
template <typename T>
void score_few(const QueryRows& rows, const KeyBlock& block, const float* q, float* turned, float* scores) {
  const int64_t size = rows.size;
  Ahead values{block.v, block.count, size * int64_t(sizeof(T))};
  for (int j = 0; j < block.count; j += kTurned) {
    turn_keys<T>(block, j, size, turned);
    int64_t r = 0;
    for (; r + 2 <= rows.count; r += 2)
      score_turned<T, 2>(q + r * size, size, turned, scores + r * kBlock + j, values);
    if (r < rows.count) score_turned<T, 1>(q + r * size, size, turned, scores + r * kBlock + j, values);
  }
}

template <typename T>
void few_block(const QueryRows& rows, const KeyRuns& keys, int64_t first_key, const KeyBlock& block,
               const KeyBlock& next, const float* q, float* turned, float* scores, float* states) {
  const int64_t size = rows.size, stride = State::floats(size);
  score_few<T>(rows, block, q, turned, scores);
  for (int64_t r = 0; r < rows.count; ++r) {
    const int64_t seen = rows.seen(r) - first_key;
    const int own = seen < 0 ? 0 : seen < block.count ? int(seen) : block.count;
    float* state = states + r * stride;
    state[State::kTotal] =
        weigh_row(block, block.count, own, keys.type == kInt8, scores + r * kBlock, state + State::kPeak);
  }
  Ahead ahead{next.k, next.count, size * int64_t(sizeof(T))};
  int64_t r = 0;
  for (; r + 4 <= rows.count; r += 4)
    mix_few_rows<T, 4>(block, scores + r * kBlock, size, states + r * stride, stride, ahead);
  for (; r + 2 <= rows.count; r += 2)
    mix_few_rows<T, 2>(block, scores + r * kBlock, size, states + r * stride, stride, ahead);
  if (r < rows.count) mix_few_rows<T, 1>(block, scores + r * kBlock, size, states + r * stride, stride, ahead);
}

template <typename T>
void few_of(const QueryRows& rows, const KeyRuns& keys, int64_t first_block, int64_t num_blocks, float* states) {
  const int64_t size = rows.size, num_keys = rows.seen(rows.count - 1);
  float* turned = thread_floats(size_t(size * kTurned + rows.count * (size + kBlock)));
  float *scores = turned + size * kTurned, *q = scores + rows.count * kBlock;
  for (int64_t i = 0; i < rows.count; ++i) {
    const int64_t r = rows.first + i, at = r / rows.group * rows.q_token + r % rows.group * rows.q_head;
    for (int64_t x = 0; x < size; ++x) q[i * size + x] = element(rows.q, rows.type, at + x) * rows.scale;
  }
  KeyBlock blocks[2];
  find_block(keys, first_block, num_keys, &blocks[0]);
  for (int64_t b = 0; b < num_blocks; ++b) {
    KeyBlock& next = blocks[(b + 1) % 2];
    next.count = 0;
    if (b + 1 < num_blocks) find_block(keys, first_block + b + 1, num_keys, &next);
    few_block<T>(rows, keys, (first_block + b) * kBlock, blocks[b % 2], next, q, turned, scores,
                 states + b * rows.count * State::floats(size));
  }
}

void few_task(const QueryRows& rows, const KeyRuns& keys, int64_t first_block, int64_t num_blocks, float* states) {
  if (keys.type == kFloat32) few_of<float>(rows, keys, first_block, num_blocks, states);
  if (keys.type == kBfloat16) few_of<uint16_t>(rows, keys, first_block, num_blocks, states);
  if (keys.type == kInt8) few_of<int8_t>(rows, keys, first_block, num_blocks, states);
}

void join_task(const QueryRows& rows, const float* states, int64_t num_blocks) {
  const int64_t size = rows.size, stride = State::floats(size);
  float* out = thread_floats(size_t(size));
  for (int64_t r = 0; r < rows.count; ++r) {
    Vec8 peak = Vec8::all(kLowest), total = Vec8::all(0);
    for (int64_t x = 0; x < size; ++x) out[x] = 0;
    for (int64_t b = 0; b < num_blocks; ++b) {
      const float* state = states + (b * rows.count + r) * stride;
      const Vec8 own = Vec8::all(state[State::kPeak]), now = max(peak, own);
      const Vec8 old_factor = exp2_of(peak - now), new_factor = exp2_of(own - now);
      total = fma(Vec8::all(state[State::kTotal]), new_factor, total * old_factor);
      peak = now;
      for (int64_t x = 0; x < size; x += 8)
        fma(Vec8::load(state + State::kOut + x), new_factor, Vec8::load(out + x) * old_factor).store(out + x);
    }
    float lanes[8];
    total.store(lanes);
    write_row(rows, r, out, lanes[0]);
  }
}

}  // namespace
}  // namespace qwen3vl
