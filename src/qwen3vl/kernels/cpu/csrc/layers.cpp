// Whole decoder layers with packed weights, for few tokens: between the steps of a layer nothing goes back to Python,
// whose own work, on caches that the weights have just run through, took a fifth of a decode step.
#include <cmath>
#include <vector>

#include "qwen3vl_cpu.h"

namespace {

// Buffers that live as long as their thread. Matrices of the pass's tokens.
struct Rooms {
  std::vector<float> normed, q, k, v, attended, delta, inner;
};

void run_layer(const Qwen3vlLayer& l, const Qwen3vlPass& p, Rooms& r) {
  const int64_t t = p.tokens, wide = l.heads * l.size, narrow = l.kv_heads * l.size;
  r.normed.resize(size_t(t * l.hidden));
  r.delta.resize(size_t(t * l.hidden));
  r.q.resize(size_t(t * wide));
  r.attended.resize(size_t(t * wide));
  r.k.resize(size_t(t * narrow));
  r.v.resize(size_t(t * narrow));
  r.inner.resize(size_t(t * l.inner));

  qwen3vl_norm(0, 0, p.x, nullptr, l.input_norm, nullptr, l.eps, t, l.hidden, nullptr, r.normed.data());
  const Qwen3vlMatrix projections[] = {{l.q_proj, wide, nullptr, r.q.data()},
                                       {l.k_proj, narrow, nullptr, r.k.data()},
                                       {l.v_proj, narrow, nullptr, r.v.data()}};
  qwen3vl_matmul_several(int(l.bits), projections, 3, r.normed.data(), t, l.hidden);

  Qwen3vlTurn turn = {};
  turn.q = r.q.data(), turn.k = r.k.data(), turn.v = r.v.data();
  turn.tokens = t, turn.q_heads = l.heads, turn.kv_heads = l.kv_heads, turn.size = l.size;
  turn.q_token = wide, turn.k_token = turn.v_token = narrow;
  turn.q_weight = l.q_norm, turn.k_weight = l.k_norm, turn.eps = l.eps;
  turn.cosine = p.cosine, turn.sine = p.sine, turn.slots = p.slots;
  turn.keys = l.keys, turn.values = l.values, turn.kv_type = l.kv_type;
  turn.cache_head = l.cache_head, turn.cache_slot = l.cache_slot;
  turn.key_scales = l.key_scales, turn.value_scales = l.value_scales, turn.scale_head = l.scale_head;
  qwen3vl_turn(&turn);

  Qwen3vlAttention a = {};
  a.q = r.q.data(), a.out = r.attended.data();
  a.q_token = a.out_token = wide, a.q_head = a.out_head = l.size;
  a.k = l.keys, a.v = l.values, a.kv_type = l.kv_type;
  a.k_slot = a.v_slot = l.cache_slot, a.k_head = a.v_head = l.cache_head;
  a.k_scale = l.key_scales, a.v_scale = l.value_scales, a.scale_head = l.scale_head;
  a.num_heads = l.heads, a.num_kv_heads = l.kv_heads, a.size = l.size;
  a.num_sequences = p.num_sequences, a.sequences = p.sequences, a.runs = p.runs;
  a.causal = 1, a.scale = 1.0 / std::sqrt(double(l.size));
  qwen3vl_attention(&a);

  qwen3vl_matmul(int(l.bits), l.o_proj, r.attended.data(), t, l.hidden, wide, nullptr, 0, r.delta.data());
  qwen3vl_norm(0, 0, p.x, r.delta.data(), l.post_norm, nullptr, l.eps, t, l.hidden, p.x, r.normed.data());
  qwen3vl_matmul(int(l.bits), l.gate_up, r.normed.data(), t, 2 * l.inner, l.hidden, nullptr, 3, r.inner.data());
  qwen3vl_matmul(int(l.bits), l.down, r.inner.data(), t, l.hidden, l.inner, nullptr, 0, r.delta.data());
  for (int64_t i = 0; i < t * l.hidden; ++i) p.x[i] += r.delta[size_t(i)];
}

}  // namespace

void qwen3vl_layers(const Qwen3vlLayer* layers, int64_t num_layers, const Qwen3vlPass* pass) {
  static thread_local Rooms rooms;
  for (int64_t i = 0; i < num_layers; ++i) run_layer(layers[i], *pass, rooms);
}
