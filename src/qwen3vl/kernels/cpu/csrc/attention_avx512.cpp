// Attention for AVX-512. Compiled with those flags alone; called only where the CPU has them.
#include "attention.h"

#if defined(__AVX512F__)
#include "attention_few.h"

namespace qwen3vl {
const AttentionKernels* avx512_attention() {
  static constexpr AttentionKernels table = {widths_of, pack_task, panels_task, few_task, join_task};
  return &table;
}
}  // namespace qwen3vl

#else
namespace qwen3vl {
const AttentionKernels* avx512_attention() { return nullptr; }
}  // namespace qwen3vl
#endif
