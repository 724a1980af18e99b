// Products of many tokens with bfloat16 weights, on all threads.
#include "wide.h"

#include <algorithm>

#include "kernels.h"
#include "pool.h"
#include "qwen3vl_cpu.h"

using namespace qwen3vl;

static const WideKernel* wide_kernel() {
  if (kernels == avx512_kernels()) return avx512_wide();
  if (kernels == avx2_kernels()) return avx2_wide();
  if (kernels == neon_kernels()) return neon_wide();
  return nullptr;
}

int qwen3vl_wide(const void* weights_NK, const float* x_MK, int64_t m, int64_t n, int64_t k, const void* bias_N,
                 void* out_MN) {
  const WideKernel* use = wide_kernel();
  if (use == nullptr) return -1;
  const WideProduct product{static_cast<const uint16_t*>(weights_NK), x_MK, static_cast<const uint16_t*>(bias_N),
                            static_cast<uint16_t*>(out_MN), n, k};
  const int64_t blocks = (m + kWideTokens - 1) / kWideTokens, panels = (n + use->rows - 1) / use->rows;
  const int64_t size = blocks == 0 ? 0 : (m + blocks - 1) / blocks;  // blocks of equal size
  parallel_for(blocks * panels, [&](int64_t task) {
    const int64_t first = task / panels * size;
    use->run(product, task % panels * use->rows, first, std::min(size, m - first));
  });
  return 0;
}
