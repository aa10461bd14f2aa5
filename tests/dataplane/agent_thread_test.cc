#include "dataplane/agent_thread.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

namespace migrx {
namespace {

using namespace std::chrono_literals;

class CountingAgent final : public Agent {
 public:
  explicit CountingAgent(std::vector<std::string>& events, std::string name, uint32_t work = 0)
      : events_(events), name_(std::move(name)), work_(work) {}
  uint32_t do_work(uint64_t now_ns) noexcept override {
    clock_went_back |= now_ns < last_ns_;
    last_ns_ = now_ns;
    turns.fetch_add(1);
    return work_;
  }
  void on_start() override {
    if (fails) throw std::runtime_error("cannot start");
    cpu = sched_getcpu();
    events_.push_back("start " + name_);
  }
  void on_stop() noexcept override { events_.push_back("stop " + name_); }
  [[nodiscard]] const char* name() const noexcept override { return name_.c_str(); }

  std::atomic<uint64_t> turns{0};
  bool clock_went_back = false;
  bool fails = false;
  int cpu = -1;

 private:
  std::vector<std::string>& events_;
  const std::string name_;
  const uint32_t work_;
  uint64_t last_ns_ = 0;
};

void wait_for_turns(const CountingAgent& agent, uint64_t turns) {
  const auto deadline = std::chrono::steady_clock::now() + 10s;
  while (agent.turns < turns && std::chrono::steady_clock::now() < deadline) std::this_thread::sleep_for(1ms);
}

TEST(AgentThread, agents_start_in_order_run_in_turn_and_stop_in_reverse) {
  std::vector<std::string> events;
  CountingAgent first(events, "first");
  CountingAgent second(events, "second", 1);
  AgentThread thread({&first, &second}, {.enter = [&] { events.emplace_back("enter"); },
                                         .leave = [&] { events.emplace_back("leave"); }});
  thread.start();
  EXPECT_EQ(events, (std::vector<std::string>{"enter", "start first", "start second"}));
  wait_for_turns(second, 100);
  EXPECT_GT(thread.cpu_ns(), 0U);
  thread.stop();
  EXPECT_EQ(events, (std::vector<std::string>{"enter", "start first", "start second", "stop second",
                                              "stop first", "leave"}));
  EXPECT_EQ(first.turns, second.turns);
  EXPECT_GE(first.turns, 100U);
  EXPECT_FALSE(first.clock_went_back);
  EXPECT_EQ(thread.counters().turns.read(), first.turns);
  EXPECT_EQ(thread.counters().busy_turns.read(), first.turns);
  EXPECT_GT(thread.counters().busy_ns.read(), 0U);
  EXPECT_GT(thread.counters().longest_turn_ns.read(), 0U);
  EXPECT_EQ(thread.counters().idle_ns.read(), 0U);
}

class SlowAgent final : public Agent {
 public:
  SlowAgent(std::vector<std::chrono::microseconds> turns, uint32_t work)
      : turns_(std::move(turns)), work_(work) {}
  uint32_t do_work(uint64_t) noexcept override {
    const std::size_t turn = turn_.fetch_add(1);
    if (turn >= turns_.size()) return 0;
    const auto until = std::chrono::steady_clock::now() + turns_[turn];
    while (std::chrono::steady_clock::now() < until) {
    }
    return work_;
  }
  [[nodiscard]] const char* name() const noexcept override { return "slow"; }
  [[nodiscard]] bool through() const noexcept { return turn_ > turns_.size(); }

 private:
  const std::vector<std::chrono::microseconds> turns_;
  const uint32_t work_;
  std::atomic<std::size_t> turn_{0};
};

// Others may take this machine's CPUs, which makes more stalls: those that were made are among them.
TEST(AgentThread, turns_that_take_long_are_kept_with_what_was_in_them) {
  std::vector<std::string> events;
  CountingAgent quick(events, "quick", 1);
  SlowAgent slow({100us, 2000us, 100us, 3000us}, 7);
  AgentThread thread({&quick, &slow}, {});
  thread.start();
  const auto deadline = std::chrono::steady_clock::now() + 10s;
  while (!slow.through() && std::chrono::steady_clock::now() < deadline) std::this_thread::sleep_for(1ms);
  thread.stop();
  const std::vector<Stall> stalls = thread.stalls().last();
  const auto made = [&](uint64_t ns) {
    return std::find_if(stalls.begin(), stalls.end(), [ns](const Stall& stall) {
      return stall.work == 8 && stall.agent == 1 && stall.ns >= ns;
    });
  };
  ASSERT_NE(made(2'000'000), stalls.end());
  ASSERT_NE(made(3'000'000), stalls.end());
  EXPECT_LE(made(2'000'000)->ended_ns, made(3'000'000)->ended_ns);
  for (const Stall& stall : stalls) EXPECT_GE(stall.ns, AgentThread::kStallNs);
  EXPECT_GE(thread.stalls().count(), stalls.size());
}

// One that spins and finds nothing is late for what comes meanwhile, too.
TEST(AgentThread, a_spinning_threads_long_turn_is_a_stall_without_work) {
  SlowAgent slow({2000us}, 0);
  AgentThread thread({&slow}, {.idle = IdleStrategy::spin});
  thread.start();
  const auto deadline = std::chrono::steady_clock::now() + 10s;
  while (!slow.through() && std::chrono::steady_clock::now() < deadline) std::this_thread::sleep_for(100us);
  thread.stop();
  const std::vector<Stall> stalls = thread.stalls().last();
  EXPECT_TRUE(std::any_of(stalls.begin(), stalls.end(),
                          [](const Stall& stall) { return stall.work == 0 && stall.ns >= 2'000'000; }));
}

// A turn of these holds a sleep: that is no stall.
TEST(AgentThread, its_pauses_are_no_stalls) {
  std::vector<std::string> events;
  CountingAgent agent(events, "idle");
  AgentThread thread({&agent}, {.idle = IdleStrategy::sleep, .sleep_ns = 2'000'000});
  thread.start();
  wait_for_turns(agent, 40);
  thread.stop();
  EXPECT_EQ(thread.stalls().count(), 0U);
}

class IdleThread : public ::testing::TestWithParam<IdleStrategy> {};

// On a CPU that it shares, an idle thread leaves it to others: in 100 ms it has used far less than that.
TEST_P(IdleThread, uses_little_cpu) {
  std::vector<std::string> events;
  CountingAgent agent(events, "idle");
  AgentThread thread({&agent}, {.idle = GetParam()});
  const auto begin = std::chrono::steady_clock::now();
  thread.start();
  // However slow the machine is just now: it comes round, and uses but a part of the time it could have.
  std::chrono::nanoseconds passed{0};
  while (passed < 100ms || (thread.counters().turns.read() < 50 && passed < 30s)) {
    std::this_thread::sleep_for(10ms);
    passed = std::chrono::steady_clock::now() - begin;
  }
  const uint64_t used_ns = thread.cpu_ns();
  passed = std::chrono::steady_clock::now() - begin;
  thread.stop();
  EXPECT_GE(agent.turns, 50U);
  EXPECT_LT(used_ns, static_cast<uint64_t>(passed.count()) * 6 / 10);
  EXPECT_EQ(thread.counters().busy_turns.read(), 0U);
  EXPECT_GT(thread.counters().idle_ns.read(), 0U);
}

TEST_P(IdleThread, sleeps_longer_after_a_long_silence) {
  std::vector<std::string> events;
  CountingAgent agent(events, "idle");
  AgentThread thread({&agent}, {.idle = GetParam()});
  thread.start();
  std::this_thread::sleep_for(300ms);
  const uint64_t before = agent.turns;
  const auto since = std::chrono::steady_clock::now();
  std::this_thread::sleep_for(500ms);
  const uint64_t turns = agent.turns - before;
  const std::chrono::nanoseconds passed = std::chrono::steady_clock::now() - since;
  thread.stop();
  EXPECT_LE(turns, static_cast<uint64_t>(passed / 500us) + 2);
}

INSTANTIATE_TEST_SUITE_P(AgentThread, IdleThread, ::testing::Values(IdleStrategy::yield, IdleStrategy::sleep),
                         [](const auto& strategy) { return std::string(to_string(strategy.param)); });

// However late the machine is, it has no more turns than this; with sleeps of 50 us it has thousands.
TEST(AgentThread, who_is_in_no_hurry_sleeps_longer) {
  std::vector<std::string> events;
  CountingAgent agent(events, "a");
  AgentThreadOptions options;
  options.idle = IdleStrategy::sleep;
  options.sleep_ns = 50'000'000;
  AgentThread thread({&agent}, std::move(options));
  thread.start();
  std::this_thread::sleep_for(20ms);  // until it sleeps
  const uint64_t before = agent.turns.load();
  std::this_thread::sleep_for(500ms);
  EXPECT_LE(agent.turns.load() - before, 20U);
  thread.stop();
}

TEST(AgentThread, runs_on_the_cpu_it_was_given) {
  cpu_set_t allowed;
  ASSERT_EQ(sched_getaffinity(0, sizeof allowed, &allowed), 0);
  int last = -1;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
    if (CPU_ISSET(static_cast<std::size_t>(cpu), &allowed)) last = cpu;
  std::vector<std::string> events;
  CountingAgent agent(events, "pinned");
  AgentThread thread({&agent}, {.cpu = CpuId{last}, .idle = IdleStrategy::yield});
  thread.start();
  thread.stop();
  EXPECT_EQ(agent.cpu, last);
}

TEST(AgentThread, a_cpu_that_does_not_exist_is_refused_by_name) {
  std::vector<std::string> events;
  CountingAgent agent(events, "lost");
  AgentThread thread({&agent}, {.cpu = CpuId{CPU_SETSIZE - 1}});
  try {
    thread.start();
    FAIL() << "started";
  } catch (const std::system_error& error) {
    EXPECT_NE(std::string(error.what()).find(std::to_string(CPU_SETSIZE - 1)), std::string::npos);
  }
  EXPECT_TRUE(events.empty());
}

TEST(AgentThread, an_agent_that_cannot_start_stops_those_before_it) {
  std::vector<std::string> events;
  CountingAgent first(events, "first");
  CountingAgent second(events, "second");
  second.fails = true;
  AgentThread thread({&first, &second}, {});
  EXPECT_THROW(thread.start(), std::runtime_error);
  EXPECT_EQ(events, (std::vector<std::string>{"start first", "stop first"}));
  EXPECT_EQ(thread.cpu_ns(), 0U);
}

TEST(IdleStrategy, names_are_read_and_written) {
  for (const IdleStrategy idle : {IdleStrategy::spin, IdleStrategy::yield, IdleStrategy::sleep})
    EXPECT_EQ(parse_idle_strategy(to_string(idle)), idle);
  EXPECT_FALSE(parse_idle_strategy("busy"));
}

}  // namespace
}  // namespace migrx
