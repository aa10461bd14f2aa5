// A pinned thread that runs agents in turn.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>
#include <thread>
#include <vector>

#include "dataplane/handoff/agent.h"
#include "dataplane/handoff/counter.h"
#include "dataplane/stall_recorder.h"
#include "numa/ids.h"

namespace migrx {

// What a thread does when none of its agents had work.
enum class IdleStrategy : uint8_t {
  spin,   // nothing: for CPUs of its own
  yield,  // gives the CPU to whoever waits for it, and sleeps 50 us at a time once nothing came for a
          // millisecond: for shared ones, where a thread that never sleeps can keep those of the kernel
          // waiting, yields or not (docs/architecture.md)
  sleep,  // the same once nothing came for some 50 us: for laptops, tests and long waits
};
[[nodiscard]] std::optional<IdleStrategy> parse_idle_strategy(std::string_view name) noexcept;
[[nodiscard]] std::string_view to_string(IdleStrategy idle) noexcept;

// Binds the calling thread. Throws std::system_error, with what to look at, when the CPU cannot be used.
void pin_current_thread(CpuId cpu);

struct AgentThreadOptions {
  std::optional<CpuId> cpu = std::nullopt;  // nothing: runs wherever the kernel likes
  IdleStrategy idle = IdleStrategy::yield;
  // Of one sleep, below 1 s: what may come meanwhile waits as long. For those who are in no hurry at all,
  // longer. After a quarter of a second without work it is half a millisecond at least.
  uint32_t sleep_ns = 50'000;
  // On the thread, before the first agent starts and after the last one stopped: registration with DPDK,
  // memory policy. `enter` may throw.
  std::function<void()> enter = {};
  std::function<void()> leave = {};
};

// Time is told apart by turns: one with work counts as busy, one without as idle, pause included. A busy turn
// that the kernel interrupted counts whole; cpu_ns() shows what the thread really had.
struct AgentThreadCounters {
  Counter turns;
  Counter busy_turns;
  Counter busy_ns;
  Counter idle_ns;
  Counter longest_turn_ns;  // of the busy ones
};

class AgentThread {
 public:
  // A turn that takes longer is a stall: a window's worth of frames may have come meanwhile.
  static constexpr uint64_t kStallNs = 250'000;

  // The agents are not owned and outlive the thread. Each turn calls all of them, in this order.
  AgentThread(std::vector<Agent*> agents, AgentThreadOptions options);
  ~AgentThread();  // stop()
  AgentThread(const AgentThread&) = delete;
  AgentThread& operator=(const AgentThread&) = delete;

  // Returns when the thread is pinned and all agents have started. Throws what `enter` or an agent's
  // on_start() threw, std::system_error when the CPU cannot be used; there is no thread then.
  void start();
  // Ends after the present turn; all agents have stopped when it returns. Not from the thread itself.
  void stop() noexcept;

  [[nodiscard]] const AgentThreadCounters& counters() const noexcept { return counters_; }
  // Long turns: with work; and without, where a turn holds no pause (spin).
  [[nodiscard]] const StallRecorder& stalls() const noexcept { return stalls_; }
  // CPU time the thread has used; 0 when it does not run.
  [[nodiscard]] uint64_t cpu_ns() const noexcept;
  [[nodiscard]] const std::vector<Agent*>& agents() const noexcept { return agents_; }
  [[nodiscard]] const AgentThreadOptions& options() const noexcept { return options_; }

 private:
  void enter();
  void leave() noexcept;
  void run() noexcept;
  void record_stall(uint64_t ended_ns, uint64_t spent_ns, uint32_t work, std::size_t agent) noexcept;

  const std::vector<Agent*> agents_;
  const AgentThreadOptions options_;
  AgentThreadCounters counters_;
  StallRecorder stalls_;
  uint64_t preemptions_ = 0;  // until the last stall; the thread's
  std::atomic<bool> stop_{false};
  bool entered_ = false;     // options_.enter returned
  std::size_t started_ = 0;  // agents whose on_start() returned
  std::thread thread_;
};

}  // namespace migrx
