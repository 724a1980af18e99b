// Weights to packed int4 and int8, and rows back to floats.
#include <cmath>
#include <cstring>

#include "half.h"
#include "kernels.h"
#include "pool.h"
#include "qwen3vl_cpu.h"

namespace qwen3vl {
namespace {

struct Weights {
  const void* data;
  bool is_bf16;
  int64_t n, k;

  void group(int64_t row, int64_t g, float* out) const {
    const int64_t start = row * k + g * kGroup;
    if (is_bf16) {
      const uint16_t* values = static_cast<const uint16_t*>(data) + start;
      for (int c = 0; c < kGroup; ++c) out[c] = bf16_to_float(values[c]);
    } else {
      std::memcpy(out, static_cast<const float*>(data) + start, kGroup * sizeof(float));
    }
  }
};

void put_row(int bits, uint8_t* block, int row, float scale, const int8_t* q) {
  const uint16_t half = float_to_half(scale);
  std::memcpy(block + 2 * row, &half, 2);
  uint8_t* values = block + kTile * 2;
  const int offset = offset_of(bits);
  if (bits == 4) {
    for (int c = 0; c < 16; ++c)
      values[c / 4 * kLine + 4 * row + c % 4] = uint8_t((q[c] + offset) | (q[c + 16] + offset) << 4);
  } else {
    for (int c = 0; c < kGroup; ++c) values[c / 4 * kLine + 4 * row + c % 4] = uint8_t(q[c] + offset);
  }
}

void pack_tile(int bits, const Weights& w, const float* importance, int64_t tile, uint8_t* out) {
  float x[kGroup], weight[kGroup];
  int8_t q[kGroup];
  for (int64_t g = 0; g < w.k / kGroup; ++g, out += block_bytes(bits)) {
    for (int r = 0; r < kTile; ++r) {
      const int64_t row = tile * kTile + r;
      float scale = 0;
      std::memset(q, 0, sizeof q);
      if (row < w.n) {
        w.group(row, g, x);
        // With an importance this is the expected error of the product; without one, large weights count more.
        for (int c = 0; c < kGroup; ++c) weight[c] = importance ? importance[g * kGroup + c] : std::fabs(x[c]) + 1e-12f;
        scale = kernels->pack_group(x, weight, offset_of(bits) - 1, q);
      }
      put_row(bits, out, r, scale, q);
    }
  }
}

}  // namespace
}  // namespace qwen3vl

using namespace qwen3vl;

size_t qwen3vl_packed_bytes(int bits, int64_t n, int64_t k) {
  return size_t(tiles_of(n)) * size_t(k / kGroup) * block_bytes(bits);
}

void qwen3vl_pack(int bits, const void* weights_NK, int is_bf16, int64_t n, int64_t k, const float* importance_K,
                  uint8_t* packed) {
  const Weights weights{weights_NK, is_bf16 != 0, n, k};
  const size_t stride = size_t(k / kGroup) * block_bytes(bits);
  parallel_for(tiles_of(n), [&](int64_t t) { pack_tile(bits, weights, importance_K, t, packed + size_t(t) * stride); });
}

void qwen3vl_unpack_rows(int bits, const uint8_t* packed, int64_t k, const int64_t* ids_M, int64_t m, float* out_MK) {
  const size_t stride = size_t(k / kGroup) * block_bytes(bits);
  for (int64_t i = 0; i < m; ++i) {
    const uint8_t* block = packed + size_t(ids_M[i] / kTile) * stride;
    const int row = int(ids_M[i] % kTile), offset = offset_of(bits);
    float* out = out_MK + i * k;
    for (int64_t g = 0; g < k / kGroup; ++g, block += block_bytes(bits), out += kGroup) {
      uint16_t half;
      std::memcpy(&half, block + 2 * row, 2);
      const float scale = half_to_float(half);
      const uint8_t* values = block + kTile * 2;
      for (int c = 0; c < kGroup; ++c) {
        const uint8_t byte = values[(bits == 4 ? c % 16 : c) / 4 * kLine + 4 * row + c % 4];
        const int value = bits == 8 ? byte : c < 16 ? byte & 15 : byte >> 4;
        out[c] = float(value - offset) * scale;
      }
    }
  }
}
