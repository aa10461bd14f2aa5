#include "dataplane/agent_thread.h"

#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>

#include <algorithm>
#include <exception>
#include <future>
#include <string>
#include <system_error>

#include "numa/clock.h"

namespace migrx {
namespace {

// Empty turns before the first pause: a burst often follows on the heels of another.
constexpr uint32_t kTurnsBeforeYield = 16;
// How long nothing came before the first sleep of `sleep`: some bursts' time. And of `yield`: longer than the
// gaps of a sender that is at it, such as a round trip.
constexpr uint64_t kNsBeforeSleep = 50'000;
constexpr uint64_t kNsBeforeSleepOfYield = 1'000'000;
// A sender that was silent for longer than its retransmission time-out begins slowly again (RFC 5681 section
// 4.1; Linux: 200 ms at least): what it sends during a longer sleep fits the port's ring.
constexpr uint64_t kNsBeforeLongSleep = 250'000'000;
constexpr uint32_t kLongSleepNs = 500'000;

void pause_cpu() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Times the kernel took the CPU from the calling thread. A system call.
uint64_t preemptions() noexcept {
  rusage usage{};
  return getrusage(RUSAGE_THREAD, &usage) == 0 ? static_cast<uint64_t>(usage.ru_nivcsw) : 0;
}

// `idle_ns`: since the last turn with work.
void pause(const AgentThreadOptions& options, uint32_t empty_turns, uint64_t idle_ns) noexcept {
  if (options.idle == IdleStrategy::spin) return pause_cpu();
  if (idle_ns >= (options.idle == IdleStrategy::sleep ? kNsBeforeSleep : kNsBeforeSleepOfYield)) {
    const uint32_t sleep_ns =
        idle_ns >= kNsBeforeLongSleep ? std::max(options.sleep_ns, kLongSleepNs) : options.sleep_ns;
    const timespec sleep{0, static_cast<long>(sleep_ns)};
    clock_nanosleep(CLOCK_MONOTONIC, 0, &sleep, nullptr);
  } else if (empty_turns >= kTurnsBeforeYield) {
    sched_yield();
  }
}

}  // namespace

std::optional<IdleStrategy> parse_idle_strategy(std::string_view name) noexcept {
  for (const IdleStrategy idle : {IdleStrategy::spin, IdleStrategy::yield, IdleStrategy::sleep})
    if (name == to_string(idle)) return idle;
  return std::nullopt;
}

std::string_view to_string(IdleStrategy idle) noexcept {
  switch (idle) {
    case IdleStrategy::spin:
      return "spin";
    case IdleStrategy::yield:
      return "yield";
    case IdleStrategy::sleep:
      return "sleep";
  }
  return "";
}

void pin_current_thread(CpuId cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<std::size_t>(cpu.value()), &set);
  const int error = pthread_setaffinity_np(pthread_self(), sizeof set, &set);
  if (error != 0)
    throw std::system_error(error, std::generic_category(),
                            "cannot pin a thread to CPU " + std::to_string(cpu.value()) +
                                ": is it online, and in this process's cpuset?");
}

AgentThread::AgentThread(std::vector<Agent*> agents, AgentThreadOptions options)
    : agents_(std::move(agents)), options_(std::move(options)) {}

AgentThread::~AgentThread() {
  stop();
}

void AgentThread::enter() {
  if (options_.cpu) pin_current_thread(*options_.cpu);
  if (!agents_.empty())
    pthread_setname_np(pthread_self(), std::string(agents_.front()->name()).substr(0, 15).c_str());
  // A sleep of 50 us must not become 100: the kernel's default slack is 50 us.
  if (options_.idle != IdleStrategy::spin) prctl(PR_SET_TIMERSLACK, 1'000UL, 0, 0, 0);
  if (options_.enter) options_.enter();
  entered_ = true;
  for (; started_ < agents_.size(); ++started_) agents_[started_]->on_start();
}

void AgentThread::leave() noexcept {
  while (started_ > 0) agents_[--started_]->on_stop();
  if (entered_ && options_.leave) options_.leave();
  entered_ = false;
}

void AgentThread::start() {
  stop_.store(false, std::memory_order_relaxed);
  started_ = 0;
  std::promise<void> ready;
  std::future<void> result = ready.get_future();
  // The promise moves to the thread: it must outlive its own set_value().
  thread_ = std::thread([this, ready = std::move(ready)]() mutable {
    try {
      enter();
    } catch (...) {
      leave();
      ready.set_exception(std::current_exception());
      return;
    }
    ready.set_value();
    run();
    leave();
  });
  try {
    result.get();
  } catch (...) {
    thread_.join();
    throw;
  }
}

void AgentThread::run() noexcept {
  uint32_t empty_turns = 0;
  uint64_t turn_began_ns = monotonic_ns();
  uint64_t idle_since_ns = turn_began_ns;
  const bool turns_hold_no_pause = options_.idle == IdleStrategy::spin;
  preemptions_ = preemptions();
  while (!stop_.load(
      std::memory_order_acquire)) {  // pairs with stop(): on_stop() sees what the caller did before
    uint32_t work = 0;
    uint32_t most = 0;
    std::size_t busiest = 0;
    for (std::size_t i = 0; i < agents_.size(); ++i) {
      const uint32_t found = agents_[i]->do_work(turn_began_ns);
      work += found;
      if (found > most) {
        most = found;
        busiest = i;
      }
    }
    if (work == 0) pause(options_, ++empty_turns, turn_began_ns - idle_since_ns);
    const uint64_t now_ns = monotonic_ns();
    const uint64_t spent_ns = now_ns - turn_began_ns;
    turn_began_ns = now_ns;
    counters_.turns.add();
    if (spent_ns >= kStallNs && (work > 0 || turns_hold_no_pause))
      record_stall(now_ns, spent_ns, work, busiest);
    if (work == 0) {
      counters_.idle_ns.add(spent_ns);
      continue;
    }
    empty_turns = 0;
    idle_since_ns = now_ns;
    counters_.busy_turns.add();
    counters_.busy_ns.add(spent_ns);
    if (spent_ns > counters_.longest_turn_ns.read()) counters_.longest_turn_ns.set(spent_ns);
  }
}

void AgentThread::record_stall(uint64_t ended_ns, uint64_t spent_ns, uint32_t work,
                               std::size_t agent) noexcept {
  const uint64_t now = preemptions();
  stalls_.record(
      {ended_ns, spent_ns, work, static_cast<uint32_t>(agent), static_cast<uint32_t>(now - preemptions_)});
  preemptions_ = now;
}

void AgentThread::stop() noexcept {
  if (!thread_.joinable()) return;
  stop_.store(true, std::memory_order_release);  // pairs with run()
  thread_.join();
}

uint64_t AgentThread::cpu_ns() const noexcept {
  if (!thread_.joinable()) return 0;
  clockid_t clock{};
  // native_handle() is not const; the handle is only read.
  if (pthread_getcpuclockid(const_cast<std::thread&>(thread_).native_handle(), &clock) != 0) return 0;
  timespec used{};
  if (clock_gettime(clock, &used) != 0) return 0;
  return static_cast<uint64_t>(used.tv_sec) * 1'000'000'000U + static_cast<uint64_t>(used.tv_nsec);
}

}  // namespace migrx
