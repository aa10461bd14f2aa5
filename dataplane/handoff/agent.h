// A unit of work that never blocks. A thread runs one agent, or several in turn (dataplane/agent_thread.h); a
// test or the simulation calls do_work() itself, with a clock of its own.
#pragma once

#include <cstdint>

namespace migrx {

class Agent {
 public:
  virtual ~Agent() = default;

  // One turn: looks once at everything it serves, does a bounded amount of work, returns how much (0: nothing
  // to do now, the caller may pause). now_ns: a monotonic clock, read once per turn by the caller. Hot: no
  // allocation, lock, exception, log, system call or clock read.
  virtual uint32_t do_work(uint64_t now_ns) noexcept = 0;

  // On the thread that will call do_work(), before the first and after the last call. May allocate and block.
  virtual void on_start() {}
  virtual void on_stop() noexcept {}

  // For thread names and reports: "poll 0", "loader 2". At most 15 characters show in a thread's name.
  [[nodiscard]] virtual const char* name() const noexcept = 0;
};

}  // namespace migrx
