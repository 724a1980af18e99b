// Products of activations and packed weights: quantise the activations, then tiles of 16 features on all threads.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels.h"
#include "pool.h"
#include "qwen3vl_cpu.h"
#include "steps.h"

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

enum Epilogue { kNone = 0, kGeluTanh = 1, kGeluErf = 2, kSwiglu = 3 };

// Tokens that are worked on at a time: their quantised values stay in the second-level cache of a core.
constexpr int kTokens = 64;

float gelu_erf(float x) { return 0.5f * x * (1 + std::erf(x * 0.7071067811865476f)); }

// Buffers that live as long as their thread: allocating them for every product would cost page faults.
struct Scratch {
  std::vector<int8_t> q;
  std::vector<float> scale;
  std::vector<int32_t> shift;
};

// Quantised once, however many products follow.
Activations quantize(const float* x_MK, int64_t m, int64_t k, int bits) {
  static thread_local Scratch scratch;
  const int64_t groups = k / kGroup;
  scratch.q.resize(size_t(m * k));
  scratch.scale.resize(size_t(m * groups));
  scratch.shift.resize(size_t(m * groups));
  int8_t* q = scratch.q.data();
  float* scale = scratch.scale.data();
  int32_t* shift = scratch.shift.data();
  auto one = [&](int64_t token) {
    kernels->quantize(x_MK + token * k, k, offset_of(bits), q + token * k, scale + token * groups,
                      shift + token * groups);
  };
  if (m < 8) {
    for (int64_t i = 0; i < m; ++i) one(i);
  } else {
    parallel_for(m, one);
  }
  return Activations{q, scale, shift, k, groups};
}

struct Product {
  int bits;
  Qwen3vlMatrix matrix;
  Activations x;
  int64_t m;
  int epilogue;

  int64_t tiles() const { return epilogue == kSwiglu ? matrix.n / (2 * kTile) : tiles_of(matrix.n); }
  // A task is a run of tiles for one block of tokens: at least some 30 microseconds of work.
  int64_t run() const { return std::max<int64_t>(1, 65536 / (x.k * std::min<int64_t>(m, kTokens)) + 1); }
  int64_t runs() const { return (tiles() + run() - 1) / run(); }
  int64_t tasks() const { return runs() * ((m + kTokens - 1) / kTokens); }

  void work(int64_t task) const {
    const int64_t first = task / runs() * kTokens, start = task % runs() * run();
    const int count = int(std::min<int64_t>(kTokens, m - first));
    for (int64_t tile = start; tile < std::min(tiles(), start + run()); ++tile)
      epilogue == kSwiglu ? run_pair(tile, first, count) : run_tile(tile, first, count);
  }

  void multiply(int64_t tile, int64_t first, int count, float* result) const {
    const size_t stride = size_t(x.groups) * block_bytes(bits);
    (bits == 4 ? kernels->tile4 : kernels->tile8)(matrix.packed + size_t(tile) * stride, x, first, count, result);
  }

  void run_tile(int64_t tile, int64_t first, int count) const {
    alignas(64) float result[kTokens * kTile];
    multiply(tile, first, count, result);
    const int64_t column = tile * kTile;
    const int width = int(std::min<int64_t>(kTile, matrix.n - column));
    if (matrix.bias != nullptr)
      for (int m = 0; m < count; ++m)
        for (int c = 0; c < width; ++c) result[m * kTile + c] += matrix.bias[column + c];
    if (epilogue == kGeluTanh) steps()->gelu_tanh(result, false, 0, count * kTile);
    if (epilogue == kGeluErf)
      for (int i = 0; i < count * kTile; ++i) result[i] = gelu_erf(result[i]);
    for (int m = 0; m < count; ++m)
      std::memcpy(matrix.out + (first + m) * matrix.n + column, result + m * kTile, size_t(width) * sizeof(float));
  }

  void run_pair(int64_t pair, int64_t first, int count) const {
    alignas(64) float gate[kTokens * kTile], up[kTokens * kTile];
    multiply(2 * pair, first, count, gate);
    multiply(2 * pair + 1, first, count, up);
    steps()->swiglu(GatedRows{gate, up, gate, 0, 0, count * kTile}, false, 0, 1);
    for (int m = 0; m < count; ++m)
      std::memcpy(matrix.out + (first + m) * (matrix.n / 2) + pair * kTile, gate + m * kTile, kTile * sizeof(float));
  }
};

// All products on all threads.
void multiply_all(int bits, const Qwen3vlMatrix* matrices, int64_t num_matrices, const float* x_MK, int64_t m,
                  int64_t k, int epilogue) {
  if (m <= 0) return;
  const Activations x = quantize(x_MK, m, k, bits);
  std::vector<Product> products;
  int64_t tasks = 0;
  for (int64_t i = 0; i < num_matrices; ++i) {
    products.push_back({bits, matrices[i], x, m, epilogue});
    tasks += products.back().tasks();
  }
  parallel_for(tasks, [&](int64_t task) {
    const Product* product = products.data();
    for (; task >= product->tasks(); ++product) task -= product->tasks();
    product->work(task);
  });
}

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
  const Qwen3vlMatrix matrix{packed, n, bias_N, out_MN};
  multiply_all(bits, &matrix, 1, x_MK, m, k, epilogue);
}

void qwen3vl_matmul_several(int bits, const Qwen3vlMatrix* matrices, int64_t num_matrices, const float* x_MK,
                            int64_t m, int64_t k) {
  multiply_all(bits, matrices, num_matrices, x_MK, m, k, kNone);
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
