// The steps of a layer between its matrix products, on all threads.
#include "steps.h"

#include <algorithm>

#include "kernels.h"
#include "pool.h"

namespace qwen3vl {

const Steps* steps() {
  if (kernels == plain_kernels()) return plain_steps();
  return kernels == neon_kernels() ? neon_steps() : avx2_steps();
}

namespace {

constexpr int64_t kTaskValues = 1 << 15;  // fewer take less time than waking a thread

// Calls body(first, last) for ranges of rows of `size` values.
template <typename F>
void by_rows(int64_t rows, int64_t size, F body) {
  const int64_t run = std::max<int64_t>(1, kTaskValues / std::max<int64_t>(1, size));
  if (rows <= run) return body(int64_t(0), rows);
  parallel_for((rows + run - 1) / run, [&](int64_t task) { body(task * run, std::min(rows, (task + 1) * run)); });
}

}  // namespace
}  // namespace qwen3vl

using namespace qwen3vl;

void qwen3vl_norm(int is_bf16, int mean_too, const void* x_RD, const void* delta_RD, const void* weight_D,
                  const void* bias_D, double eps, int64_t rows, int64_t size, void* sum_RD, void* out_RD) {
  const NormRows what{x_RD, delta_RD, weight_D, bias_D, sum_RD, out_RD, size, float(eps), mean_too != 0};
  by_rows(rows, size, [&](int64_t first, int64_t last) { steps()->norm(what, is_bf16 != 0, first, last); });
}

void qwen3vl_turn(const Qwen3vlTurn* turn) {
  const int64_t values = (turn->q_heads + 2 * turn->kv_heads) * turn->size;
  by_rows(turn->tokens, values, [&](int64_t first, int64_t last) { steps()->turn(*turn, first, last); });
}

void qwen3vl_swiglu(int is_bf16, const void* gate, int64_t gate_row, const void* up, int64_t up_row, int64_t rows,
                    int64_t size, void* out_RI) {
  const GatedRows what{gate, up, out_RI, gate_row, up_row, size};
  by_rows(rows, size, [&](int64_t first, int64_t last) { steps()->swiglu(what, is_bf16 != 0, first, last); });
}

void qwen3vl_gelu_tanh(int is_bf16, void* x, int64_t count) {
  by_rows((count + 7) / 8, 8, [&](int64_t first, int64_t last) {
    steps()->gelu_tanh(x, is_bf16 != 0, 8 * first, std::min(count, 8 * last));
  });
}
