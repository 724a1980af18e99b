// Digests of what the kernels give, to compare processors: cross_kernels.sh. Argument: the instruction set.
#include <cstdio>
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
}
