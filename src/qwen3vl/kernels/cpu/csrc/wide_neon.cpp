// Products with widened weights for 64-bit Arm with NEON. Called only where the CPU has dot products too, as isa_neon.cpp.
#include "wide.h"

#if defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD)
#include "wide_panel.h"

namespace qwen3vl {
const WideKernel* neon_wide() { return &kWide; }
}  // namespace qwen3vl

#else
namespace qwen3vl {
const WideKernel* neon_wide() { return nullptr; }
}  // namespace qwen3vl
#endif
