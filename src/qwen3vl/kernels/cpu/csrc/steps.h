// The steps of a layer between its matrix products. What steps.cpp hands to the instruction sets; the C ABI and what is
// computed are in qwen3vl_cpu.h. Every function works on a range of rows, each row for itself.
#pragma once
#include <cstdint>

#include "qwen3vl_cpu.h"

namespace qwen3vl {

struct NormRows {
  const void *x, *delta;  // delta may be null
  const void *weight, *bias;
  void *sum, *out;
  int64_t size;
  float eps;
  bool mean_too;  // LayerNorm, else RMSNorm
};

struct GatedRows {
  const void *gate, *up;
  void* out;
  int64_t gate_row, up_row, size;  // strides in elements
};

struct Steps {
  void (*norm)(const NormRows& rows, bool is_bf16, int64_t first, int64_t last);
  void (*turn)(const Qwen3vlTurn& turn, int64_t first, int64_t last);
  void (*swiglu)(const GatedRows& rows, bool is_bf16, int64_t first, int64_t last);
  void (*gelu_tanh)(void* x, bool is_bf16, int64_t first, int64_t last);
};

const Steps* plain_steps();
const Steps* avx2_steps();  // null where they were not compiled; AVX-512 uses them too: memory is the bound
const Steps* neon_steps();
const Steps* steps();       // those in use

}  // namespace qwen3vl
