// Attention of a whole step: pieces of work for all sequences and key heads, on all threads.
//
// What is computed, for each row (one query head of one token), in float32:
//
//     for each block of 128 keys, from token 0 of the sequence on, as far as the row sees keys:
//         score_j = q . k_j * scale (a sum from the first value to the last)     m = max_j score_j
//         w_j = exp(score_j - m)      l = sum_j w_j      o = sum_j w_j v_j (from the first key to the last)
//     the blocks' (m, l, o) are joined in order, each weighed with exp(m - largest m so far); out = o / l
//
// So a row's bits depend on its own query and keys alone: not on what else is in the step, how a prompt is cut, or how
// many threads there are. Many rows and few rows go different ways (attention_panels.h, attention_few.h) to the same bits.
#include "attention.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <utility>
#include <vector>

#include "kernels.h"
#include "pool.h"
#include "qwen3vl_cpu.h"

namespace qwen3vl {
namespace {

constexpr int64_t kPackedFloats = 1 << 21;  // 8 MB of packed heads at a time: they stay in the last-level cache
constexpr int64_t kFewBlocks = 8;  // of a task of few rows: some 30 microseconds
constexpr int64_t kFewRows = 16;  // measured: with more, panels are faster

const AttentionKernels* attention_kernels() {
  if (kernels == avx512_kernels()) return avx512_attention();
  if (kernels == avx2_kernels()) return avx2_attention();
  if (kernels == neon_kernels()) return neon_attention();
  return plain_attention();
}

size_t bytes_of(int type) { return type == kFloat32 ? 4 : type == kBfloat16 ? 2 : 1; }

struct Sequence {
  int64_t start, length, past, first_run, num_runs;
};

// One call.
struct Step {
  const Qwen3vlAttention& a;
  int64_t group;

  Sequence sequence(int64_t s) const {
    const int64_t* at = a.sequences + 5 * s;
    return {at[0], at[1], at[2], at[3], at[4]};
  }

  QueryRows rows(int64_t s, int64_t head, int64_t first, int64_t count) const {
    const Sequence q = sequence(s);
    const size_t bytes = bytes_of(a.type);
    const char* from = static_cast<const char*>(a.q) + (q.start * a.q_token + head * group * a.q_head) * bytes;
    char* to = static_cast<char*>(a.out) + (q.start * a.out_token + head * group * a.out_head) * bytes;
    return {from,  to,         ValueType(a.type), a.q_token, a.q_head, a.out_token,   a.out_head,
            first, count,      group,             a.size,    q.past,   q.length,      a.causal != 0,
            float(double(a.scale) * 1.4426950408889634)};
  }

  KeyRuns keys(int64_t s, int64_t head) const {
    const Sequence q = sequence(s);
    const size_t bytes = bytes_of(a.kv_type);
    const bool scaled = a.kv_type == kInt8;
    return {static_cast<const char*>(a.k) + head * a.k_head * bytes,
            static_cast<const char*>(a.v) + head * a.v_head * bytes,
            ValueType(a.kv_type),
            a.k_slot,
            a.v_slot,
            scaled ? a.k_scale + head * a.scale_head : nullptr,
            scaled ? a.v_scale + head * a.scale_head : nullptr,
            a.runs + 2 * q.first_run,
            q.num_runs,
            nullptr};
  }

  // The rows of a task of Plan::add_many; its heads count from `first_head` on.
  QueryRows many(const struct Task& task, int64_t first_head) const;

  bool is_few(const Sequence& q) const { return q.length * group <= kFewRows && a.size % 8 == 0; }
};

// A piece of work: rows of a sequence and key head over all keys, or, if few, all its rows over some blocks.
struct Task {
  int64_t sequence, head, at;  // at: first row, or number of the first block
  int64_t few;                 // which of the few, or -1
};

// The rows of a short sequence and one key head: their blocks go on in any order, who ends last joins them.
struct Few {
  int64_t states, num_blocks;
};

struct Plan {
  std::vector<Task> tasks;
  std::vector<Few> few;
  int64_t num_floats = 0;

  void add_few(const Step& step, int64_t s, int64_t head) {
    const Sequence q = step.sequence(s);
    const int64_t blocks = (q.past + q.length + kBlock - 1) / kBlock;
    for (int64_t block = 0; block < blocks; block += kFewBlocks) tasks.push_back({s, head, block, int64_t(few.size())});
    few.push_back({num_floats, blocks});
    num_floats += blocks * q.length * step.group * State::floats(step.a.size);
  }

  // Head by head, so that its keys stay in the caches. The last rows see most keys: they come first, so that threads end
  // together.
  void add_many(const Step& step, int64_t s, int64_t heads) {
    const int64_t rows = step.sequence(s).length * step.group;
    for (int64_t head = 0; head < heads; ++head)
      for (int64_t first = (rows - 1) / kTaskRows * kTaskRows; first >= 0; first -= kTaskRows)
        tasks.push_back({s, head, first, -1});
  }
};

QueryRows Step::many(const Task& task, int64_t first_head) const {
  const int64_t num_rows = sequence(task.sequence).length * group;
  return rows(task.sequence, first_head + task.head, task.at, std::min<int64_t>(kTaskRows, num_rows - task.at));
}

// Memory that lives as long as its thread: allocating it for every call would cost page faults.
class Floats {
 public:
  ~Floats() { std::free(held_); }
  float* at_least(size_t count) {
    if (size_ < count) {
      std::free(held_);
      size_ = (count + 15) / 16 * 16;
      held_ = static_cast<float*>(std::aligned_alloc(64, size_ * sizeof(float)));
      if (!held_) std::abort();  // no exception may leave a C function
    }
    return held_;
  }

 private:
  float* held_ = nullptr;
  size_t size_ = 0;
};

}  // namespace

float* thread_floats(size_t count) {
  static thread_local Floats floats;
  return floats.at_least(count);
}

void find_block(const KeyRuns& keys, int64_t block, int64_t num_keys, KeyBlock* out) {
  const int64_t first = block * kBlock;
  out->count = int(std::min<int64_t>(kBlock, num_keys - first));
  int64_t low = 0, high = keys.num_runs;  // the last run that begins at or before `first`
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (keys.runs[2 * middle] <= first ? low : high) = middle;
  }
  const size_t k_bytes = keys.k_slot * bytes_of(keys.type), v_bytes = keys.v_slot * bytes_of(keys.type);
  for (int j = 0; j < out->count; ++low) {
    const int64_t token = first + j, slot = keys.runs[2 * low + 1] + token - keys.runs[2 * low];
    const int64_t next = low + 1 < keys.num_runs ? keys.runs[2 * low + 2] : num_keys;
    const int64_t end = std::min<int64_t>(out->count, j + next - token);
    for (int64_t i = 0; j < end; ++j, ++i) {
      out->k[j] = keys.k + (slot + i) * k_bytes;
      out->v[j] = keys.v + (slot + i) * v_bytes;
      if (keys.type != kInt8) continue;
      out->k_scale[j] = keys.k_scale[slot + i];
      out->v_scale[j] = keys.v_scale[slot + i];
    }
  }
}

}  // namespace qwen3vl

using namespace qwen3vl;

// Rows of keys that lie far apart: some heads at a time are packed, then worked on.
static void attend_spread(const Step& step, const AttentionKernels* use) {
  const Qwen3vlAttention& a = step.a;
  const Widths widths = use->widths(a.size);
  int64_t num_keys = 0;
  std::vector<int64_t> before;
  std::vector<std::pair<int64_t, int64_t>> blocks;  // (sequence, block)
  for (int64_t s = 0; s < a.num_sequences; ++s) {
    const Sequence q = step.sequence(s);
    before.push_back(num_keys);
    num_keys += q.past + q.length;
    for (int64_t b = 0; b * kBlock < q.past + q.length; ++b) blocks.push_back({s, b});
  }
  const int64_t head_floats = num_keys * widths.floats();
  const int64_t chunks = std::min(a.num_kv_heads, (a.num_kv_heads * head_floats - 1) / kPackedFloats + 1);
  const int64_t at_once = (a.num_kv_heads + chunks - 1) / chunks;
  static thread_local Floats packed;
  float* room = packed.at_least(size_t(at_once * head_floats));
  for (int64_t head = 0; head < a.num_kv_heads; head += at_once) {
    const int64_t heads = std::min(at_once, a.num_kv_heads - head);
    auto keys_of = [&](int64_t s, int64_t h) {
      KeyRuns keys = step.keys(s, head + h);
      keys.packed = room + h * head_floats + before[size_t(s)] * widths.floats();
      return keys;
    };
    const int64_t bytes = int64_t(bytes_of(a.kv_type));
    parallel_for(int64_t(blocks.size()), [&](int64_t i) {
      const auto [s, block] = blocks[size_t(i)];
      const Sequence q = step.sequence(s);
      use->pack(keys_of(s, 0), block, q.past + q.length, a.size, heads, a.k_head * bytes, a.v_head * bytes, head_floats);
    });
    Plan plan;
    for (int64_t s = 0; s < a.num_sequences; ++s) plan.add_many(step, s, heads);
    parallel_for(int64_t(plan.tasks.size()), [&](int64_t i) {
      const Task& task = plan.tasks[size_t(i)];
      use->panels(step.many(task, head), keys_of(task.sequence, task.head));
    });
  }
}

// Dense rows, as in a cache: read where they lie.
static void attend_dense(const Step& step, const AttentionKernels* use) {
  const Qwen3vlAttention& a = step.a;
  Plan plan;
  for (int64_t s = 0; s < a.num_sequences; ++s) {
    if (step.is_few(step.sequence(s)))
      for (int64_t head = 0; head < a.num_kv_heads; ++head) plan.add_few(step, s, head);
    else
      plan.add_many(step, s, a.num_kv_heads);
  }
  static thread_local Floats states;
  float* room = states.at_least(size_t(plan.num_floats));
  std::vector<std::atomic<int64_t>> done(plan.few.size());
  for (auto& each : done) each.store(0, std::memory_order_relaxed);
  parallel_for(int64_t(plan.tasks.size()), [&](int64_t i) {
    const Task& task = plan.tasks[size_t(i)];
    const KeyRuns keys = step.keys(task.sequence, task.head);
    if (task.few < 0) {
      use->panels(step.many(task, 0), keys);
      return;
    }
    const Few& few = plan.few[size_t(task.few)];
    const int64_t num_rows = step.sequence(task.sequence).length * step.group;
    const QueryRows rows = step.rows(task.sequence, task.head, 0, num_rows);
    const int64_t blocks = std::min(kFewBlocks, few.num_blocks - task.at);
    use->few(rows, keys, task.at, blocks, room + few.states + task.at * num_rows * State::floats(a.size));
    if (done[size_t(task.few)].fetch_add(blocks) + blocks == few.num_blocks)
      use->join(rows, room + few.states, few.num_blocks);
  });
}

void qwen3vl_attention(const Qwen3vlAttention* attention) {
  const Step step{*attention, attention->num_heads / attention->num_kv_heads};
  const bool dense = attention->k_slot == attention->size && attention->v_slot == attention->size;
  (dense ? attend_dense : attend_spread)(step, attention_kernels());
}
