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
  if (cpu_has_neon() && neon_kernels()) return neon_kernels();
  return plain_kernels();
}

}  // namespace

const Kernels* kernels = choose();

namespace {

enum Epilogue { kNone = 0, kGeluTanh = 1, kGeluErf = 2, kSwiglu = 3 };

// Tokens that are worked on at a time: their quantised values stay in the second-level cache of a core.
constexpr int kTokens = 64;
constexpr int kMany = 12;      // tokens from which on it pays to take weights apart first
constexpr int kManyTiles = 8;  // of a task then

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

  bool swiglu() const { return epilogue == kSwiglu; }
  bool many() const { return kernels->many8 != nullptr && m >= kMany; }
  int64_t units() const { return swiglu() ? matrix.n / (2 * kTile) : tiles_of(matrix.n); }  // tiles, or pairs of them
  // A task is a run of units for one block of tokens: at least some 30 microseconds of work.
  int64_t run() const {
    if (many()) return swiglu() ? kManyTiles / 2 : kManyTiles;
    return std::max<int64_t>(1, 65536 / (x.k * std::min<int64_t>(m, kTokens)) + 1);
  }
  int64_t runs() const { return (units() + run() - 1) / run(); }
  // With many tokens blocks are of about equal size. Example: 512 are four blocks of 105 and one of 92.
  int64_t block() const {
    if (!many()) return kTokens;
    const int64_t blocks = (m + kManyTokens - 1) / kManyTokens;
    return ((m + blocks - 1) / blocks + 2) / 3 * 3;
  }
  int64_t tasks() const { return runs() * ((m + block() - 1) / block()); }

  void work(int64_t task) const {
    const int64_t first = task / runs() * block(), start = task % runs() * run();
    const int64_t end = std::min(units(), start + run());
    const int count = int(std::min<int64_t>(block(), m - first)), each = swiglu() ? 2 : 1;
    if (many()) {
      alignas(64) static thread_local float results[kManyTiles * kManyTokens * kTile];
      const uint8_t* from = matrix.packed + size_t(start) * size_t(each) * tile_bytes();
      (bits == 4 ? kernels->many4 : kernels->many8)(from, int(end - start) * each, x, first, count, results);
      for (int64_t unit = start; unit < end; ++unit)
        finish(unit, first, count, results + (unit - start) * each * count * kTile);
      return;
    }
    alignas(64) float result[2 * kTokens * kTile];
    for (int64_t unit = start; unit < end; ++unit) {
      for (int i = 0; i < each; ++i) multiply(unit * each + i, first, count, result + i * count * kTile);
      finish(unit, first, count, result);
    }
  }

  size_t tile_bytes() const { return size_t(x.groups) * block_bytes(bits); }

  void multiply(int64_t tile, int64_t first, int count, float* result) const {
    (bits == 4 ? kernels->tile4 : kernels->tile8)(matrix.packed + size_t(tile) * tile_bytes(), x, first, count, result);
  }

  // What is left to do with the sums [tokens][16] of a tile, or of a pair of them.
  void finish(int64_t unit, int64_t first, int count, float* result) const {
    const int64_t column = unit * kTile, out_n = swiglu() ? matrix.n / 2 : matrix.n;
    const int width = int(std::min<int64_t>(kTile, out_n - column));
    if (swiglu()) steps()->swiglu(GatedRows{result, result + count * kTile, result, 0, 0, count * kTile}, false, 0, 1);
    if (matrix.bias != nullptr && !swiglu())
      for (int m = 0; m < count; ++m)
        for (int c = 0; c < width; ++c) result[m * kTile + c] += matrix.bias[column + c];
    if (epilogue == kGeluTanh) steps()->gelu_tanh(result, false, 0, count * kTile);
    if (epilogue == kGeluErf)
      for (int i = 0; i < count * kTile; ++i) result[i] = gelu_erf(result[i]);
    for (int m = 0; m < count; ++m)
      std::memcpy(matrix.out + (first + m) * out_n + column, result + m * kTile, size_t(width) * sizeof(float));
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

int qwen3vl_abi_version() { return 6; }
const char* qwen3vl_isa() { return kernels->name; }
void qwen3vl_set_threads(int count) { set_threads(count); }
int qwen3vl_threads() { return num_threads(); }

int qwen3vl_use_isa(const char* name) {
  const Kernels* known[] = {plain_kernels(), cpu_has_avx2() ? avx2_kernels() : nullptr,
                            cpu_has_avx512() ? avx512_kernels() : nullptr,
                            cpu_has_neon() ? neon_kernels() : nullptr};
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
