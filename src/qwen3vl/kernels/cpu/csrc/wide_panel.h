// See wide.h. The same source for every instruction set: vectors as wide as its flags allow.
#pragma once
#include <algorithm>
#include <cstring>
#include <memory>

#include "simd.h"
#include "simd_store.h"
#include "wide.h"

namespace qwen3vl {
namespace {

constexpr int64_t kColumns = 512;  // of weights that are widened at a time: with kRows of them, 32 or 64 KB
constexpr int64_t kRows = 2 * Wide::kLanes;
constexpr int kTokensAtOnce = 6;  // 12 sums, in registers

struct Room {
  alignas(64) float panel[kColumns * kRows];    // [column][row]
  alignas(64) float sums[kWideTokens * kRows];  // [token][row]
};

// Columns [column, column + columns) of kRows rows, widened and turned; rows past the last are zeros.
void widen(const WideProduct& product, int64_t first_row, int64_t column, int64_t columns, float* panel) {
  for (int64_t c = 0; c < columns; c += 8)
    for (int64_t r = 0; r < kRows; ++r) {
      const bool is_there = first_row + r < product.n;
      const uint16_t* from = product.weights + (first_row + r) * product.k + column + c;
      for (int64_t i = 0; i < std::min<int64_t>(8, columns - c); ++i)
        panel[(c + i) * kRows + r] = is_there ? bf16_to_float(from[i]) : 0.0f;
    }
}

// T tokens: sums += x * panel.
template <int T>
inline void multiply(const float* x, int64_t stride, const float* panel, int64_t columns, float* sums) {
  Wide low[T], high[T];
#pragma GCC unroll 6
  for (int t = 0; t < T; ++t) {
    low[t] = Wide::load(sums + t * kRows);
    high[t] = Wide::load(sums + t * kRows + Wide::kLanes);
  }
  for (int64_t c = 0; c < columns; ++c, panel += kRows) {
    const Wide a = Wide::load(panel), b = Wide::load(panel + Wide::kLanes);
#pragma GCC unroll 6
    for (int t = 0; t < T; ++t) {
      const Wide value = Wide::all(x[t * stride + c]);
      low[t] = fma(value, a, low[t]);
      high[t] = fma(value, b, high[t]);
    }
  }
#pragma GCC unroll 6
  for (int t = 0; t < T; ++t) {
    low[t].store(sums + t * kRows);
    high[t].store(sums + t * kRows + Wide::kLanes);
  }
}

void keep(const WideProduct& product, int64_t first_row, int64_t token, const float* sums) {
  const int64_t width = std::min(kRows, product.n - first_row);
  uint16_t* out = product.out + token * product.n + first_row;
  for (int64_t r = 0; r < width; r += 8) {
    const int64_t count = std::min<int64_t>(8, width - r);
    Vec8 value = Vec8::load(sums + r);
    if (product.bias != nullptr) value = value + load_some(product.bias + first_row + r, count);
    store_some(out + r, count, value);
  }
}

void run_panel(const WideProduct& product, int64_t first_row, int64_t first, int64_t count) {
  static thread_local std::unique_ptr<Room> room(new Room);
  std::memset(room->sums, 0, size_t(count * kRows) * sizeof(float));
  for (int64_t column = 0; column < product.k; column += kColumns) {
    const int64_t columns = std::min(kColumns, product.k - column);
    widen(product, first_row, column, columns, room->panel);
    const float* x = product.x + first * product.k + column;
    int64_t t = 0;
    for (; t + kTokensAtOnce <= count; t += kTokensAtOnce)
      multiply<kTokensAtOnce>(x + t * product.k, product.k, room->panel, columns, room->sums + t * kRows);
    for (; t + 2 <= count; t += 2)
      multiply<2>(x + t * product.k, product.k, room->panel, columns, room->sums + t * kRows);
    if (t < count) multiply<1>(x + t * product.k, product.k, room->panel, columns, room->sums + t * kRows);
  }
  for (int64_t t = 0; t < count; ++t) keep(product, first_row, first + t, room->sums + t * kRows);
}

constexpr WideKernel kWide = {kRows, run_panel};

}  // namespace
}  // namespace qwen3vl
