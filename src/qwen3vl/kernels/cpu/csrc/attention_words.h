// Attention of whole sequences, in which every token sees every other, in products of 16 bits: for CPUs that multiply
// those at twice the rate of float32 and have nothing faster. What is computed:
//
//     q of a row, k of a key, and v of a column of 128 keys become integers, each group with a scale: up to the root of
//     2 ** 31 / H for q and k, so that no sum overflows, and to 2047 for v. Rounding is to nearest.
//     score_j = (exact sum of integers) * scales; m = max_j score_j of the block of 128 keys
//     w_j = exp(score_j - m), rounded to a multiple of 1 / 8192; l = sum_j w_j; o = exact sum of w_j v_j, * scales
//     the blocks' (m, l, o) are joined as in attention.cpp; out = o / l
//
// Measured on random values, that is off by 4e-4 (root of mean square), where queries, keys and values that were rounded
// to bfloat16 are off by 3e-3. Of a block's weights those below 1 / 16384 of its largest count as zeros: at most 0.8 % of
// the block, were all of them just below. A row's bits depend on its own query and its sequence's keys alone.
#pragma once
#include "attention.h"

namespace qwen3vl {

// A block of keys and values of one head, in integers; behind each other in memory.
struct WordBlock {
  int16_t *k, *v;           // [kBlock][H], [H][kBlock]; zeros where there is no key
  float *k_scale, *v_scale;  // [kBlock], [H]

  static int64_t bytes(int64_t size) { return (2 * kBlock * size * 2 + (kBlock + size) * 4 + 63) / 64 * 64; }
  static WordBlock at(char* room, int64_t size) {
    int16_t* k = reinterpret_cast<int16_t*>(room);
    float* scale = reinterpret_cast<float*>(room + 2 * kBlock * size * 2);
    return {k, k + kBlock * size, scale, scale + kBlock};
  }
};

constexpr int kWordPanel = 16;       // rows that are worked on together
constexpr int64_t kMostWords = 128;  // H at most; it is a multiple of 8

struct WordKernels {
  // One block of `num_heads` heads, `k_head` and `v_head` bytes apart, to `room`, `head_bytes` apart.
  void (*pack)(const KeyBlock& rows, int64_t size, int64_t num_heads, int64_t k_head, int64_t v_head, char* room,
               int64_t head_bytes);
  // Rows of float32, at most kTaskRows, over all blocks of their head.
  void (*panels)(const QueryRows& rows, char* blocks, int64_t num_keys);
};

const WordKernels* avx2_words();  // null where they were not compiled

}  // namespace qwen3vl
