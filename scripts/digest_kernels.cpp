// Digests of what the kernels give, to compare processors: cross_kernels.sh. Argument: the instruction set.
#include <cstdio>
#include <cstring>
#include <vector>

#include "qwen3vl_cpu.h"

namespace {

uint32_t state = 1;
float next() { return float(int((state = state * 1664525u + 1013904223u) >> 8) % 20001 - 10000) / 10000; }

template <class T>
void say(const char* what, int bits, const std::vector<T>& values) {
  uint64_t hash = 14695981039346656037ull;
  const auto* bytes = reinterpret_cast<const uint8_t*>(values.data());
  for (size_t i = 0; i < values.size() * sizeof(T); ++i) hash = (hash ^ bytes[i]) * 1099511628211ull;
  std::printf("%s %d %016llx\n", what, bits, static_cast<unsigned long long>(hash));
}

uint16_t bf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return uint16_t(bits >> 16);
}

template <class T>
std::vector<T> drawn(size_t count);
template <>
std::vector<float> drawn(size_t count) {
  std::vector<float> values(count);
  for (float& v : values) v = next() * 3;
  return values;
}
template <>
std::vector<uint16_t> drawn(size_t count) {
  std::vector<uint16_t> values(count);
  for (uint16_t& v : values) v = bf16(next() * 3);
  return values;
}
template <>
std::vector<int8_t> drawn(size_t count) {
  std::vector<int8_t> values(count);
  for (int8_t& v : values) v = int8_t(next() * 127);
  return values;
}

// Two sequences behind tokens before them, 4 heads on 2 key heads; the second one's keys lie in two runs.
template <class Query, class Key>
void attention(int64_t type, int64_t kv_type, int64_t fresh, int64_t size) {
  const int64_t heads = 4, kv_heads = 2, slots = 200, tokens = 2 * fresh;
  const auto q = drawn<Query>(tokens * heads * size);
  const auto k = drawn<Key>(kv_heads * slots * size), v = drawn<Key>(kv_heads * slots * size);
  std::vector<float> k_scale(kv_heads * slots), v_scale(kv_heads * slots);
  for (float& scale : k_scale) scale = 0.02f + 0.01f * next();
  for (float& scale : v_scale) scale = 0.02f + 0.01f * next();
  std::vector<Query> out(tokens * heads * size);
  const int64_t sequences[] = {0, fresh, 7, 0, 1, fresh, fresh, 50, 1, 2}, runs[] = {0, 3, 0, 60, 20, 110};
  Qwen3vlAttention call{};
  call.q = q.data(), call.out = out.data(), call.type = type;
  call.q_token = call.out_token = heads * size, call.q_head = call.out_head = size;
  call.k = k.data(), call.v = v.data(), call.kv_type = kv_type;
  call.k_slot = call.v_slot = size, call.k_head = call.v_head = slots * size;
  if (kv_type == 2) call.k_scale = k_scale.data(), call.v_scale = v_scale.data();
  call.scale_head = slots, call.num_heads = heads, call.num_kv_heads = kv_heads, call.size = size;
  call.num_sequences = 2, call.sequences = sequences, call.runs = runs, call.causal = 1, call.scale = 0.125;
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

}  // namespace

int main(int, char** arguments) {
  if (qwen3vl_use_isa(arguments[1])) return 2;
  qwen3vl_set_threads(2);
  const int64_t n = 50, k = 160, m = 70;
  std::vector<float> weights(n * k), x(m * k), bias(n), importance(k);
  for (float& w : weights) w = next() * 0.05f;
  for (float& v : x) v = next() * (state % 97 == 0 ? 1000 : 1);
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
    for (const int64_t size : {64, 72}) {
      attention<float, float>(0, 0, fresh, size);
      attention<uint16_t, uint16_t>(1, 1, fresh, size);
      attention<float, int8_t>(0, 2, fresh, size);
    }
  steps<float>(0);
  steps<uint16_t>(1);
}
