// The steps of a layer, the same source for every instruction set. T is float or uint16_t (bfloat16): values are read as
// float32, and rounded wherever the plain torch twin keeps them as T.
#pragma once
#include <cmath>

#include "simd_store.h"
#include "steps.h"

namespace qwen3vl {
namespace {

constexpr int64_t kMostHead = 512;  // values of a head

// Calls f(i, count) for pieces of at most 8 values.
template <typename F>
inline void pieces(int64_t size, F f) {
  int64_t i = 0;
  for (; i + 8 <= size; i += 8) f(i, int64_t(8));
  if (i < size) f(i, size - i);
}

template <typename T>
inline float sum_of(const T* x, int64_t size) {
  Vec8 sum = Vec8::all(0);
  pieces(size, [&](int64_t i, int64_t count) { sum = sum + load_some(x + i, count); });
  return add_lanes(sum);
}

// Sum of (x - mean) ** 2.
template <typename T>
inline float squares_of(const T* x, int64_t size, float mean) {
  Vec8 sum = Vec8::all(0), rest = Vec8::all(0);
  const Vec8 middle = Vec8::all(mean);
  pieces(size, [&](int64_t i, int64_t count) {
    const Vec8 off = load_some(x + i, count) - middle;
    if (count == 8) {
      sum = fma(off, off, sum);
    } else {
      float some[8] = {};  // the lanes past the end are -mean, and do not count
      store_some(some, count, off * off);
      rest = Vec8::load(some);
    }
  });
  return add_lanes(sum + rest);
}

template <typename T>
inline float inverse_rms(const T* x, int64_t size, float eps) {
  return 1.0f / std::sqrt(squares_of(x, size, 0.0f) / float(size) + eps);
}

template <typename T>
void norm_row(const NormRows& rows, const T* x, T* out) {
  const T *weight = static_cast<const T*>(rows.weight), *bias = static_cast<const T*>(rows.bias);
  if (!rows.mean_too) {
    const Vec8 scale = Vec8::all(inverse_rms(x, rows.size, rows.eps));
    pieces(rows.size, [&](int64_t i, int64_t count) {
      store_some(out + i, count, load_some(weight + i, count) * rounded<T>(load_some(x + i, count) * scale));
    });
    return;
  }
  const float mean = sum_of(x, rows.size) / float(rows.size);
  const Vec8 middle = Vec8::all(mean);
  const Vec8 scale = Vec8::all(1.0f / std::sqrt(squares_of(x, rows.size, mean) / float(rows.size) + rows.eps));
  pieces(rows.size, [&](int64_t i, int64_t count) {
    const Vec8 normed = (load_some(x + i, count) - middle) * scale;
    store_some(out + i, count, fma(normed, load_some(weight + i, count), load_some(bias + i, count)));
  });
}

template <typename T>
void norm_rows(const NormRows& rows, int64_t first, int64_t last) {
  for (int64_t r = first; r < last; ++r) {
    const T* x = static_cast<const T*>(rows.x) + r * rows.size;
    if (rows.delta != nullptr) {
      const T* delta = static_cast<const T*>(rows.delta) + r * rows.size;
      T* sum = static_cast<T*>(rows.sum) + r * rows.size;
      pieces(rows.size, [&](int64_t i, int64_t count) {
        store_some(sum + i, count, load_some(x + i, count) + load_some(delta + i, count));
      });
      x = sum;
    }
    norm_row<T>(rows, x, static_cast<T*>(rows.out) + r * rows.size);
  }
}

// One head: normalised (with a weight), then each pair (x[i], x[i + H / 2]) turned by its angle. A is the type of the
// angles: where it is T every product is rounded to T, where it is float32 only what comes out.
template <typename T, typename A>
void turn_head(T* x, const T* weight, const A* cosine, const A* sine, int64_t size, float eps) {
  const int64_t half = size / 2;
  float normed[kMostHead];
  if (weight != nullptr) {
    const Vec8 scale = Vec8::all(inverse_rms(x, size, eps));
    pieces(size, [&](int64_t i, int64_t count) {
      const Vec8 value = load_some(weight + i, count) * rounded<T>(load_some(x + i, count) * scale);
      store_some(normed + i, count, rounded<T>(value));
    });
  } else {
    pieces(size, [&](int64_t i, int64_t count) { store_some(normed + i, count, load_some(x + i, count)); });
  }
  pieces(half, [&](int64_t i, int64_t count) {
    const Vec8 a = load_some(normed + i, count), b = load_some(normed + half + i, count);
    const Vec8 upper = rounded<A>(a * load_some(cosine + i, count)) - rounded<A>(b * load_some(sine + i, count));
    const Vec8 lower =
        rounded<A>(b * load_some(cosine + half + i, count)) + rounded<A>(a * load_some(sine + half + i, count));
    store_some(x + i, count, upper);
    store_some(x + half + i, count, lower);
  });
}

// As int8 with one scale: model/int8_cache.py.
template <typename T>
void keep_int8(const T* x, int64_t size, int8_t* out, float* scale) {
  Vec8 largest = Vec8::all(0);
  pieces(size, [&](int64_t i, int64_t count) { largest = max(largest, magnitude(load_some(x + i, count))); });
  const float step = std::max(max_lanes(largest) / 127.0f, 1e-30f);
  *scale = step;
  pieces(size, [&](int64_t i, int64_t count) {
    store_some(out + i, count, load_some(x + i, count) / Vec8::all(step));
  });
}

template <typename T>
void keep_token(const Qwen3vlTurn& turn, int64_t token, const T* x, void* values, float* scales) {
  const int64_t slot = turn.slots[token];
  for (int64_t head = 0; head < turn.kv_heads; ++head, x += turn.size) {
    const int64_t at = head * turn.cache_head + slot * turn.cache_slot;
    if (turn.kv_type == 2) {
      keep_int8(x, turn.size, static_cast<int8_t*>(values) + at, scales + head * turn.scale_head + slot);
    } else if (turn.kv_type == 1) {
      uint16_t* out = static_cast<uint16_t*>(values) + at;
      pieces(turn.size, [&](int64_t i, int64_t count) { store_some(out + i, count, load_some(x + i, count)); });
    } else {
      float* out = static_cast<float*>(values) + at;
      pieces(turn.size, [&](int64_t i, int64_t count) { store_some(out + i, count, load_some(x + i, count)); });
    }
  }
}

template <typename T, typename A>
void turn_tokens(const Qwen3vlTurn& turn, int64_t first, int64_t last) {
  for (int64_t token = first; token < last; ++token) {
    const A *cosine = static_cast<const A*>(turn.cosine) + token * turn.size,
            *sine = static_cast<const A*>(turn.sine) + token * turn.size;
    T *q = static_cast<T*>(turn.q) + token * turn.q_token, *k = static_cast<T*>(turn.k) + token * turn.k_token;
    for (int64_t head = 0; head < turn.q_heads; ++head)
      turn_head(q + head * turn.size, static_cast<const T*>(turn.q_weight), cosine, sine, turn.size, float(turn.eps));
    for (int64_t head = 0; head < turn.kv_heads; ++head)
      turn_head(k + head * turn.size, static_cast<const T*>(turn.k_weight), cosine, sine, turn.size, float(turn.eps));
    if (turn.slots == nullptr) continue;
    keep_token<T>(turn, token, k, turn.keys, turn.key_scales);
    keep_token<T>(turn, token, static_cast<const T*>(turn.v) + token * turn.v_token, turn.values, turn.value_scales);
  }
}

template <typename T>
void swiglu_rows(const GatedRows& rows, int64_t first, int64_t last) {
  for (int64_t r = first; r < last; ++r) {
    const T *gate = static_cast<const T*>(rows.gate) + r * rows.gate_row,
            *up = static_cast<const T*>(rows.up) + r * rows.up_row;
    T* out = static_cast<T*>(rows.out) + r * rows.size;
    pieces(rows.size, [&](int64_t i, int64_t count) {
      const Vec8 g = load_some(gate + i, count);
      store_some(out + i, count, rounded<T>(g * sigmoid(g)) * load_some(up + i, count));
    });
  }
}

// x / 2 * (1 + tanh(u)) = x * sigmoid(2 u), with u = sqrt(2 / pi) * (x + 0.044715 x ** 3).
template <typename T>
void gelu_values(T* x, int64_t first, int64_t last) {
  const Vec8 linear = Vec8::all(1.5957691216057308f), cubic = Vec8::all(1.5957691216057308f * 0.044715f);
  pieces(last - first, [&](int64_t i, int64_t count) {
    const Vec8 v = load_some(x + first + i, count);
    store_some(x + first + i, count, v * sigmoid(v * fma(v * v, cubic, linear)));
  });
}

void norm_any(const NormRows& rows, bool is_bf16, int64_t first, int64_t last) {
  (is_bf16 ? norm_rows<uint16_t> : norm_rows<float>)(rows, first, last);
}

void turn_any(const Qwen3vlTurn& turn, int64_t first, int64_t last) {
  if (!turn.is_bf16) return turn_tokens<float, float>(turn, first, last);
  (turn.angles_are_bf16 ? turn_tokens<uint16_t, uint16_t> : turn_tokens<uint16_t, float>)(turn, first, last);
}

void swiglu_any(const GatedRows& rows, bool is_bf16, int64_t first, int64_t last) {
  (is_bf16 ? swiglu_rows<uint16_t> : swiglu_rows<float>)(rows, first, last);
}

void gelu_tanh_any(void* x, bool is_bf16, int64_t first, int64_t last) {
  if (is_bf16) return gelu_values(static_cast<uint16_t*>(x), first, last);
  gelu_values(static_cast<float*>(x), first, last);
}

constexpr Steps kSteps = {norm_any, turn_any, swiglu_any, gelu_tanh_any};

}  // namespace
}  // namespace qwen3vl
