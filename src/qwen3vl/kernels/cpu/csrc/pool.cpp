#include "pool.h"

#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace qwen3vl {
namespace {

constexpr int kSpins = 2000;  // about 50 microseconds: the gap between two steps of a layer

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

class Pool {
 public:
  explicit Pool(int count) : count_(count) {
    for (int i = 1; i < count; ++i) workers_.emplace_back([this] { work(); });
  }

  ~Pool() {
    stop_ = true;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      ++generation_;
    }
    wake_.notify_all();
    for (auto& worker : workers_) worker.join();
  }

  int count() const { return count_; }

  void run(int64_t count, const std::function<void(int64_t)>& body) {
    if (count_ == 1 || count == 1) {
      for (int64_t i = 0; i < count; ++i) body(i);
      return;
    }
    body_ = &body;
    total_ = count;
    next_.store(0, std::memory_order_relaxed);
    busy_.store(count_ - 1, std::memory_order_relaxed);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      generation_.fetch_add(1, std::memory_order_release);
    }
    if (asleep_.load() > 0) wake_.notify_all();
    share();
    while (busy_.load(std::memory_order_acquire) > 0) relax();
  }

 private:
  void share() {
    for (int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < total_;) (*body_)(i);
  }

  void work() {
    for (uint64_t seen = 0;;) {
      int spins = 0;
      while (generation_.load(std::memory_order_acquire) == seen) {
        if (++spins < kSpins) {
          relax();
          continue;
        }
        std::unique_lock<std::mutex> lock(mutex_);
        asleep_.fetch_add(1);
        wake_.wait(lock, [&] { return generation_.load(std::memory_order_acquire) != seen; });
        asleep_.fetch_sub(1);
      }
      seen = generation_.load(std::memory_order_acquire);
      if (stop_) return;
      share();
      busy_.fetch_sub(1, std::memory_order_release);
    }
  }

  const int count_;
  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<uint64_t> generation_{0};
  std::atomic<int64_t> next_{0};
  std::atomic<int> busy_{0}, asleep_{0};
  std::atomic<bool> stop_{false};
  const std::function<void(int64_t)>* body_ = nullptr;
  int64_t total_ = 0;
};

std::mutex turn;  // one loop at a time
int wanted = 1;
Pool* pool = nullptr;  // never destroyed: its threads may outlive static destructors
pid_t owner = 0;

}  // namespace

void parallel_for(int64_t count, const std::function<void(int64_t)>& body) {
  std::lock_guard<std::mutex> lock(turn);
  if (pool == nullptr || owner != getpid() || pool->count() != wanted) {
    if (pool != nullptr && owner == getpid()) delete pool;  // after a fork the threads are gone: leave the old one
    pool = new Pool(wanted);
    owner = getpid();
  }
  pool->run(count, body);
}

void set_threads(int count) {
  std::lock_guard<std::mutex> lock(turn);
  wanted = count < 1 ? 1 : count;
}

int num_threads() { return wanted; }

}  // namespace qwen3vl
