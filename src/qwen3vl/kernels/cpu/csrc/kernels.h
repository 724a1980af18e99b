// One table of functions for each instruction set; all of them give the same bits (see the tests).
#pragma once
#include <cstdint>

#include "layout.h"

namespace qwen3vl {

constexpr int kManyTokens = 120;  // at most, of one call of many4 and many8

struct Kernels {
  const char* name;
  // One tile of weights times tokens [first, first + count): out[count][16].
  void (*tile4)(const uint8_t* tile, const Activations& x, int64_t first, int count, float* out);
  void (*tile8)(const uint8_t* tile, const Activations& x, int64_t first, int count, float* out);
  // Some tiles times some tokens: out[num_tiles][count][16]. Null where tile4 and tile8 do it as fast.
  void (*many4)(const uint8_t* tiles, int num_tiles, const Activations& x, int64_t first, int count, float* out);
  void (*many8)(const uint8_t* tiles, int num_tiles, const Activations& x, int64_t first, int count, float* out);
  // One token: K values to q, scale and shift.
  void (*quantize)(const float* x, int64_t k, int offset, int8_t* q, float* scale, int32_t* shift);
  // Rows [first, last) of unpacked weights (float32 or bfloat16, K a multiple of 8) times M tokens:
  // out[m * n + row]. Null where plain C++ would be slower than what else there is.
  void (*rows)(const void* weights, bool is_bf16, int64_t first, int64_t last, const float* x, int64_t m, int64_t n,
               int64_t k, float* out);
  // One group of weights to integers in [-limit - 1, limit]; returns their scale.
  float (*pack_group)(const float* x, const float* weight, int limit, int8_t* q);
};

extern const Kernels* kernels;  // those in use

const Kernels* plain_kernels();
const Kernels* avx2_kernels();    // null where they were not compiled
const Kernels* avx512_kernels();
const Kernels* neon_kernels();
void avx2_many4(const uint8_t* tiles, int num_tiles, const Activations& x, int64_t first, int count, float* out);
void avx2_many8(const uint8_t* tiles, int num_tiles, const Activations& x, int64_t first, int count, float* out);
bool cpu_has_avx2();
bool cpu_has_avx512();
bool cpu_has_neon();  // and its dot products of bytes

}  // namespace qwen3vl
