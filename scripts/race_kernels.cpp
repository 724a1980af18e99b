// For ThreadSanitizer (sanitize_kernels.sh threads): products asked for by several threads while the pool changes size.
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include "qwen3vl_cpu.h"

int main() {
  const int64_t n = 320, k = 128, m = 70;
  std::vector<float> weights(n * k), x(m * k), expected(m * n);
  for (size_t i = 0; i < weights.size(); ++i) weights[i] = float(int(i * 2654435761u >> 16) % 200 - 100) / 1000;
  for (size_t i = 0; i < x.size(); ++i) x[i] = float(int(i * 40503u >> 8) % 64 - 32) / 8;
  std::vector<uint8_t> packed(qwen3vl_packed_bytes(4, n, k));
  qwen3vl_set_threads(3);
  qwen3vl_pack(4, weights.data(), 0, n, k, nullptr, packed.data());
  qwen3vl_matmul(4, packed.data(), x.data(), m, n, k, nullptr, 0, expected.data());
  int wrong = 0;
  std::vector<std::thread> callers;
  std::vector<int> failures(4);
  for (int c = 0; c < 4; ++c)
    callers.emplace_back([&, c] {
      std::vector<float> out(m * n), few(2 * n);
      for (int i = 0; i < 50; ++i) {
        if (c == 0) qwen3vl_set_threads(1 + i % 3);
        qwen3vl_matmul(4, packed.data(), x.data(), m, n, k, nullptr, 0, out.data());
        qwen3vl_rows(weights.data(), 0, x.data(), 2, n, k, few.data());
        failures[c] += std::memcmp(out.data(), expected.data(), out.size() * sizeof(float)) != 0;
      }
    });
  for (auto& caller : callers) caller.join();
  for (int f : failures) wrong += f;
  std::printf("%d of 200 products differ\n", wrong);
  return wrong != 0;
}
