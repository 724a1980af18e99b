// The steps in portable C++: the yardstick for the others.
#include "steps_rows.h"

namespace qwen3vl {
const Steps* plain_steps() { return &kSteps; }
}  // namespace qwen3vl
