// Attention of the queries of one sequence over its keys, wherever these lie in memory. What attention.cpp hands to the
// instruction sets; the C ABI and the definition of what is computed are in qwen3vl_cpu.h and attention.cpp.
//
// Shape names: N query heads, K key/value heads, G = N / K queries that share a key head, H head size. Row r of a key head
// is its query r % G of new token r / G.
#pragma once
#include <cstddef>
#include <cstdint>

namespace qwen3vl {

constexpr int kBlock = 128;  // keys; blocks begin at multiples of it in the sequence
constexpr int kTaskRows = 192;  // rows that share a block's keys once these are float32: a multiple of 48

enum ValueType { kFloat32 = 0, kBfloat16 = 1, kInt8 = 2 };

// Rows [first, first + count) of one sequence and key head.
struct QueryRows {
  const char* q;  // head 0 of the group, token 0 of the new ones
  char* out;
  ValueType type;                           // of both: float32 or bfloat16
  int64_t q_token, q_head, out_token, out_head;  // strides in elements
  int64_t first, count, group, size;
  int64_t past, length;  // tokens before the new ones, and new ones
  bool causal;
  float scale;  // of scores, times log2(e)

  // Keys that row `first + i` sees.
  int64_t seen(int64_t i) const { return causal ? past + (first + i) / group + 1 : past + length; }
};

// Where the keys of one sequence and key head lie.
struct KeyRuns {
  const char *k, *v;  // slot 0
  ValueType type;
  int64_t k_slot, v_slot;         // strides in elements
  const float *k_scale, *v_scale;  // of each slot, for int8
  const int64_t* runs;             // (token, slot) pairs, ascending; the first token is 0
  int64_t num_runs;
  float* packed;  // all of them as `pack` left them, or null
};

// Values of a row, rounded up to whole vectors and to whole strips; a block's packed keys and values lie one behind the
// other, in as many floats for each key.
struct Widths {
  int64_t size, vectors, strips;
  int64_t floats() const { return size + strips; }
};

// The keys of one block, by rows.
struct KeyBlock {
  int count;
  const void *k[kBlock], *v[kBlock];
  float k_scale[kBlock], v_scale[kBlock];  // for int8
};

// A row's sums over one block, or over all blocks so far: largest score, sum of weights, weighed sum of values.
struct State {
  static constexpr int kPeak = 0, kTotal = 1, kOut = 2;
  static int64_t floats(int64_t size) { return size + 2; }
};

struct AttentionKernels {
  Widths (*widths)(int64_t size);
  // Block `block` of `num_heads` key heads, `head` bytes apart in memory and `head_floats` apart where they are packed.
  // Rows of one head that lie far apart cost a page each; so all heads' are read at once, and once.
  void (*pack)(const KeyRuns& keys, int64_t block, int64_t num_keys, int64_t size, int64_t num_heads, int64_t k_head,
               int64_t v_head, int64_t head_floats);
  // Any number of rows over all blocks, into `out`.
  void (*panels)(const QueryRows& rows, const KeyRuns& keys);
  // Few rows over some blocks: states[block][row], counted from `first_block`.
  void (*few)(const QueryRows& rows, const KeyRuns& keys, int64_t first_block, int64_t num_blocks, float* states);
  // `few`'s states of blocks 0 .. num_blocks, states[block][row], joined in order, into `out`.
  void (*join)(const QueryRows& rows, const float* states, int64_t num_blocks);
};

const AttentionKernels* plain_attention();
const AttentionKernels* avx2_attention();    // null where they were not compiled
const AttentionKernels* avx512_attention();
const AttentionKernels* neon_attention();

// The keys of block `block` among the first `num_keys`.
void find_block(const KeyRuns& keys, int64_t block, int64_t num_keys, KeyBlock* out);
// At least `count` floats that belong to the calling thread until it asks again; aligned to 64 bytes.
float* thread_floats(size_t count);

}  // namespace qwen3vl
