// Products of many tokens with bfloat16 weights, on CPUs that have no instructions for bfloat16: some rows of weights at a
// time are widened to float32, in an order that vectors read front to back, and multiplied from the cache.
//
// out[t][n] is one sum over k, from the first to the last, with one rounding a step: it does not depend on the other
// tokens, nor on how wide the vectors are.
#pragma once
#include <cstdint>

namespace qwen3vl {

struct WideProduct {
  const uint16_t* weights;  // [N, K]
  const float* x;           // [M, K]
  const uint16_t* bias;     // [N], or null
  uint16_t* out;            // [M, N]
  int64_t n, k;
};

constexpr int64_t kWideTokens = 512;  // of a task, at most

struct WideKernel {
  int64_t rows;  // of weights that are widened together
  // Rows [first_row, first_row + rows) times tokens [first, first + count).
  void (*run)(const WideProduct& product, int64_t first_row, int64_t first, int64_t count);
};

const WideKernel* avx2_wide();  // null where they were not compiled
const WideKernel* avx512_wide();
const WideKernel* neon_wide();

}  // namespace qwen3vl
