// The steps for AVX2 and FMA. Compiled with those flags alone; called only where the CPU has them.
#include "steps.h"

#if defined(__AVX2__)
#include "steps_rows.h"

namespace qwen3vl {
const Steps* avx2_steps() { return &kSteps; }
}  // namespace qwen3vl

#else
namespace qwen3vl {
const Steps* avx2_steps() { return nullptr; }
}  // namespace qwen3vl
#endif
