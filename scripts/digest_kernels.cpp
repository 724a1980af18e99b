// Digests of what the kernels give, to compare processors: cross_kernels.sh. Argument: the instruction set, or "chosen" to
// be told which one this processor takes by itself.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

#include "half.h"
#include "qwen3vl_cpu.h"

using qwen3vl::bf16_to_float;
using qwen3vl::bits_of;

namespace {

uint32_t state = 1;
float next() { return float(int((state = state * 1664525u + 1013904223u) >> 8) % 20001 - 10000) / 10000; }
float next_of_any_size() {
  const float value = next() * 3;
  return state % 13 == 0 ? std::ldexp(value, int(state >> 8) % 41 - 20) : value;
}

template <class T>
void say(const char* what, int bits, const std::vector<T>& values) {
  uint64_t hash = 14695981039346656037ull;
  const auto* bytes = reinterpret_cast<const uint8_t*>(values.data());
  for (size_t i = 0; i < values.size() * sizeof(T); ++i) hash = (hash ^ bytes[i]) * 1099511628211ull;
  std::printf("%s %d %016llx\n", what, bits, static_cast<unsigned long long>(hash));
}

uint16_t bf16(float value) { return uint16_t((bits_of(value) + 0x7fff + ((bits_of(value) >> 16) & 1)) >> 16); }

template <class T>
std::vector<T> drawn(size_t count);
template <>
std::vector<float> drawn(size_t count) {
  std::vector<float> values(count);
  for (float& v : values) v = next_of_any_size();
  return values;
}
template <>
std::vector<uint16_t> drawn(size_t count) {
  std::vector<uint16_t> values(count);
  for (uint16_t& v : values) v = bf16(next_of_any_size());
  return values;
}
template <>
std::vector<int8_t> drawn(size_t count) {
  std::vector<int8_t> values(count);
  for (int8_t& v : values) v = int8_t(next() * 127);
  return values;
}

// Two sequences behind 7 and 300 tokens before them, 4 heads on 2 key heads; the second one's keys lie in two runs. The keys
// of a head are neighbours, as in a cache, or those of a token.
template <class Query, class Key>
void attention(int64_t type, int64_t kv_type, int64_t fresh, int64_t size, bool neighbours, bool causal) {
  const int64_t heads = 4, kv_heads = 2, slots = 500, tokens = 2 * fresh;
  const auto q = drawn<Query>(tokens * heads * size);
  const auto k = drawn<Key>(kv_heads * slots * size), v = drawn<Key>(kv_heads * slots * size);
  std::vector<float> k_scale(kv_heads * slots), v_scale(kv_heads * slots);
  for (float& scale : k_scale) scale = 0.02f + 0.01f * next();
  for (float& scale : v_scale) scale = 0.02f + 0.01f * next();
  std::vector<Query> out(tokens * heads * size);
  const int64_t sequences[] = {0, fresh, 7, 0, 1, fresh, fresh, 300, 1, 2}, runs[] = {0, 3, 0, 60, 20, 110};
  Qwen3vlAttention call{};
  call.q = q.data(), call.out = out.data(), call.type = type;
  call.q_token = call.out_token = heads * size, call.q_head = call.out_head = size;
  call.k = k.data(), call.v = v.data(), call.kv_type = kv_type;
  call.k_slot = call.v_slot = neighbours ? size : kv_heads * size;
  call.k_head = call.v_head = neighbours ? slots * size : size;
  if (kv_type == 2) call.k_scale = k_scale.data(), call.v_scale = v_scale.data();
  call.scale_head = slots, call.num_heads = heads, call.num_kv_heads = kv_heads, call.size = size;
  call.num_sequences = 2, call.sequences = sequences, call.runs = runs, call.causal = causal, call.scale = 0.125;
  qwen3vl_attention(&call);
  say("attention", int(kv_type), out);
}

template <class T>
void steps(int is_bf16) {
  const int64_t rows = 5, size = 200;
  const auto x = drawn<T>(rows * size), delta = drawn<T>(rows * size), weight = drawn<T>(size), bias = drawn<T>(size);
  std::vector<T> sum(rows * size), out(rows * size);
  for (const int mean_too : {0, 1}) {
    qwen3vl_norm(is_bf16, mean_too, x.data(), delta.data(), weight.data(), mean_too ? bias.data() : nullptr, 1e-6, rows,
                 size, sum.data(), out.data());
    say("norm", mean_too, out);
  }
  qwen3vl_swiglu(is_bf16, x.data(), size, delta.data(), size, rows, size, out.data());
  say("swiglu", is_bf16, out);
  out = x;
  qwen3vl_gelu_tanh(is_bf16, out.data(), rows * size);
  say("gelu", is_bf16, out);
}

// Into a cache of float32, bfloat16 or int8 (kv_type 0 to 2).
template <class T, class A>
void turn(int is_bf16, int kv_type) {
  const int64_t tokens = 3, heads = 4, kv_heads = 2, size = 72, slots = 5;
  auto q = drawn<T>(tokens * heads * size), k = drawn<T>(tokens * kv_heads * size);
  const auto v = drawn<T>(tokens * kv_heads * size), q_weight = drawn<T>(size), k_weight = drawn<T>(size);
  const auto cosine = drawn<A>(tokens * size), sine = drawn<A>(tokens * size);
  const int64_t at[] = {4, 0, 2};
  std::vector<uint8_t> keys(kv_heads * slots * size * sizeof(float)), values(keys.size());
  std::vector<float> key_scales(kv_heads * slots), value_scales(kv_heads * slots);
  Qwen3vlTurn call{};
  call.q = q.data(), call.k = k.data(), call.v = v.data(), call.is_bf16 = is_bf16, call.tokens = tokens;
  call.q_heads = heads, call.kv_heads = kv_heads, call.size = size;
  call.q_token = heads * size, call.k_token = call.v_token = kv_heads * size;
  call.q_weight = q_weight.data(), call.k_weight = k_weight.data(), call.eps = 1e-6;
  call.cosine = cosine.data(), call.sine = sine.data(), call.angles_are_bf16 = sizeof(A) == 2, call.slots = at;
  call.keys = keys.data(), call.values = values.data(), call.cache_head = slots * size, call.cache_slot = size;
  call.kv_type = kv_type, call.key_scales = key_scales.data(), call.value_scales = value_scales.data();
  call.scale_head = slots;
  qwen3vl_turn(&call);
  say("turn q", is_bf16, q);
  say("turn k", is_bf16, k);
  say("turn keys", kv_type, keys);
  say("turn values", kv_type, values);
  say("turn scales", kv_type, value_scales);
}

// Unpacked weights. Portable C++ has no kernel for them: the digest is then of what the definition gives.
float in_lanes(const std::vector<float>& x, const std::vector<float>& w, int64_t token, int64_t row, int64_t k) {
  float a[8] = {};
  for (int64_t c = 0; c < k; ++c) a[c % 8] = std::fma(w[row * k + c], x[token * k + c], a[c % 8]);
  return ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]));
}

void few_rows(int is_bf16, int64_t m) {
  const int64_t n = 39, k = 104;
  const auto x = drawn<float>(m * k);
  const auto half = drawn<uint16_t>(n * k);
  auto w = drawn<float>(n * k);
  if (is_bf16)
    for (size_t i = 0; i < w.size(); ++i) w[i] = bf16_to_float(half[i]);
  std::vector<float> out(m * n);
  const void* weights = is_bf16 ? static_cast<const void*>(half.data()) : w.data();
  if (qwen3vl_rows(weights, is_bf16, x.data(), m, n, k, out.data()))
    for (int64_t i = 0; i < m * n; ++i) out[i] = in_lanes(x, w, i / n, i % n, k);
  say("few rows", is_bf16, out);
}

// With `cancels` every second product takes the one before it away: what is left is the rounding of single steps, which
// bfloat16 would hide.
void wide(int64_t m, int64_t n, int64_t k, bool cancels) {
  auto x = drawn<float>(m * k);
  auto w = drawn<uint16_t>(n * k), bias = drawn<uint16_t>(n);
  for (int64_t c = 1; cancels && c < k; c += 2) {
    for (int64_t i = 0; i < m; ++i) x[i * k + c] = -x[i * k + c - 1];
    for (int64_t i = 0; i < n; ++i) w[i * k + c] = w[i * k + c - 1];
  }
  if (cancels) bias.assign(n, 0);
  std::vector<uint16_t> out(m * n);
  if (qwen3vl_wide(w.data(), x.data(), m, n, k, bias.data(), out.data()))
    for (int64_t i = 0; i < m * n; ++i) {
      float sum = 0;
      for (int64_t c = 0; c < k; ++c) sum = std::fma(x[i / n * k + c], bf16_to_float(w[i % n * k + c]), sum);
      out[i] = bf16(sum + bf16_to_float(bias[i % n]));
    }
  say("wide", int(m), out);
}

std::vector<uint8_t> packed_of(int bits, int64_t n, int64_t k) {
  std::vector<float> weights(n * k);
  for (float& w : weights) w = next() * 0.05f;
  std::vector<uint8_t> packed(qwen3vl_packed_bytes(bits, n, k));
  qwen3vl_pack(bits, weights.data(), 0, n, k, nullptr, packed.data());
  return packed;
}

void layer(int bits) {
  const int64_t hidden = 64, inner = 96, heads = 4, kv_heads = 2, size = 32, tokens = 2, slots = 8;
  const auto q = packed_of(bits, heads * size, hidden), k = packed_of(bits, kv_heads * size, hidden),
             v = packed_of(bits, kv_heads * size, hidden), o = packed_of(bits, hidden, heads * size),
             gate_up = packed_of(bits, 2 * inner, hidden), down = packed_of(bits, hidden, inner);
  const auto norm = drawn<float>(hidden), head = drawn<float>(size);
  const auto cosine = drawn<float>(tokens * size), sine = drawn<float>(tokens * size);
  auto x = drawn<float>(tokens * hidden);
  std::vector<float> keys(kv_heads * slots * size), values(keys.size());
  const int64_t at[] = {3, 4}, sequences[] = {0, tokens, 0, 0, 1}, runs[] = {0, 3};
  Qwen3vlLayer what{};
  what.bits = bits, what.hidden = hidden, what.inner = inner, what.heads = heads, what.kv_heads = kv_heads;
  what.size = size, what.q_proj = q.data(), what.k_proj = k.data(), what.v_proj = v.data(), what.o_proj = o.data();
  what.gate_up = gate_up.data(), what.down = down.data(), what.input_norm = what.post_norm = norm.data();
  what.q_norm = what.k_norm = head.data(), what.eps = 1e-6, what.keys = keys.data(), what.values = values.data();
  what.cache_head = slots * size, what.cache_slot = size;
  const Qwen3vlPass pass{x.data(), tokens, cosine.data(), sine.data(), at, 1, sequences, runs};
  qwen3vl_layers(&what, 1, &pass);
  say("layer", bits, x);
}

}  // namespace

int main(int, char** arguments) {
  if (std::strcmp(arguments[1], "chosen") == 0) return std::puts(qwen3vl_isa()) < 0;
  if (qwen3vl_use_isa(arguments[1])) return 2;
  qwen3vl_set_threads(2);
  const int64_t n = 50, k = 160, m = 70;
  std::vector<float> weights(n * k), x(m * k), bias(n), importance(k);
  for (float& w : weights) w = next() * 0.05f;
  for (float& v : x) v = next() * (state % 97 == 0 ? 1000 : 1);
  for (int64_t i = 0; i < k; ++i) {  // zeros, values too small to divide by, ties
    x[k + i] = 0;
    x[2 * k + i] = i < 64 ? 1e-40f : 1e-36f;
    x[3 * k + i] = i % 32 == 0 ? 127.0f : float(i % 32) - 15.5f;
  }
  for (float& b : bias) b = next();
  for (float& i : importance) i = 1.5f + next();
  for (const int bits : {4, 8}) {
    std::vector<uint8_t> packed(qwen3vl_packed_bytes(bits, n, k));
    qwen3vl_pack(bits, weights.data(), 0, n, k, importance.data(), packed.data());
    say("pack", bits, packed);
    for (const int64_t tokens : {1, 2, 3, 5, 8, 70}) {
      std::vector<float> out(tokens * n);
      qwen3vl_matmul(bits, packed.data(), x.data(), tokens, n, k, bias.data(), 0, out.data());
      say("matmul", bits, out);
    }
    const std::vector<int64_t> ids = {0, 49, 17, 16};
    std::vector<float> rows(ids.size() * k);
    qwen3vl_unpack_rows(bits, packed.data(), k, ids.data(), int64_t(ids.size()), rows.data());
    say("rows", bits, rows);
  }
  for (const int64_t fresh : {1, 5, 40})
    for (const int64_t size : {64, 72, 36})
      for (const bool neighbours : {true, false})
        for (const bool causal : {true, false}) {
          attention<float, float>(0, 0, fresh, size, neighbours, causal);
          attention<uint16_t, uint16_t>(1, 1, fresh, size, neighbours, causal);
          attention<float, uint16_t>(0, 1, fresh, size, neighbours, causal);
          attention<float, int8_t>(0, 2, fresh, size, neighbours, causal);
        }
  steps<float>(0);
  steps<uint16_t>(1);
  for (const int kv_type : {0, 1, 2}) {
    turn<float, float>(0, kv_type);
    turn<uint16_t, float>(1, kv_type);
    turn<uint16_t, uint16_t>(1, kv_type);
  }
  for (const int64_t m : {1, 2, 5}) {
    few_rows(0, m);
    few_rows(1, m);
  }
  for (const int64_t m : {1, 2, 9, 523}) wide(m, 37, 100, m == 9);
  wide(7, 40, 1030, false);
  layer(4);
  layer(8);
  if (qwen3vl_probe_read(std::vector<uint8_t>(1 << 21).data(), 1 << 21) <= 0) return 3;
  if (qwen3vl_probe_arithmetic(0, 0.001) <= 0 || qwen3vl_probe_arithmetic(1, 0.001) <= 0) return 3;
}
