// The steps for 64-bit Arm with NEON. Called only where the CPU has dot products too, as isa_neon.cpp.
#include "steps.h"

#if defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD)
#include "steps_rows.h"

namespace qwen3vl {
const Steps* neon_steps() { return &kSteps; }
}  // namespace qwen3vl

#else
namespace qwen3vl {
const Steps* neon_steps() { return nullptr; }
}  // namespace qwen3vl
#endif
