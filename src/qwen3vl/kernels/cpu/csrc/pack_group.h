// The scale and the integers of one group of weights. Included by each instruction set's file: the compiler makes of the
// lanes what it has. Sums are taken lane by lane in one order, so that all of them give the same bits.
#pragma once
#include <cmath>
#include <cstring>

#include "half.h"
#include "layout.h"

namespace qwen3vl {
namespace {

constexpr int kLanes = 8;

inline float round_scale(float scale) { return half_to_float(float_to_half(scale)); }

inline float add_lanes(const float* lane) {
  return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

struct Fit {
  float error;  // weighed, squared
  float scale;  // the least-squares scale for these integers
};

typedef float Lanes __attribute__((vector_size(4 * kLanes)));

// Adding and taking away 1.5 * 2^23 rounds to the nearest integer, ties to even, what is below 2^22; what is above stays
// above any limit.
constexpr float kRound = 12582912.0f;

// What the integers in [-limit - 1, limit] nearest to x / scale give; they go to q if it is not null.
inline Fit round_to(const float* x, const float* weight, float scale, int limit, int8_t* q) {
  const float inverse = scale != 0 ? 1 / scale : 0;
  const Lanes zero = {}, low = zero + float(-limit - 1), high = zero + float(limit);
  Lanes error = zero, xq = zero, qq = zero;
  for (int c = 0; c < kGroup; c += kLanes) {
    Lanes xs, weights;
    std::memcpy(&xs, x + c, sizeof xs);
    std::memcpy(&weights, weight + c, sizeof weights);
    Lanes value = (xs * inverse + kRound) - kRound;
    value = value < low ? low : value;
    value = value > high ? high : value;
    const Lanes off = xs - value * scale, weighed = weights * value;
    if (q)
      for (int l = 0; l < kLanes; ++l) q[c + l] = int8_t(value[l]);
    error += weights * off * off;
    xq += weighed * xs;
    qq += weighed * value;
  }
  float lanes[3][kLanes];
  std::memcpy(lanes[0], &error, sizeof error);
  std::memcpy(lanes[1], &xq, sizeof xq);
  std::memcpy(lanes[2], &qq, sizeof qq);
  const float below = add_lanes(lanes[2]);
  return {add_lanes(lanes[0]), below > 0 ? add_lanes(lanes[1]) / below : 0};
}

// Of some scales that clip the largest value a little or not at all, the one with the least weighed error, each also
// refined by least squares. The value of largest magnitude may take the end of the range that has one step more, so
// a scale may be negative (as in llama.cpp's Q4_0). int8's rounding is small against all else: one scale is tried.
inline float pack_group(const float* x, const float* weight, int limit, int8_t* q) {
  float peak = 0;
  for (int c = 0; c < kGroup; ++c)
    if (std::fabs(x[c]) > std::fabs(peak)) peak = x[c];
  float best = 0, least = INFINITY;
  const int steps = limit > 7 ? 0 : 3;
  for (int step = -steps; step <= steps && std::fabs(peak) > 1e-30f; ++step) {
    float scale = round_scale(limit > 7 ? std::fabs(peak) / limit : peak / (-limit - 1 + 0.35f * step));
    for (int pass = 0; pass < (limit > 7 ? 1 : 2); ++pass) {
      const Fit fit = round_to(x, weight, scale, limit, nullptr);
      best = fit.error < least ? scale : best;  // without a branch, which nobody could predict
      least = fit.error < least ? fit.error : least;
      scale = round_scale(fit.scale);
    }
  }
  round_to(x, weight, best, limit, q);  // with a scale of 0: zeros
  return best;
}

}  // namespace
}  // namespace qwen3vl
