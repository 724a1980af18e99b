// Portable kernels: any CPU, and the yardstick for the others.
#include <cmath>

#include "half.h"
#include "kernels.h"
#include "pack_group.h"

namespace qwen3vl {
namespace {

// Weight values + offset of one row of a block, in column order.
template <int Bits>
void unpack_row(const uint8_t* values, int row, uint8_t* out) {
  for (int c = 0; c < kGroup; ++c) {
    if (Bits == 4) {
      const uint8_t byte = values[(c % 16) / 4 * kLine + 4 * row + c % 4];
      out[c] = c < 16 ? byte & 15 : byte >> 4;
    } else {
      out[c] = values[c / 4 * kLine + 4 * row + c % 4];
    }
  }
}

template <int Bits>
void tile(const uint8_t* weights, const Activations& x, int64_t first, int count, float* out) {
  for (int m = 0; m < count; ++m) {
    for (int r = 0; r < kTile; ++r) out[m * kTile + r] = 0;
    const int64_t token = first + m;
    for (int64_t g = 0; g < x.groups; ++g) {
      const uint8_t* block = weights + g * block_bytes(Bits);
      const int8_t* q = x.q + token * x.k + g * kGroup;
      for (int r = 0; r < kTile; ++r) {
        uint8_t w[kGroup];
        unpack_row<Bits>(block + kTile * 2, r, w);
        int32_t dot = -x.shift[token * x.groups + g];
        for (int c = 0; c < kGroup; ++c) dot += int32_t(w[c]) * q[c];
        const uint16_t half = uint16_t(block[2 * r] | block[2 * r + 1] << 8);
        const float scale = half_to_float(half) * x.scale[token * x.groups + g];
        out[m * kTile + r] = std::fma(float(dot), scale, out[m * kTile + r]);
      }
    }
  }
}

void quantize(const float* x, int64_t k, int offset, int8_t* q, float* scale, int32_t* shift) {
  for (int64_t g = 0; g < k / kGroup; ++g) {
    float largest = 0;
    for (int c = 0; c < kGroup; ++c) largest = std::fmax(largest, std::fabs(x[g * kGroup + c]));
    const float inverse = largest > 1e-35f ? 127.0f / largest : 0.0f;  // 127 / denormal would be infinite
    int32_t sum = 0;
    for (int c = 0; c < kGroup; ++c) {
      const int value = int(std::nearbyint(x[g * kGroup + c] * inverse));
      q[g * kGroup + c] = int8_t(value);
      sum += value;
    }
    scale[g] = largest > 1e-35f ? largest / 127.0f : 0.0f;
    shift[g] = sum * offset;
  }
}

const Kernels table = {"plain", tile<4>, tile<8>, nullptr, nullptr, quantize, nullptr, pack_group};

}  // namespace

const Kernels* plain_kernels() { return &table; }

}  // namespace qwen3vl
