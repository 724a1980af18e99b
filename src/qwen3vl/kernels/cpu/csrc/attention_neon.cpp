// Attention for 64-bit Arm with NEON. Called only where the CPU has dot products too, as isa_neon.cpp.
#include "attention.h"

#if defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD)
#include "attention_few.h"

namespace qwen3vl {
const AttentionKernels* neon_attention() {
  static constexpr AttentionKernels table = {widths_of, pack_task, panels_task, few_task, join_task};
  return &table;
}
}  // namespace qwen3vl

#else
namespace qwen3vl {
const AttentionKernels* neon_attention() { return nullptr; }
}  // namespace qwen3vl
#endif
