// Products of activations and packed weights: quantise the activations, then tiles of 16 features on all threads.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels.h"
#include "pool.h"
#include "qwen3vl_cpu.h"

namespace qwen3vl {

namespace {

const Kernels* choose() {
  if (cpu_has_avx512() && avx512_kernels()) return avx512_kernels();
  if (cpu_has_avx2() && avx2_kernels()) return avx2_kernels();
  return plain_kernels();
}

}  // namespace

const Kernels* kernels = choose();

namespace {

enum Epilogue { kNone = 0, kGeluTanh = 1, kGeluErf = 2, kSwiglu = 3, kAdd = 4 };

// Tokens that are worked on at a time: their quantised values stay in the second-level cache of a core.
constexpr int kTokens = 64;

float gelu_tanh(float x) { return 0.5f * x * (1 + std::tanh(0.7978845608028654f * (x + 0.044715f * x * x * x))); }
float gelu_erf(float x) { return 0.5f * x * (1 + std::erf(x * 0.7071067811865476f)); }

// Buffers that live as long as their thread: allocating them for every product would cost page faults.
struct Scratch {
  std::vector<int8_t> q;
  std::vector<float> scale;
  std::vector<int32_t> shift;
};

struct Product {
  int bits;
  const uint8_t* packed;
  Activations x;
  int64_t m, n;
  const float* bias;
  int epilogue;
  float* out;

  size_t stride() const { return size_t(x.groups) * block_bytes(bits); }

  void multiply(int64_t tile, int64_t first, int count, float* result) const {
    (bits == 4 ? kernels->tile4 : kernels->tile8)(packed + size_t(tile) * stride(), x, first, count, result);
  }

  void run_tile(int64_t tile, int64_t first, int count) const {
    alignas(64) float result[kTokens * kTile];
    multiply(tile, first, count, result);
    const int64_t column = tile * kTile;
    const int width = int(std::min<int64_t>(kTile, n - column));
    for (int m = 0; m < count; ++m) {
      float* row = out + (first + m) * n + column;
      for (int c = 0; c < width; ++c) {
        float value = result[m * kTile + c] + (bias ? bias[column + c] : 0.0f);
        if (epilogue == kGeluTanh) value = gelu_tanh(value);
        if (epilogue == kGeluErf) value = gelu_erf(value);
        row[c] = epilogue == kAdd ? row[c] + value : value;
      }
    }
  }

  void run_pair(int64_t pair, int64_t first, int count) const {
    alignas(64) float gate[kTokens * kTile], up[kTokens * kTile];
    multiply(2 * pair, first, count, gate);
    multiply(2 * pair + 1, first, count, up);
    for (int m = 0; m < count; ++m)
      for (int c = 0; c < kTile; ++c) {
        const float g = gate[m * kTile + c];
        out[(first + m) * (n / 2) + pair * kTile + c] = g / (1 + std::exp(-g)) * up[m * kTile + c];
      }
  }
};

}  // namespace
}  // namespace qwen3vl

using namespace qwen3vl;

int qwen3vl_abi_version() { return 4; }
const char* qwen3vl_isa() { return kernels->name; }
void qwen3vl_set_threads(int count) { set_threads(count); }
int qwen3vl_threads() { return num_threads(); }

int qwen3vl_use_isa(const char* name) {
  const Kernels* known[] = {plain_kernels(), cpu_has_avx2() ? avx2_kernels() : nullptr,
                            cpu_has_avx512() ? avx512_kernels() : nullptr};
  for (const Kernels* table : known)
    if (table && std::strcmp(table->name, name) == 0) {
      kernels = table;
      return 0;
    }
  return -1;
}

void qwen3vl_matmul(int bits, const uint8_t* packed, const float* x_MK, int64_t m, int64_t n, int64_t k,
                    const float* bias_N, int epilogue, float* out_MN) {
  if (m <= 0) return;
  static thread_local Scratch scratch;
  const int64_t groups = k / kGroup;
  scratch.q.resize(size_t(m * k));
  scratch.scale.resize(size_t(m * groups));
  scratch.shift.resize(size_t(m * groups));
  int8_t* q = scratch.q.data();
  float* scale = scratch.scale.data();
  int32_t* shift = scratch.shift.data();
  auto quantize = [&](int64_t token) {
    kernels->quantize(x_MK + token * k, k, offset_of(bits), q + token * k, scale + token * groups,
                      shift + token * groups);
  };
  if (m < 8) {
    for (int64_t i = 0; i < m; ++i) quantize(i);
  } else {
    parallel_for(m, quantize);
  }
  const Product product{bits, packed, Activations{q, scale, shift, k, groups}, m, n, bias_N, epilogue, out_MN};
  const int64_t tiles = epilogue == kSwiglu ? n / (2 * kTile) : tiles_of(n);
  // A task is a run of tiles for one block of tokens: at least some 30 microseconds of work.
  const int64_t run = std::max<int64_t>(1, 65536 / (k * std::min<int64_t>(m, kTokens)) + 1);
  const int64_t runs = (tiles + run - 1) / run, blocks = (m + kTokens - 1) / kTokens;
  parallel_for(runs * blocks, [&](int64_t task) {
    const int64_t first = task / runs * kTokens, start = task % runs * run;
    const int count = int(std::min<int64_t>(kTokens, m - first));
    for (int64_t tile = start; tile < std::min(tiles, start + run); ++tile)
      epilogue == kSwiglu ? product.run_pair(tile, first, count) : product.run_tile(tile, first, count);
  });
}

int qwen3vl_rows(const void* weights_NK, int is_bf16, const float* x_MK, int64_t m, int64_t n, int64_t k,
                 float* out_MN) {
  if (kernels->rows == nullptr || k % 8 != 0) return -1;
  const int64_t run = std::max<int64_t>(12, (131072 / k + 11) / 12 * 12);  // rows of a task: a multiple of 3
  parallel_for((n + run - 1) / run, [&](int64_t task) {
    kernels->rows(weights_NK, is_bf16 != 0, task * run, std::min(n, (task + 1) * run), x_MK, m, n, k, out_MN);
  });
  return 0;
}
