// The C ABI of qwen3vl's CPU kernels: plain pointers and sizes, called from Python through ctypes.
//
// Shape names: M tokens, N output features, K input features (a multiple of 32), G = K / 32 groups.
// Quantised weights are "packed": tiles of 16 output features, see layout.h. All matrices are dense and row-major.
// Every function is safe to call from several threads; calls that use the pool take turns.
#pragma once
#include <cstddef>
#include <cstdint>

#define QWEN3VL_API extern "C" __attribute__((visibility("default")))

QWEN3VL_API int qwen3vl_abi_version();

// What runs: "avx512", "avx2", "neon" or "plain". `use` selects one by name (for tests) and returns 0, or -1 if this CPU
// lacks it.
QWEN3VL_API const char* qwen3vl_isa();
QWEN3VL_API int qwen3vl_use_isa(const char* name);
QWEN3VL_API void qwen3vl_set_threads(int count);
QWEN3VL_API int qwen3vl_threads();

// bits: 4 or 8. -> bytes of a packed matrix.
QWEN3VL_API size_t qwen3vl_packed_bytes(int bits, int64_t n, int64_t k);
// Quantise rows of float32 (is_bf16 = 0) or bfloat16 weights. `importance_K` weighs errors by input feature; may be null.
QWEN3VL_API void qwen3vl_pack(int bits, const void* weights_NK, int is_bf16, int64_t n, int64_t k,
                              const float* importance_K, uint8_t* packed);
// Rows `ids` of a packed matrix, dequantised: an embedding.
QWEN3VL_API void qwen3vl_unpack_rows(int bits, const uint8_t* packed, int64_t k, const int64_t* ids_M, int64_t m,
                                     float* out_MK);
// out = x @ w.T + bias, with activations quantised to int8 per token and group of 32. bias may be null.
// epilogue: 0 none, 1 GELU (tanh), 2 GELU (erf), 3 SwiGLU: features 2i and 2i+1 tiles of 16 are gate and up, out has N / 2
//           and there is no bias.
QWEN3VL_API void qwen3vl_matmul(int bits, const uint8_t* packed, const float* x_MK, int64_t m, int64_t n, int64_t k,
                                const float* bias_N, int epilogue, float* out_MN);
// The same for several matrices, without epilogue: the activations are quantised once.
struct Qwen3vlMatrix {
  const uint8_t* packed;  // [N, K]
  int64_t n;
  const float* bias;  // [N], or null
  float* out;         // [M, N]
};
QWEN3VL_API void qwen3vl_matmul_several(int bits, const Qwen3vlMatrix* matrices, int64_t num_matrices,
                                        const float* x_MK, int64_t m, int64_t k);
// out = x @ w.T with weights [N, K] as they are (float32 or bfloat16), K a multiple of 8, for few tokens: the time is that
// of reading the weights once. Returns -1 where there is no kernel for it.
QWEN3VL_API int qwen3vl_rows(const void* weights_NK, int is_bf16, const float* x_MK, int64_t m, int64_t n, int64_t k,
                             float* out_MN);
// The same with bfloat16 weights for many tokens; bias (may be null) and out are bfloat16 too. See wide.h.
QWEN3VL_API int qwen3vl_wide(const void* weights_NK, const float* x_MK, int64_t m, int64_t n, int64_t k,
                             const void* bias_N, void* out_MN);

// The most that this machine can do, on the pool's threads (see probe.cpp): bytes read a second from memory that no
// cache holds, and operations a second (float32, or bytes as the kernels multiply them) measured for `seconds`.
QWEN3VL_API double qwen3vl_probe_read(const uint8_t* data, int64_t bytes);
QWEN3VL_API double qwen3vl_probe_arithmetic(int integers, double seconds);

// Attention of one layer, for all sequences of a step; attention.cpp says what is computed, to the bit.
// N query heads, K key/value heads (N a multiple of K), H head size. Strides are in elements; the values of a head are
// neighbours. Types: 0 float32, 1 bfloat16, 2 int8 (keys and values only, with a scale for each slot and head).
struct Qwen3vlAttention {
  const void* q;  // [T, N, H]
  void* out;      // [T, N, H], of q's type
  int64_t type, q_token, q_head, out_token, out_head;
  const void *k, *v;  // [slots, K, H] in any order of axes
  int64_t kv_type, k_slot, k_head, v_slot, v_head;
  const float *k_scale, *v_scale;  // [K, slots]
  int64_t scale_head;
  int64_t num_heads, num_kv_heads, size;
  int64_t num_sequences;
  const int64_t* sequences;  // of each: first row of q, new tokens, tokens before them, first run, number of runs
  const int64_t* runs;       // of each: first token of the sequence in it, and its slot
  int64_t causal;            // 1: a token sees its sequence up to itself; 0: all of it
  double scale;              // of scores
};
QWEN3VL_API void qwen3vl_attention(const Qwen3vlAttention* attention);
// The same, less exactly and faster (see attention_words.h): float32, not causal, one key head for each query head, no
// tokens before the new ones, H a multiple of 8. Returns -1 elsewhere, and where the CPU has no use for it.
QWEN3VL_API int qwen3vl_attention_words(const Qwen3vlAttention* attention);

// The steps of a layer between its products. Values are float32 or, with is_bf16, bfloat16, rounded where plain torch
// rounds them. What comes of a row depends on that row alone.
//
// out = x / rms(x) * weight or, with mean_too, (x - mean) / deviation * weight + bias, over rows of `size`. With a delta
// that is added first: sum = x + delta is kept, and normalised. sum may be x or delta.
QWEN3VL_API void qwen3vl_norm(int is_bf16, int mean_too, const void* x_RD, const void* delta_RD, const void* weight_D,
                              const void* bias_D, double eps, int64_t rows, int64_t size, void* sum_RD, void* out_RD);
// Queries and keys, in place: each head is normalised (where there is a weight), then each pair (x[i], x[i + H / 2]) is
// turned by its angle. With slots, keys and values are then put into a cache: of the same type, rounded to bfloat16, or as
// int8 (see model/int8_cache.py). Strides are in elements; the heads of a token and the values of a head are neighbours.
struct Qwen3vlTurn {
  void *q, *k;
  const void* v;  // read only where there are slots
  int64_t is_bf16, tokens, q_heads, kv_heads, size;  // size: even, at most 512
  int64_t q_token, k_token, v_token;
  const void *q_weight, *k_weight;  // [H]; both or none
  double eps;
  const void *cosine, *sine;  // [T, H]
  int64_t angles_are_bf16;    // in bfloat16 every product is rounded, in float32 only the result
  const int64_t* slots;       // [T], or null
  void *keys, *values;        // [K, slots, H]
  int64_t kv_type;            // of these: 0 float32, 1 bfloat16, 2 int8
  int64_t cache_head, cache_slot;
  float *key_scales, *value_scales;  // [K, slots] of int8
  int64_t scale_head;
};
QWEN3VL_API void qwen3vl_turn(const Qwen3vlTurn* turn);
// out = silu(gate) * up; the rows of gate and up may lie apart. out may be gate or up.
QWEN3VL_API void qwen3vl_swiglu(int is_bf16, const void* gate, int64_t gate_row, const void* up, int64_t up_row,
                                int64_t rows, int64_t size, void* out_RI);
// GELU in its tanh form, in place.
QWEN3VL_API void qwen3vl_gelu_tanh(int is_bf16, void* x, int64_t count);

// Decoder layers with packed weights, one after the other, for few tokens: norm, projections, `turn` into the cache,
// attention, output projection, norm, SwiGLU, each with its sum. All in float32 but the cache.
struct Qwen3vlLayer {
  int64_t bits, hidden, inner, heads, kv_heads, size;
  const uint8_t *q_proj, *k_proj, *v_proj, *o_proj, *gate_up, *down;
  const float *input_norm, *post_norm, *q_norm, *k_norm;
  double eps;
  void *keys, *values;  // as in Qwen3vlTurn
  int64_t kv_type;
  int64_t cache_head, cache_slot;
  float *key_scales, *value_scales;
  int64_t scale_head;
};
struct Qwen3vlPass {
  float* x;  // [T, hidden]; in place
  int64_t tokens;
  const float *cosine, *sine;       // [T, size]
  const int64_t* slots;             // [T]
  int64_t num_sequences;            // as in Qwen3vlAttention
  const int64_t *sequences, *runs;
};
QWEN3VL_API void qwen3vl_layers(const Qwen3vlLayer* layers, int64_t num_layers, const Qwen3vlPass* pass);
