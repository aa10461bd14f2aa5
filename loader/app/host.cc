#include "loader/app/host.h"

#include <algorithm>
#include <string>
#include <utility>

#include "dataplane/dpdk/eal.h"
#include "loader/app/watch/metric_table.h"
#include "numa/clock.h"

namespace migrx {

Host::Host(const HostOptions& options, const Placement& placement, uint32_t connections,
           uint32_t channels_max, const std::string& runtime_folder)
    : options_(options),
      placement_(placement),
      network_(options, placement, connections, runtime_folder),
      workers_(placement, channels_max) {
  for (const ThreadPlan& plan : placement.threads) {
    std::vector<Agent*> agents;
    for (const AgentPlan& agent : plan.agents)
      agents.push_back(agent.role == AgentRole::poll ? static_cast<Agent*>(&network_.poll_core(agent.index))
                                                     : &workers_.worker(agent.index));
    AgentThreadOptions thread;
    thread.cpu = plan.cpu;
    thread.idle = parse_idle_strategy(placement.idle).value_or(IdleStrategy::yield);
    thread.enter = enter_dpdk_thread;
    thread.leave = leave_dpdk_thread;
    threads_.push_back(std::make_unique<AgentThread>(std::move(agents), std::move(thread)));
  }
}

void Host::open(bool probe) {
  network_.start();
  claim_.emplace(network_, AddressClaimOptions{options_.link_timeout_s, probe});
}

Host::Running Host::run(const SignalWatch& signals, Terminal& terminal) {
  claim_->finish(signals, terminal);
  for (const auto& thread : threads_) thread->start();
  if (placement_.control_cpu) pin_current_thread(*placement_.control_cpu);
  return Running{*this};
}

void Host::stop() noexcept {
  for (const auto& thread : threads_) thread->stop();
  network_.stop();
}

std::vector<uint64_t> Host::turns() const {
  std::vector<uint64_t> turns;
  for (const auto& thread : threads_) turns.push_back(thread->counters().turns.read());
  return turns;
}

void Host::sample(ProgressSample& sample) const {
  for (std::size_t i = 0; i < threads_.size(); ++i) {
    const auto& agents = placement_.threads[i].agents;
    if (std::none_of(agents.begin(), agents.end(),
                     [](const AgentPlan& agent) { return agent.role == AgentRole::poll; }))
      continue;
    sample.poll_busy_s += static_cast<double>(threads_[i]->counters().busy_ns.read()) * 1e-9;
    sample.poll_idle_s += static_cast<double>(threads_[i]->counters().idle_ns.read()) * 1e-9;
    sample.spins = threads_[i]->options().idle == IdleStrategy::spin;
  }
}

void Host::report(Report& report) const {
  const uint64_t now_ns = monotonic_ns();
  const double now_unix_s = unix_time_s();
  for (std::size_t i = 0; i < threads_.size(); ++i) {
    const AgentThreadCounters& counters = threads_[i]->counters();
    CoreReport core;
    for (const AgentPlan& agent : placement_.threads[i].agents)
      core.role +=
          (core.role.empty() ? "" : "+") + std::string(agent.role == AgentRole::poll ? "poll" : "loader");
    core.cpu = placement_.threads[i].cpu.value();
    core.node = placement_.threads[i].node.value();
    core.busy_s = static_cast<double>(counters.busy_ns.read()) * 1e-9;
    core.idle_s = static_cast<double>(counters.idle_ns.read()) * 1e-9;
    core.longest_turn_us = static_cast<double>(counters.longest_turn_ns.read()) * 1e-3;
    core.counters = counters_of(counters);
    core.stalls = threads_[i]->stalls().count();
    for (const Stall& stall : threads_[i]->stalls().last()) {
      StallReport told;
      told.at_unix_s = now_unix_s - static_cast<double>(now_ns - std::min(now_ns, stall.ended_ns)) * 1e-9;
      told.us = static_cast<double>(stall.ns) * 1e-3;
      if (stall.work > 0) told.agent = threads_[i]->agents()[stall.agent]->name();
      told.work = stall.work;
      told.preemptions = stall.preemptions;
      core.last_stalls.push_back(std::move(told));
    }
    report.cores.push_back(std::move(core));
  }
  network_.report(report);
}

}  // namespace migrx
