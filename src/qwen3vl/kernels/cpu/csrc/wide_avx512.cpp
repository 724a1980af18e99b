// Products with widened weights for AVX-512. Compiled with those flags alone; called only where the CPU has them.
#include "wide.h"

#if defined(__AVX512F__)
#include "wide_panel.h"

namespace qwen3vl {
const WideKernel* avx512_wide() { return &kWide; }
}  // namespace qwen3vl

#else
namespace qwen3vl {
const WideKernel* avx512_wide() { return nullptr; }
}  // namespace qwen3vl
#endif
