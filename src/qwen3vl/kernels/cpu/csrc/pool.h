// A few threads that share loops. The calling thread works too; the others spin for a moment between loops, then sleep.
#pragma once
#include <cstdint>
#include <functional>

namespace qwen3vl {

// Calls body(i) for i in [0, count), each once, on all threads; returns when all are done. Calls take turns.
void parallel_for(int64_t count, const std::function<void(int64_t)>& body);
void set_threads(int count);
int num_threads();

}  // namespace qwen3vl
