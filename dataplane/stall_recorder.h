// The last turns of a thread that took long, for whoever asks afterwards why a migration stuttered.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace migrx {

// A turn that took long.
struct Stall {
  uint64_t ended_ns = 0;  // monotonic clock
  uint64_t ns = 0;        // how long it took
  uint32_t work = 0;      // what its agents found to do; 0: nothing, so the kernel had the CPU
  uint32_t agent = 0;     // who found most of it, by place in the thread
  // Times the kernel gave the CPU to somebody else since the stall before; with IdleStrategy::yield those
  // that the thread offered it count as well.
  uint32_t preemptions = 0;
};

// One thread writes, any thread reads, nobody waits. Stalls are rare, so everything here is in one order
// (seq_cst) and nothing is clever.
class StallRecorder {
 public:
  static constexpr std::size_t kKept = 32;

  void record(const Stall& stall) noexcept {
    const uint64_t number = begun_.load();
    begun_.store(number + 1);
    Slot& slot = slots_[number % kKept];
    slot.ended_ns = stall.ended_ns;
    slot.ns = stall.ns;
    slot.work = stall.work;
    slot.agent = stall.agent;
    slot.preemptions = stall.preemptions;
    done_.store(number + 1);
  }

  // Since the start, those that are no longer kept included.
  [[nodiscard]] uint64_t count() const noexcept { return done_.load(); }

  // Those that are kept, oldest first.
  [[nodiscard]] std::vector<Stall> last() const {
    std::vector<Stall> out;
    const uint64_t end = done_.load();
    const uint64_t first = end - std::min<uint64_t>(end, kKept);
    for (uint64_t number = first; number < end; ++number) {
      const Slot& slot = slots_[number % kKept];
      out.push_back({slot.ended_ns, slot.ns, slot.work, slot.agent, slot.preemptions});
    }
    // Meanwhile the writer may have begun to write over the oldest of them.
    const uint64_t begun = begun_.load();
    const uint64_t lost = begun > first + kKept ? begun - first - kKept : 0;
    out.erase(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(std::min<uint64_t>(lost, out.size())));
    return out;
  }

 private:
  struct Slot {
    std::atomic<uint64_t> ended_ns{0};
    std::atomic<uint64_t> ns{0};
    std::atomic<uint32_t> work{0};
    std::atomic<uint32_t> agent{0};
    std::atomic<uint32_t> preemptions{0};
  };
  std::array<Slot, kKept> slots_;
  std::atomic<uint64_t> begun_{0};
  std::atomic<uint64_t> done_{0};
};

}  // namespace migrx
