// Many rows: panels of rows that lie across the lanes of vectors, so that nothing is ever added across lanes.
//
// Scores of a panel and a block are kept transposed, [key][row]: a key's value is spread over the lanes and multiplied
// with one column of the panel's queries. Included by one file for each instruction set.
#pragma once
#include "attention.h"
#include "simd.h"

namespace qwen3vl {
namespace {

constexpr int kLanes = Wide::kLanes, kPanelVectors = 3, kPanel = kLanes * kPanelVectors;
constexpr int kKeys = kLanes == 16 ? 8 : 4, kRows = kLanes == 16 ? 12 : 6;  // of a tile: what the registers hold
constexpr int kStrip = 2 * kLanes;  // columns of values that are summed at a time
constexpr float kLowest = -3.4028234663852886e38f;

inline int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

inline float element(const char* values, ValueType type, int64_t at) {
  if (type == kFloat32) return reinterpret_cast<const float*>(values)[at];
  return bf16_to_float(reinterpret_cast<const uint16_t*>(values)[at]);
}

inline float value_of(float x) { return x; }
inline float value_of(uint16_t x) { return bf16_to_float(x); }
inline float value_of(int8_t x) { return float(x); }

inline uint16_t bf16_of(float x) {
  const uint32_t u = bits_of(x);
  if ((u & 0x7fffffff) > 0x7f800000) return uint16_t(u >> 16 | 0x40);  // NaN stays one
  return uint16_t((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

// One row of the answer: sums over weights.
inline void write_row(const QueryRows& rows, int64_t i, const float* sums, float total) {
  const int64_t r = rows.first + i, at = r / rows.group * rows.out_token + r % rows.group * rows.out_head;
  const float inverse = 1.0f / total;
  if (rows.type == kFloat32) {
    float* out = reinterpret_cast<float*>(rows.out) + at;
    for (int64_t x = 0; x < rows.size; ++x) out[x] = sums[x] * inverse;
  } else {
    uint16_t* out = reinterpret_cast<uint16_t*>(rows.out) + at;
    for (int64_t x = 0; x < rows.size; ++x) out[x] = bf16_of(sums[x] * inverse);
  }
}

// A panel of V vectors of rows. Lanes without a row compute along with zeros.
struct Panel {
  int rows, vectors;        // rows in use
  int64_t fewest, most;     // keys that its first and its last row see
  float *q, *out;           // [size][vectors * lanes], [rows][width]
  float *seen, *peak, *total;  // [vectors * lanes]
};

// What a thread needs for a task.
struct Buffers {
  float *keys, *values;  // of a block: [key][size]; strips of [key][kStrip], so that one stays in the first-level cache
  float *weights, *sums;  // [kBlock][kPanel], [8][kPanel]
  float *old_factor, *new_factor;  // [kPanel]
};

// Scores of N keys from `j` on, into weights[j ..]; `peak` takes the largest.
template <int N, int V, bool Masked>
inline void score_keys(const Panel& panel, int64_t size, const KeyBlock& block, int64_t first_key, int j, bool scaled,
                       const Buffers& use, Wide* peak) {
  constexpr int kStride = V * kLanes;
  Wide s[N][V];
  for (int n = 0; n < N; ++n)
    for (int v = 0; v < V; ++v) s[n][v] = Wide::all(0);
  const float *k = use.keys + j * size, *q = panel.q;
  for (int64_t x = 0; x < size; ++x, q += kStride) {
    Wide column[V];
    for (int v = 0; v < V; ++v) column[v] = Wide::load(q + v * kLanes);
    for (int n = 0; n < N; ++n) {
      const Wide key = Wide::all(k[n * size + x]);
      for (int v = 0; v < V; ++v) s[n][v] = fma(key, column[v], s[n][v]);
    }
  }
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n) {
    const Wide number = Wide::all(float(first_key + j + n + 1));  // exact below 2 ** 24
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) {
      Wide score = s[n][v];
      if (scaled) score = score * Wide::all(block.k_scale[j + n]);
      if (Masked) score = where_less(Wide::load(panel.seen + v * kLanes), number, Wide::all(-INFINITY), score);
      peak[v] = max(score, peak[v]);
      score.store(use.weights + (j + n) * kStride + v * kLanes);
    }
  }
}

template <int V, bool Masked>
void score(const Panel& panel, int64_t size, const KeyBlock& block, int64_t first_key, int count, bool scaled,
           const Buffers& use, Wide* peak) {
  int j = 0;
  for (; j + kKeys <= count; j += kKeys)
    score_keys<kKeys, V, Masked>(panel, size, block, first_key, j, scaled, use, peak);
  for (; j < count; ++j) score_keys<1, V, Masked>(panel, size, block, first_key, j, scaled, use, peak);
}

// Scores to weights 2 ** (score - peak); the sum of each row's weights goes into total[v]. Keys are added in eight sums, key
// j in sum j % 8, and these in pairs: an order that few rows, whose lanes are keys, have too.
template <int V>
void weigh(const KeyBlock& block, int count, bool scaled, const Wide* peak, float* weights, float* sums, Wide* total) {
  constexpr int kStride = V * kLanes;
  for (int i = 0; i < 8 * V; ++i) Wide::all(0).store(sums + i * kLanes);
  for (int j = 0; j < count; ++j) {
    float *row = weights + j * kStride, *sum = sums + j % 8 * kStride;
    for (int v = 0; v < V; ++v) {
      Wide weight = exp2_of(Wide::load(row + v * kLanes) - peak[v]);
      (Wide::load(sum + v * kLanes) + weight).store(sum + v * kLanes);
      if (scaled) weight = weight * Wide::all(block.v_scale[j]);
      weight.store(row + v * kLanes);
    }
  }
  for (int v = 0; v < V; ++v) {
    Wide s[8];
    for (int i = 0; i < 8; ++i) s[i] = Wide::load(sums + i * kStride + v * kLanes);
    total[v] = ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
  }
}

// out = out * old_factor + new_factor * (weights x values), for R rows and C vectors of columns.
template <int R, int C>
inline void mix_tile(const float* values, int count, const float* weights, int stride, const float* old_factor,
                     const float* new_factor, float* out, int64_t width) {
  Wide sum[R][C];
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) sum[r][c] = Wide::all(0);
  for (int j = 0; j < count; ++j, weights += stride, values += kStrip) {
    Wide value[C];
    for (int c = 0; c < C; ++c) value[c] = Wide::load(values + c * kLanes);
    for (int r = 0; r < R; ++r) {
      const Wide weight = Wide::all(weights[r]);
      for (int c = 0; c < C; ++c) sum[r][c] = fma(weight, value[c], sum[r][c]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) {
      float* at = out + r * width + c * kLanes;
      fma(sum[r][c], Wide::all(new_factor[r]), Wide::load(at) * Wide::all(old_factor[r])).store(at);
    }
}

template <int C>
void mix_strip(const Panel& panel, int count, int block_keys, int64_t column, const Buffers& use, int64_t width) {
  const float* values = use.values + column * block_keys;
  const int stride = panel.vectors * kLanes;
  auto at = [&](int r, auto tile) {
    tile(values, count, use.weights + r, stride, use.old_factor + r, use.new_factor + r,
         panel.out + r * width + column, width);
  };
  int r = 0;
  for (; r + kRows <= panel.rows; r += kRows) at(r, mix_tile<kRows, C>);
  for (; r + 3 <= panel.rows; r += 3) at(r, mix_tile<3, C>);
  for (; r < panel.rows; ++r) at(r, mix_tile<1, C>);
}

template <int V>
void see(const Panel& panel, int64_t size, int64_t width, const KeyBlock& block, int64_t first_key, bool scaled,
         const Buffers& use) {
  const int64_t visible = panel.most - first_key;
  const int count = visible < block.count ? int(visible) : block.count;
  Wide peak[V], total[V];
  for (int v = 0; v < V; ++v) peak[v] = Wide::all(kLowest);
  if (first_key + count > panel.fewest)
    score<V, true>(panel, size, block, first_key, count, scaled, use, peak);
  else
    score<V, false>(panel, size, block, first_key, count, scaled, use, peak);
  weigh<V>(block, count, scaled, peak, use.weights, use.sums, total);
  for (int v = 0; v < V; ++v) {
    const int at = v * kLanes;
    const Wide before = Wide::load(panel.peak + at), now = max(before, peak[v]);
    const Wide old_factor = exp2_of(before - now), new_factor = exp2_of(peak[v] - now);
    fma(total[v], new_factor, Wide::load(panel.total + at) * old_factor).store(panel.total + at);
    now.store(panel.peak + at);
    old_factor.store(use.old_factor + at);
    new_factor.store(use.new_factor + at);
  }
  int64_t column = 0;
  for (; column + kStrip <= width; column += kStrip) mix_strip<2>(panel, count, block.count, column, use, width);
  if (column < width) mix_strip<1>(panel, count, block.count, column, use, width);
}

// Rows `start` .. of the task as a panel.
Panel make_panel(const QueryRows& rows, int64_t start, int64_t width, float*& room) {
  Panel panel;
  const int64_t left = rows.count - start;
  panel.rows = left < kPanel ? int(left) : kPanel;
  panel.vectors = (panel.rows + kLanes - 1) / kLanes;
  const int stride = panel.vectors * kLanes;
  auto take = [&](int64_t count) {
    float* taken = room;
    room += round_up(count, 16);
    return taken;
  };
  panel.q = take(rows.size * stride);
  panel.out = take(panel.rows * width);
  panel.seen = take(stride);
  panel.peak = take(stride);
  panel.total = take(stride);
  for (int64_t i = 0; i < rows.size * stride; ++i) panel.q[i] = 0;
  for (int64_t i = 0; i < panel.rows * width; ++i) panel.out[i] = 0;
  for (int i = 0; i < stride; ++i) {
    panel.seen[i] = float(rows.seen(start + (i < panel.rows ? i : 0)));
    panel.peak[i] = kLowest;
    panel.total[i] = 0;
  }
  panel.fewest = rows.seen(start);
  panel.most = rows.seen(start + panel.rows - 1);
  for (int i = 0; i < panel.rows; ++i) {
    const int64_t r = rows.first + start + i, at = r / rows.group * rows.q_token + r % rows.group * rows.q_head;
    for (int64_t x = 0; x < rows.size; ++x) panel.q[x * stride + i] = element(rows.q, rows.type, at + x) * rows.scale;
  }
  return panel;
}

// Values [from, to) of a row as float32, zeros where the row has ended.
template <typename T>
inline void widen(const T* row, int64_t size, int64_t from, int64_t to, float* out) {
  for (; from + 8 <= to && from + 8 <= size; from += 8, out += 8) Vec8::load(row + from).store(out);
  for (; from < to; ++from) *out++ = from < size ? value_of(row[from]) : 0;
}

Widths widths_of(int64_t size) {
  const int64_t vectors = round_up(size, kLanes);
  return {size, vectors, round_up(vectors, kStrip)};
}

// Key and value `j` of `count` into a block of floats.
template <typename T>
inline void pack_row(const T* k, const T* v, int j, int count, const Widths& w, float* block) {
  widen(k, w.size, 0, w.size, block + j * w.size);
  block += count * w.size;
  for (int64_t column = 0; column < w.vectors; column += kStrip) {
    const int64_t end = column + kStrip < w.vectors ? column + kStrip : w.vectors;
    widen(v, w.size, column, end, block + column * count + j * kStrip);
  }
}

template <typename T>
void pack_heads(const KeyBlock& block, const Widths& w, int64_t num_heads, int64_t k_head, int64_t v_head, float* out,
                int64_t head_floats) {
  for (int j = 0; j < block.count; ++j)
    for (int64_t head = 0; head < num_heads; ++head) {
      const void* k = static_cast<const char*>(block.k[j]) + head * k_head;
      const void* v = static_cast<const char*>(block.v[j]) + head * v_head;
      pack_row(static_cast<const T*>(k), static_cast<const T*>(v), j, block.count, w, out + head * head_floats);
    }
}

void pack_block(const KeyBlock& block, ValueType type, const Widths& w, int64_t num_heads, int64_t k_head,
                int64_t v_head, float* out, int64_t head_floats) {
  if (type == kFloat32) pack_heads<float>(block, w, num_heads, k_head, v_head, out, head_floats);
  if (type == kBfloat16) pack_heads<uint16_t>(block, w, num_heads, k_head, v_head, out, head_floats);
  if (type == kInt8) pack_heads<int8_t>(block, w, num_heads, k_head, v_head, out, head_floats);
}

void pack_task(const KeyRuns& keys, int64_t block, int64_t num_keys, int64_t size, int64_t num_heads, int64_t k_head,
               int64_t v_head, int64_t head_floats) {
  const Widths w = widths_of(size);
  KeyBlock rows;
  find_block(keys, block, num_keys, &rows);
  pack_block(rows, keys.type, w, num_heads, k_head, v_head, keys.packed + block * kBlock * w.floats(), head_floats);
}

void panels_task(const QueryRows& rows, const KeyRuns& keys) {
  const Widths w = widths_of(rows.size);
  const int64_t size = w.size, width = w.vectors;
  constexpr int kMost = kTaskRows / kPanel;
  const int64_t per_panel = kPanel * (size + width + 3) + 5 * 16;
  float* room = thread_floats(size_t(kMost * per_panel + kBlock * (w.floats() + kPanel) + 10 * kPanel + 6 * 16));
  auto take = [&](int64_t count) {
    float* taken = room;
    room += round_up(count, 16);
    return taken;
  };
  Buffers use;
  float* own = take(kBlock * w.floats());
  use.weights = take(kBlock * kPanel);
  use.sums = take(8 * kPanel);
  use.old_factor = take(kPanel);
  use.new_factor = take(kPanel);
  Panel panel[kMost];
  int num_panels = 0;
  for (int64_t start = 0; start < rows.count; start += kPanel) panel[num_panels++] = make_panel(rows, start, width, room);
  // A packed block's layout depends on its number of keys: it is counted over the whole sequence there.
  const int64_t num_keys = panel[num_panels - 1].most, num_all = keys.packed ? rows.past + rows.length : num_keys;
  const bool scaled = keys.type == kInt8;
  KeyBlock block;
  for (int64_t first = 0; first < num_keys; first += kBlock) {
    find_block(keys, first / kBlock, num_all, &block);
    if (!keys.packed) pack_block(block, keys.type, w, 1, 0, 0, own, 0);
    use.keys = keys.packed ? keys.packed + first * w.floats() : own;
    use.values = use.keys + block.count * size;
    for (int i = 0; i < num_panels; ++i) {
      if (panel[i].most <= first) continue;
      if (panel[i].vectors == 3) see<3>(panel[i], size, width, block, first, scaled, use);
      if (panel[i].vectors == 2) see<2>(panel[i], size, width, block, first, scaled, use);
      if (panel[i].vectors == 1) see<1>(panel[i], size, width, block, first, scaled, use);
    }
  }
  for (int i = 0; i < num_panels; ++i)
    for (int r = 0; r < panel[i].rows; ++r)
      write_row(rows, i * kPanel + r, panel[i].out + r * width, panel[i].total[r]);
}

}  // namespace
}  // namespace qwen3vl
