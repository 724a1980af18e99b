// What this machine can do at most: bytes read and operations a second, on the threads that the kernels use. The
// yardstick of `qwen3vl bench`; no kernel calls this.
#include <chrono>
#include <cmath>
#include <cstring>

#include "kernels.h"
#include "pool.h"
#include "qwen3vl_cpu.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define QWEN3VL_TARGET(names) __attribute__((target(names)))
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace qwen3vl {
namespace {

constexpr int64_t kPiece = 1 << 20;   // bytes that a thread reads at a time
constexpr int64_t kRounds = 1 << 15;  // of one task of arithmetic: some ten microseconds
constexpr int kChains = 12;           // independent sums: more than an instruction takes cycles times those it has begun

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

[[maybe_unused]] bool runs(const char* name) { return std::strcmp(kernels->name, name) == 0; }

// A value that the compiler must compute and cannot know.
template <class T>
inline void keep(T& value) {
  asm volatile("" : "+m"(value) : : "memory");
}

uint64_t read_plain(const uint8_t* data, int64_t bytes) {
  uint64_t sum[8] = {}, word[8];
  for (int64_t i = 0; i + 64 <= bytes; i += 64) {
    std::memcpy(word, data + i, 64);
    for (int w = 0; w < 8; ++w) sum[w] += word[w];
  }
  return sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6] + sum[7];
}

// Each returns the operations of a task; a multiplication and an addition are two.
double floats_plain() {
  float sum[kChains * 4], factor = 0.999f;
  for (float& s : sum) s = 1;
  keep(factor);
  for (int64_t i = 0; i < kRounds; ++i)
    for (float& s : sum) s = s * factor + factor;
  for (float& s : sum) keep(s);
  return 2.0 * kChains * 4 * kRounds;
}

double bytes_plain() {
  int32_t sum[kChains * 4] = {}, factor = 3;
  keep(factor);
  for (int64_t i = 0; i < kRounds; ++i)
    for (int32_t& s : sum) s += int8_t(s) * factor;
  for (int32_t& s : sum) keep(s);
  return 2.0 * kChains * 4 * kRounds;
}

#if defined(__x86_64__)
QWEN3VL_TARGET("avx2") uint64_t read_avx2(const uint8_t* data, int64_t bytes) {
  __m256i sum[4] = {};
  for (int64_t i = 0; i + 128 <= bytes; i += 128)
    for (int v = 0; v < 4; ++v)
      sum[v] = _mm256_add_epi64(sum[v], _mm256_loadu_si256(reinterpret_cast<const __m256i*>(data + i + 32 * v)));
  uint64_t lanes[4];
  const __m256i all = _mm256_add_epi64(_mm256_add_epi64(sum[0], sum[1]), _mm256_add_epi64(sum[2], sum[3]));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes), all);
  return lanes[0] + lanes[1] + lanes[2] + lanes[3];
}

QWEN3VL_TARGET("avx2,fma") double floats_avx2() {
  __m256 sum[kChains], factor = _mm256_set1_ps(0.999f);
  for (__m256& s : sum) s = factor;
  for (int64_t i = 0; i < kRounds; ++i)
    for (__m256& s : sum) s = _mm256_fmadd_ps(s, factor, factor);
  for (__m256& s : sum) keep(s);
  return 2.0 * 8 * kChains * kRounds;
}

// What AVX2 has for bytes: vpmaddubsw, whose sums are added in 16 bits. The activations come from memory, as they do in
// a product. In assembly, because compilers copy the sums from register to register and the loop then measures that.
QWEN3VL_TARGET("avx2") double bytes_avx2() {
  const __m256i values[4] = {};
  __m256i weights = _mm256_set1_epi8(3), a = values[0], b = a, c = a, d = a;
  for (int64_t i = 0; i < kRounds; ++i)
    asm volatile(
        "vpmaddubsw (%[x]), %[w], %%ymm8\n vpaddw %%ymm8, %[a], %[a]\n"
        "vpmaddubsw 32(%[x]), %[w], %%ymm9\n vpaddw %%ymm9, %[b], %[b]\n"
        "vpmaddubsw 64(%[x]), %[w], %%ymm10\n vpaddw %%ymm10, %[c], %[c]\n"
        "vpmaddubsw 96(%[x]), %[w], %%ymm11\n vpaddw %%ymm11, %[d], %[d]\n"
        : [a] "+x"(a), [b] "+x"(b), [c] "+x"(c), [d] "+x"(d)
        : [x] "r"(values), [w] "x"(weights), "m"(values)
        : "xmm8", "xmm9", "xmm10", "xmm11");
  return 2.0 * 32 * 4 * kRounds;
}

QWEN3VL_TARGET("avx512f") double floats_avx512() {
  __m512 sum[kChains], factor = _mm512_set1_ps(0.999f);
  for (__m512& s : sum) s = factor;
  for (int64_t i = 0; i < kRounds; ++i)
    for (__m512& s : sum) s = _mm512_fmadd_ps(s, factor, factor);
  for (__m512& s : sum) keep(s);
  return 2.0 * 16 * kChains * kRounds;
}

QWEN3VL_TARGET("avx512f,avx512vnni") double bytes_avx512() {
  __m512i sum[kChains], weights = _mm512_set1_epi8(3), x = _mm512_set1_epi8(5);
  for (__m512i& s : sum) s = _mm512_setzero_si512();
  for (int64_t i = 0; i < kRounds; ++i)
    for (__m512i& s : sum) s = _mm512_dpbusd_epi32(s, weights, x);
  for (__m512i& s : sum) keep(s);
  return 2.0 * 64 * kChains * kRounds;
}
#elif defined(__aarch64__)
double floats_neon() {
  float32x4_t sum[kChains], factor = vdupq_n_f32(0.999f);
  for (float32x4_t& s : sum) s = factor;
  for (int64_t i = 0; i < kRounds; ++i)
    for (float32x4_t& s : sum) s = vfmaq_f32(s, s, factor);
  for (float32x4_t& s : sum) keep(s);
  return 2.0 * 4 * kChains * kRounds;
}

// In assembly, because this file is compiled without the extension. What is in the registers does not matter.
double bytes_neon() {
  const int8x16_t weights = vdupq_n_s8(3);
  for (int64_t i = 0; i < kRounds; ++i)
    asm volatile(
        ".arch armv8.2-a+dotprod\n"
        "sdot v16.4s, %0.16b, %0.16b\n sdot v17.4s, %0.16b, %0.16b\n sdot v18.4s, %0.16b, %0.16b\n"
        "sdot v19.4s, %0.16b, %0.16b\n sdot v20.4s, %0.16b, %0.16b\n sdot v21.4s, %0.16b, %0.16b\n"
        "sdot v22.4s, %0.16b, %0.16b\n sdot v23.4s, %0.16b, %0.16b\n sdot v24.4s, %0.16b, %0.16b\n"
        "sdot v25.4s, %0.16b, %0.16b\n sdot v26.4s, %0.16b, %0.16b\n sdot v27.4s, %0.16b, %0.16b\n"
        :
        : "w"(weights)
        : "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27");
  return 2.0 * 16 * kChains * kRounds;
}
#endif

uint64_t read(const uint8_t* data, int64_t bytes) {
#if defined(__x86_64__)
  if (!runs("plain")) return read_avx2(data, bytes);
#endif
  return read_plain(data, bytes);
}

double compute(bool integers) {
#if defined(__x86_64__)
  if (runs("avx512")) return integers ? bytes_avx512() : floats_avx512();
  if (runs("avx2")) return integers ? bytes_avx2() : floats_avx2();
#elif defined(__aarch64__)
  if (runs("neon")) return integers ? bytes_neon() : floats_neon();
#endif
  return integers ? bytes_plain() : floats_plain();
}

}  // namespace
}  // namespace qwen3vl

using namespace qwen3vl;

double qwen3vl_probe_read(const uint8_t* data, int64_t bytes) {
  const auto start = Clock::now();
  parallel_for((bytes + kPiece - 1) / kPiece, [&](int64_t i) {
    uint64_t sum = read(data + i * kPiece, i * kPiece + kPiece > bytes ? bytes - i * kPiece : kPiece);
    keep(sum);
  });
  return double(bytes) / seconds_since(start);
}

double qwen3vl_probe_arithmetic(int integers, double seconds) {
  const auto start = Clock::now();
  const int64_t tasks = 16 * num_threads();
  double done = 0, elapsed = 0;
  do {
    double each = 0;
    parallel_for(tasks, [&](int64_t i) {
      const double operations = compute(integers != 0);
      if (i == 0) each = operations;
    });
    done += each * double(tasks);
    elapsed = seconds_since(start);
  } while (elapsed < seconds);
  return done / elapsed;
}
