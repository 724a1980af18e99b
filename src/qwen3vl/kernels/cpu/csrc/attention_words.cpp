// Attention in products of 16 bits (see attention_words.h), on all threads: heads are packed, as many as the caches hold,
// then multiplied.
#include "attention_words.h"

#include <algorithm>
#include <vector>

#include "kernels.h"
#include "pool.h"
#include "qwen3vl_cpu.h"

namespace qwen3vl {
namespace {

constexpr int64_t kPackedBytes = 1 << 23;  // of heads that are packed at a time: they stay in the last-level cache

struct Frame {
  int64_t start, length, first_run, num_runs;
  int64_t first_block;  // of all sequences' blocks

  int64_t blocks() const { return (length + kBlock - 1) / kBlock; }
};

struct Words {
  const Qwen3vlAttention& a;
  const WordKernels* use;
  std::vector<Frame> frames;
  int64_t num_blocks = 0;

  Words(const Qwen3vlAttention& attention, const WordKernels* kernels) : a(attention), use(kernels) {
    for (int64_t s = 0; s < a.num_sequences; ++s) {
      const int64_t* at = a.sequences + 5 * s;
      frames.push_back({at[0], at[1], at[3], at[4], num_blocks});
      num_blocks += frames.back().blocks();
    }
  }

  const Frame& frame_of(int64_t block) const {
    return *(std::upper_bound(frames.begin(), frames.end(), block,
                              [](int64_t b, const Frame& frame) { return b < frame.first_block; }) - 1);
  }

  void pack(int64_t block, int64_t first_head, int64_t num_heads, char* room) const {
    const Frame& frame = frame_of(block);
    const char* k = static_cast<const char*>(a.k) + first_head * a.k_head * 4;
    const char* v = static_cast<const char*>(a.v) + first_head * a.v_head * 4;
    const KeyRuns keys{k, v, kFloat32, a.k_slot, a.v_slot, nullptr, nullptr, a.runs + 2 * frame.first_run,
                       frame.num_runs, nullptr};
    KeyBlock rows;
    find_block(keys, block - frame.first_block, frame.length, &rows);
    const int64_t bytes = WordBlock::bytes(a.size);
    use->pack(rows, a.size, num_heads, a.k_head * 4, a.v_head * 4, room + block * bytes, num_blocks * bytes);
  }

  // Rows from `first` on of one frame and head.
  void multiply(const Frame& frame, int64_t head, int64_t first, char* blocks) const {
    const char* q = static_cast<const char*>(a.q) + (frame.start * a.q_token + head * a.q_head) * 4;
    char* out = static_cast<char*>(a.out) + (frame.start * a.out_token + head * a.out_head) * 4;
    const QueryRows rows{q, out, kFloat32, a.q_token, a.q_head, a.out_token, a.out_head, first,
                         std::min<int64_t>(kTaskRows, frame.length - first), 1, a.size, 0, frame.length, false,
                         float(double(a.scale) * 1.4426950408889634)};
    use->panels(rows, blocks + frame.first_block * WordBlock::bytes(a.size), frame.length);
  }

  void run() const {
    struct Task {
      int64_t frame, head, first;
    };
    const int64_t head_bytes = num_blocks * WordBlock::bytes(a.size);
    const int64_t at_once = std::max<int64_t>(1, std::min(a.num_heads, kPackedBytes / head_bytes));
    char* room = reinterpret_cast<char*>(thread_floats(size_t(at_once * head_bytes / 4)));
    for (int64_t head = 0; head < a.num_heads; head += at_once) {
      const int64_t heads = std::min(at_once, a.num_heads - head);
      parallel_for(num_blocks, [&](int64_t block) { pack(block, head, heads, room); });
      std::vector<Task> tasks;
      for (int64_t h = 0; h < heads; ++h)
        for (size_t f = 0; f < frames.size(); ++f)
          for (int64_t first = 0; first < frames[f].length; first += kTaskRows) tasks.push_back({int64_t(f), h, first});
      parallel_for(int64_t(tasks.size()), [&](int64_t i) {
        const Task& task = tasks[size_t(i)];
        multiply(frames[size_t(task.frame)], head + task.head, task.first, room + task.head * head_bytes);
      });
    }
  }
};

}  // namespace
}  // namespace qwen3vl

using namespace qwen3vl;

int qwen3vl_attention_words(const Qwen3vlAttention* attention) {
  const Qwen3vlAttention& a = *attention;
  const WordKernels* use = kernels == avx2_kernels() ? avx2_words() : nullptr;
  if (use == nullptr || a.causal || a.type != kFloat32 || a.kv_type != kFloat32 || a.num_heads != a.num_kv_heads ||
      a.size % 8 != 0 || a.size > kMostWords)
    return -1;
  for (int64_t s = 0; s < a.num_sequences; ++s)
    if (a.sequences[5 * s + 2] != 0) return -1;  // tokens before the new ones
  if (a.num_sequences > 0) Words(a, use).run();
  return 0;
}
