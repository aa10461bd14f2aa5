#include "loader/app/receive_command.h"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <optional>

#include "dataplane/agent_thread.h"
#include "dataplane/dpdk/eal.h"
#include "dataplane/dpdk/telemetry.h"
#include "dataplane/wire/address_text.h"
#include "loader/app/address_claim.h"
#include "loader/app/colo_watch.h"
#include "loader/app/control_pace.h"
#include "loader/app/core_options.h"
#include "loader/app/destinations.h"
#include "loader/app/guest_blocks.h"
#include "loader/app/live_connections.h"
#include "loader/app/lost_connection.h"
#include "loader/app/network.h"
#include "loader/app/receive_options.h"
#include "loader/app/report.h"
#include "loader/app/reset_duty.h"
#include "loader/app/session_report.h"
#include "loader/app/session_signals.h"
#include "loader/app/signals.h"
#include "loader/app/supervisor.h"
#include "loader/app/terminal.h"
#include "loader/app/tls_setup.h"
#include "loader/app/watch/metric_table.h"
#include "loader/app/watch/service_manager.h"
#include "loader/app/watch/telemetry_pages.h"
#include "loader/app/watch/watch.h"
#include "loader/app/workers.h"

namespace migrx {
namespace {

constexpr const char* kVersion = MIGRX_VERSION;
constexpr std::size_t kWarningsMax = 32;  // a scanner may come from many addresses

SessionLimits limits_of(const ReceiveOptions& options) {
  const auto ns = [](double seconds) { return static_cast<uint64_t>(seconds * 1e9); };
  SessionLimits limits;
  limits.identify_ns = ns(options.identify_timeout_s);
  limits.channels_ns = ns(options.channels_timeout_s);
  limits.stall_ns = ns(options.stall_timeout_s);
  limits.destination_ns = ns(options.destination_timeout_s);
  return limits;
}

void tell_ready(const ReceiveOptions& options, Terminal& terminal) {
  const std::string line =
      fmt::format("ready: listening on {} port {}", options.addresses.front(), options.listen);
  terminal.say(line);
  if (options.ready_fd < 0) return;
  const std::string message = line + "\n";
  if (::write(options.ready_fd, message.data(), message.size()) != static_cast<ssize_t>(message.size()))
    terminal.warn("cannot write to --ready-fd");
  ::close(options.ready_fd);
}

// Once for each peer: a source tries again.
void warn_of_misled_peer(const IpAddress& peer, bool tls_wanted, Terminal& terminal, Report& report) {
  const std::string warning =
      fmt::format("{} began {} and was reset: if it is the source, {}", IpAddressText(peer).view(),
                  tls_wanted ? "without TLS" : "with a TLS handshake",
                  tls_wanted ? "set tls-creds there" : "unset tls-creds there, or give --tls-creds here");
  if (std::find(report.warnings.begin(), report.warnings.end(), warning) != report.warnings.end()) return;
  if (report.warnings.size() >= kWarningsMax) return;
  report.warnings.push_back(warning);
  terminal.warn("warning: " + warning);
}

void report_threads(const std::vector<std::unique_ptr<AgentThread>>& threads, const Placement& placement,
                    Report& report) {
  for (std::size_t i = 0; i < threads.size(); ++i) {
    const AgentThreadCounters& counters = threads[i]->counters();
    CoreReport core;
    for (const AgentPlan& agent : placement.threads[i].agents)
      core.role +=
          (core.role.empty() ? "" : "+") + std::string(agent.role == AgentRole::poll ? "poll" : "loader");
    core.cpu = placement.threads[i].cpu.value();
    core.node = placement.threads[i].node.value();
    core.busy_s = static_cast<double>(counters.busy_ns.read()) * 1e-9;
    core.idle_s = static_cast<double>(counters.idle_ns.read()) * 1e-9;
    core.longest_turn_us = static_cast<double>(counters.longest_turn_ns.read()) * 1e-3;
    core.counters = counters_of(counters);
    report.cores.push_back(std::move(core));
  }
}

// Of the threads that poll: how much of their time found something to do.
ProgressSample with_poll_times(ProgressSample sample,
                               const std::vector<std::unique_ptr<AgentThread>>& threads,
                               const Placement& placement) {
  for (std::size_t i = 0; i < threads.size(); ++i) {
    const auto& agents = placement.threads[i].agents;
    if (std::none_of(agents.begin(), agents.end(),
                     [](const AgentPlan& agent) { return agent.role == AgentRole::poll; }))
      continue;
    sample.poll_busy_s += static_cast<double>(threads[i]->counters().busy_ns.read()) * 1e-9;
    sample.poll_idle_s += static_cast<double>(threads[i]->counters().idle_ns.read()) * 1e-9;
    sample.spins = threads[i]->options().idle == IdleStrategy::spin;
  }
  return sample;
}

// Topology, placement, memory, network, session, threads, run: every long-lived object is made here,
// in this order.
int receive(const ReceiveOptions& options, const Lifeline& lifeline) {
  const uint64_t start_ns = monotonic_ns();
  const auto now_s = [start_ns] { return static_cast<double>(monotonic_ns() - start_ns) * 1e-9; };
  const SignalWatch signals;
  Terminal terminal(options.quiet);
  Report report;
  report.started_unix_s = unix_time_s() - now_s();
  report.command = "receive";
  report.version = kVersion;
  report.outcome = "failed";
  int exit_status = 2;
  LiveConnections live_connections(lifeline);
  ServiceManager manager(service_environment(), lifeline.held() ? ::getppid() : ::getpid());
  if (!manager.warning().empty()) terminal.warn("warning: " + manager.warning());
  try {
    if (const std::string problem = check_receive_options(options); !problem.empty())
      throw SetupError(problem);
    const std::vector<RamSpec> ram = prepare_job(options);
    const MemorySettings memory = memory_settings(options);
    const Placement placement = place_here(options, options.ports, ram, options.mtu);
    report.placement = placement.reasons;
    report.warnings = placement.warnings;
    std::vector<CpuId> cores;
    for (const ThreadPlan& thread : placement.threads) cores.push_back(thread.cpu);
    Watch watch(options.metrics, cores, report);
    if (!watch.warning().empty()) report.warnings.push_back(watch.warning());
    std::unique_ptr<TlsSetup> tls;
    if (options.tls_creds)
      tls = std::make_unique<TlsSetup>(*options.tls_creds, options.tls_authz,
                                       session_settings(options).connections_max, options.identify_timeout_s,
                                       report);

    std::map<std::string, uint64_t> addresses = inspect_by_qmp(options, ram, report, signals);
    GuestBlocks guest(ram, options.private_ram_max, options.handoff.has_value(), lifeline, signals);
    const double prefault_started_s = now_s();
    manager.status("takes the guest's memory", now_s());
    guest.prefault(placement, memory, terminal, signals);
    report.timeline.prefault_s = now_s() - prefault_started_s;
    if (report.timeline.prefault_s > 0)
      report.prefault_bytes_per_s = static_cast<double>(guest.bytes()) / report.timeline.prefault_s;

    manager.status("sets the ports up and waits for their links", now_s());
    inherit_from_predecessors(options, live_connections, terminal);
    Network network(options, placement);
    for (const std::string& warning : network.warnings()) report.warnings.push_back(warning);
    std::optional<Telemetry> telemetry;
    if (options.telemetry) {
      telemetry.emplace(telemetry_commands());
      watch.also([&telemetry](const Report& live, const ProgressSample& progress) {
        telemetry->publish(telemetry_pages(live, progress));
      });
    }
    network.start();
    // What a predecessor answered for until now is ours already.
    AddressClaim claim(
        network, {options.link_timeout_s, options.probe && live_connections.inherited().connections.empty()});
    SessionSettings settings = session_settings(options);
    arm_by_qmp(options, settings.main.switchover_ack, report, signals);
    for (const std::string& warning : report.warnings) terminal.warn("warning: " + warning);

    const std::unique_ptr<Destination> destination =
        make_destination(options.handoff, options.dump_blocks, guest, std::move(addresses),
                         limits_of(options).stall_ns, handoff_choice(options, options.multifd_channels));
    Workers workers(placement, settings.connections_max);
    std::unique_ptr<ColoSecondary> colo;
    if (settings.main.x_colo) {
      colo = std::make_unique<ColoSecondary>(destination->events(), guest.table().list(), workers.kernels(),
                                             available_memory_bytes);
      if (const std::string problem = colo->reserve(); !problem.empty()) throw SetupError(problem);
      settings.colo = colo.get();
    }
    if (tls != nullptr) settings.security = &tls->acceptor();
    settings.silent_peers = &network.silent_peers();
    Session session(workers.with_routers(settings), guest.table(),
                    colo != nullptr ? *colo : destination->events(), workers.kernels(), workers.compress());
    SessionControl control(
        session, *destination,
        [&network, &live_connections] {
          Handoff* const connection = network.take_accepted();
          if (connection != nullptr)
            live_connections.opened(network.place(*connection), network.whereabouts(*connection));
          return connection;
        },
        workers.pointers(), limits_of(options));

    control.on_ended([&](const Handoff& connection) { live_connections.ended(network.place(connection)); });
    ResetDuty reset_duty(options, network, live_connections);

    std::vector<std::unique_ptr<AgentThread>> threads;
    for (const ThreadPlan& plan : placement.threads) {
      std::vector<Agent*> agents;
      for (const AgentPlan& agent : plan.agents)
        agents.push_back(agent.role == AgentRole::poll ? static_cast<Agent*>(&network.poll_core(agent.index))
                                                       : &workers.worker(agent.index));
      AgentThreadOptions thread;
      thread.cpu = plan.cpu;
      thread.idle = parse_idle_strategy(placement.idle).value_or(IdleStrategy::yield);
      thread.enter = enter_dpdk_thread;
      thread.leave = leave_dpdk_thread;
      threads.push_back(std::make_unique<AgentThread>(std::move(agents), std::move(thread)));
    }
    claim.finish(signals, terminal);
    for (const auto& thread : threads) thread->start();
    if (placement.control_cpu) pin_current_thread(*placement.control_cpu);
    lifeline.listening();
    reset_duty.start();
    report.timeline.ready_s = now_s();
    tell_ready(options, terminal);
    manager.ready(now_s());

    exit_status = 1;
    Progress progress;
    ColoWatch colo_watch;
    ControlPace pace;
    SignalPolicy signal_policy;
    int status_if_killed = 1;
    double looked_s = now_s();
    const auto sample_now = [&] {
      return with_poll_times(sample_progress(session, guest.table(), now_s()), threads, placement);
    };
    while (!control.over()) {
      const uint32_t work = control.do_work(monotonic_ns());
      const int signal = signals.wait(pace.pause_us(session.state(), work), destination->wake_fd());
      act_on_signal(signal, monotonic_ns(), signal_policy, control, terminal);
      if (const int status = !control.telling() ? 1 : control.told() ? 0 : 3; status != status_if_killed)
        lifeline.if_killed(status_if_killed = status);
      if (const std::optional<IpAddress> peer = session.take_misled_peer())
        warn_of_misled_peer(*peer, tls != nullptr, terminal, report);
      if (tls != nullptr) tls->tell(terminal, report);
      while (std::optional<std::string> warning = control.take_warning()) {
        terminal.warn("warning: " + *warning);
        report.warnings.push_back(std::move(*warning));
      }
      if (colo != nullptr) colo_watch.look(*colo, terminal);
      watch.look(now_s(), session.state(), work, [&](Report& live) {
        live.warnings = report.warnings;
        live.timeline = report.timeline;
        sample_channels(session, start_ns, live);
        report_threads(threads, placement, live);
        network.report(live);
        if (colo != nullptr) live.colo = counters_of(*colo);
        if (tls != nullptr) tls->report(live);
        live.cpu_s = cpu_seconds();
        return sample_now();
      });
      if (terminal.due(now_s())) terminal.progress(progress.line(sample_now(), terminal.width()), now_s());
      if (now_s() - looked_s >= 0.1) {
        looked_s = now_s();
        if (manager.present()) {
          std::vector<uint64_t> turns;
          for (const auto& thread : threads) turns.push_back(thread->counters().turns.read());
          manager.status(progress.line(sample_now(), 0), now_s());
          manager.look(now_s(), turns);
        }
        reset_duty.look();
        for (const std::string& line : network.look_at_links(now_s())) terminal.say(line);
        for (const std::string& warning : {network.take_conflict(), network.look_at_traffic(now_s())}) {
          if (warning.empty()) continue;
          report.warnings.push_back(warning);
          terminal.warn("warning: " + warning);
        }
      }
    }
    reset_duty.finish(session, session.state() == SessionState::done && !control.source_unsure(), signals);
    for (const auto& thread : threads) thread->stop();
    network.stop();

    if (!destination->warning().empty()) report.warnings.push_back(destination->warning());
    report.timeline.done_s = now_s();
    if (destination->last_sent_ns() > 0)
      report.timeline.handed_on_s = static_cast<double>(destination->last_sent_ns() - start_ns) * 1e-9;
    report_session(session, control, guest.table(), start_ns, workers.cpus(placement), report);
    guest.report(report);
    if (colo != nullptr) report.colo = counters_of(*colo);
    report_threads(threads, placement, report);
    network.report(report);
    if (tls != nullptr) tls->report(report);
    report.cpu_s = cpu_seconds();
    if (report.outcome == "complete" || report.outcome == "unsure") {
      exit_status = report.outcome == "complete" ? 0 : 3;
      keep_blocks(options, guest, report);
    }
  } catch (const std::exception& problem) {
    terminal.warn(problem.what());
    report.error = make_error(ErrorClass::io, 0, "host", "%s", problem.what());
  }
  manager.stopping(report.error ? report.error.message() : report.outcome);
  exit_status = tell_outcome(options, report, terminal, exit_status);
  // No parent sees to those who could not be told.
  if (!live_connections.empty() && !lifeline.held())
    terminal.warn(leave_behind(options, live_connections.all().connections, false));
  return exit_status;
}

int supervised(const ReceiveOptions& options) {
  Supervision supervision;
  supervision.receive = [&](const Lifeline& lifeline) { return receive(options, lifeline); };
  supervision.leave = [&](const Supervision::Legacy& legacy) {
    std::vector<LostConnection> lost;
    for (const std::string& text : legacy.connections)
      if (const auto connection = lost_connection_from(text)) lost.push_back(*connection);
    return leave_behind(options, std::move(lost), legacy.killed);
  };
  if (options.ready_fd > STDERR_FILENO) supervision.of_child = {options.ready_fd};
  return supervise(supervision);
}

}  // namespace

void add_receive_command(CLI::App& app, int& exit_status) {
  auto options = std::make_shared<ReceiveOptions>();
  CLI::App* const command = app.add_subcommand("receive", "receive one live migration");
  add_receive_options(*command, *options);
  command->callback([options, &exit_status] {
    exit_status = options->supervise ? supervised(*options) : receive(*options, Lifeline{});
  });
}

}  // namespace migrx
