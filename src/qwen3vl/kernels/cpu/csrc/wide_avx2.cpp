// Products with widened weights for AVX2 and FMA. Compiled with those flags alone; called only where the CPU has them.
#include "wide.h"

#if defined(__AVX2__)
#include "wide_panel.h"

namespace qwen3vl {
const WideKernel* avx2_wide() { return &kWide; }
}  // namespace qwen3vl

#else
namespace qwen3vl {
const WideKernel* avx2_wide() { return nullptr; }
}  // namespace qwen3vl
#endif
