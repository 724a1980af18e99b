// Attention in portable C++: the yardstick for the others.
#include "attention_few.h"

namespace qwen3vl {
const AttentionKernels* plain_attention() {
  static constexpr AttentionKernels table = {widths_of, pack_task, panels_task, few_task, join_task};
  return &table;
}
}  // namespace qwen3vl
