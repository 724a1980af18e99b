// The scale and the integers of one group of weights. Included by each instruction set's file, so that the compiler
// makes vector code of its lanes; sums are taken lane by lane in one order, so that all of them give the same bits.
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

// q in [-limit - 1, limit], nearest to x / scale.
inline Fit round_to(const float* x, const float* weight, float scale, int limit, float* q) {
  const float inverse = scale != 0 ? 1 / scale : 0, low = float(-limit - 1), high = float(limit);
  float error[kLanes] = {}, xq[kLanes] = {}, qq[kLanes] = {};
  for (int c = 0; c < kGroup; c += kLanes)
    for (int l = 0; l < kLanes; ++l) {
      float value = std::rint(x[c + l] * inverse);
      value = value < low ? low : value;
      value = value > high ? high : value;
      const float off = x[c + l] - value * scale, weighed = weight[c + l] * value;
      q[c + l] = value;
      error[l] += weight[c + l] * off * off;
      xq[l] += weighed * x[c + l];
      qq[l] += weighed * value;
    }
  const float below = add_lanes(qq);
  return {add_lanes(error), below > 0 ? add_lanes(xq) / below : 0};
}

// Of some scales that clip the largest value a little or not at all, the one with the least weighed error, each also
// refined by least squares. The value of largest magnitude may take the end of the range that has one step more, so
// a scale may be negative (as in llama.cpp's Q4_0). int8's rounding is small against all else: one scale is tried.
inline float pack_group(const float* x, const float* weight, int limit, int8_t* q) {
  float peak = 0, trial[kGroup], best_q[kGroup] = {};
  for (int c = 0; c < kGroup; ++c)
    if (std::fabs(x[c]) > std::fabs(peak)) peak = x[c];
  float best = 0, least = INFINITY;
  const int steps = limit > 7 ? 0 : 3;
  for (int step = -steps; step <= steps && std::fabs(peak) > 1e-30f; ++step) {
    float scale = round_scale(limit > 7 ? std::fabs(peak) / limit : peak / (-limit - 1 + 0.35f * step));
    for (int pass = 0; pass < (limit > 7 ? 1 : 2); ++pass) {
      const Fit fit = round_to(x, weight, scale, limit, trial);
      if (fit.error < least) {
        least = fit.error;
        best = scale;
        std::memcpy(best_q, trial, sizeof trial);
      }
      scale = round_scale(fit.scale);
    }
  }
  for (int c = 0; c < kGroup; ++c) q[c] = int8_t(best_q[c]);
  return best;
}

}  // namespace
}  // namespace qwen3vl
