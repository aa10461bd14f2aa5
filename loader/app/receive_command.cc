#include "loader/app/receive_command.h"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <cstdio>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "dataplane/dpdk/telemetry.h"
#include "loader/app/control_pace.h"
#include "loader/app/core_options.h"
#include "loader/app/destinations.h"
#include "loader/app/forwards.h"
#include "loader/app/guest_blocks.h"
#include "loader/app/handoff_tls.h"
#include "loader/app/host.h"
#include "loader/app/inherited_descriptors.h"
#include "loader/app/live_connections.h"
#include "loader/app/progress.h"
#include "loader/app/receive_options.h"
#include "loader/app/receive_via.h"
#include "loader/app/reception.h"
#include "loader/app/report.h"
#include "loader/app/reset_duty.h"
#include "loader/app/runtime_folder.h"
#include "loader/app/session_signals.h"
#include "loader/app/setup_error.h"
#include "loader/app/signal_echo.h"
#include "loader/app/signals.h"
#include "loader/app/supervisor.h"
#include "loader/app/terminal.h"
#include "loader/app/tls_setup.h"
#include "loader/app/watch/service_manager.h"
#include "loader/app/watch/telemetry_pages.h"
#include "loader/app/watch/watch.h"
#include "numa/clock.h"

namespace migrx {
namespace {

constexpr const char* kVersion = MIGRX_VERSION;
constexpr double kLookAround_s = 0.1;

// One `migrx receive`: the phases of its job in their order, then the control thread's work until the session
// is over. Every object that lives as long as a phase is made in it, so that it ends with what needs it.
class ReceiveRun {
 public:
  ReceiveRun(const ReceiveOptions& options, const Lifeline& lifeline);
  // Returns the exit status: where the guest is.
  [[nodiscard]] int run();

 private:
  void receive();
  void take_memory(GuestBlocks& guest, const Placement& placement);
  void control(Reception& reception, Host& host, Forwards& forwards, ResetDuty& reset_duty, Watch& watch);
  void look_around(Reception& reception, Host& host, ResetDuty& reset_duty);
  void warn(const std::string& warning);
  // What ended the run other than a verdict; after that the guest is where it is.
  void fail(const std::string& problem);
  [[nodiscard]] double now_s() const { return static_cast<double>(monotonic_ns() - start_ns_) * 1e-9; }

  const ReceiveOptions& options_;
  const Lifeline& lifeline_;
  const uint64_t start_ns_ = monotonic_ns();
  const SignalWatch signals_;
  StandardTerminal terminal_;
  Report report_;
  int exit_status_ = 2;  // nothing has begun
  LiveConnections live_connections_;
  ServiceManager manager_;
  Progress progress_;
};

ReceiveRun::ReceiveRun(const ReceiveOptions& options, const Lifeline& lifeline)
    : options_(options),
      lifeline_(lifeline),
      terminal_(options.quiet),
      live_connections_(lifeline),
      manager_(service_environment(), lifeline.held() ? ::getppid() : ::getpid()) {
  report_.started_unix_s = unix_time_s() - now_s();
  report_.command = "receive";
  report_.version = kVersion;
  report_.outcome = "failed";
}

int ReceiveRun::run() {
  terminal_.describe("MIGRX_COMMAND", report_.command);
  terminal_.describe("MIGRX_LISTEN", std::to_string(options_.listen));
  if (!manager_.warning().empty()) terminal_.warn("warning: " + manager_.warning());
  try {
    receive();
  } catch (const std::exception& problem) {
    fail(problem.what());
  }
  manager_.stopping(report_.error ? report_.error.message() : report_.outcome);
  terminal_.describe("MIGRX_OUTCOME", report_.outcome);
  terminal_.describe("MIGRX_EXIT_STATUS", std::to_string(exit_status_));
  exit_status_ = tell_outcome(options_, report_, terminal_, exit_status_);
  // No parent sees to those who could not be told.
  if (!live_connections_.empty() && !lifeline_.held())
    terminal_.warn(leave_behind(options_, options_.runtime_dir, live_connections_.all().connections, false));
  return exit_status_;
}

void ReceiveRun::fail(const std::string& problem) {
  if (exit_status_ == 0 || exit_status_ == 3) {
    report_.outcome = exit_status_ == 0 ? "complete" : "unsure";
    return warn("the report of this migration is not whole: " + problem);
  }
  terminal_.warn(problem);
  report_.error = make_error(ErrorClass::io, 0, "host", "%s", problem.c_str());
}

void ReceiveRun::receive() {
  // ---- Options are checked, and what they need of this host
  if (const std::string problem = check_receive_options(options_); !problem.empty())
    throw SetupError(problem);
  ForwardPlan forward_plan;
  static_cast<void>(plan_forwards(options_, options_, options_, forward_plan));  // has been checked
  const std::vector<RamSpec> ram = prepare_job(options_);
  const Placement placement = place_here(options_, options_.ports, ram, options_.mtu);
  const SessionSettings settings = session_settings(options_, placement.poll_agents);
  report_.placement = placement.reasons;
  report_.warnings = placement.warnings;
  Watch watch(options_.metrics, cpus_of(placement), report_);
  watch.announce();
  if (!watch.warning().empty()) report_.warnings.push_back(watch.warning());
  std::unique_ptr<TlsSetup> tls;
  if (options_.tls_creds)
    tls = std::make_unique<TlsSetup>(*options_.tls_creds, options_.tls_authz, settings.connections_max,
                                     options_.identify_timeout_s, report_);
  HandoffTls handoff_tls(options_, options_.tls_creds.has_value(), report_);

  // ---- The destination is inspected, the guest's memory is claimed and taken
  std::map<std::string, uint64_t> addresses =
      inspect_by_qmp(options_, ram, handoff_tls.security() != nullptr, report_, terminal_, signals_);
  GuestBlocks guest(ram, options_.private_ram_max, options_.handoff.has_value(), lifeline_, signals_);
  take_memory(guest, placement);

  // ---- Ports
  manager_.status("sets the ports up and waits for their links", now_s());
  inherit_from_predecessors(options_, options_.runtime_dir, live_connections_, terminal_);
  std::optional<SignalEcho> echo(std::in_place, signals_, terminal_);
  Host host(options_, placement, places_for(options_.multifd_channels) + forward_plan.places(),
            settings.connections_max, usable_runtime_folder(options_.runtime_dir));
  echo.reset();
  if (signals_.pending()) throw SetupError(kInterrupted);
  for (const std::string& warning : host.network().warnings()) report_.warnings.push_back(warning);
  std::optional<Telemetry> telemetry;
  if (options_.telemetry) {
    telemetry.emplace(telemetry_commands());
    watch.also([&telemetry](const Report& live, const ProgressSample& progress) {
      telemetry->publish(telemetry_pages(live, progress));
    });
  }
  // What a predecessor answered for until now is ours already.
  host.open(options_.probe && live_connections_.inherited().connections.empty());

  // ---- The destination is armed, and everything runs
  arm_by_qmp(options_, source_capabilities(options_.capabilities), guest, report_, terminal_, signals_);
  for (const std::string& warning : report_.warnings) terminal_.warn("warning: " + warning);
  Arrivals arrivals(host.network(), live_connections_);
  Reception reception(options_, settings, std::move(addresses),
                      {host, guest, tls.get(), handoff_tls, live_connections_, arrivals,
                       host.workers().compress(), start_ns_});
  ResetDuty reset_duty(host.network(), live_connections_, kNever);
  const Host::Running running = host.run(signals_, terminal_);
  Forwards forwards(
      options_, forward_plan,
      {host, arrivals, live_connections_, terminal_, [this](const std::string& warning) { warn(warning); }});
  lifeline_.listening();
  reset_duty.start();

  // ---- Ready
  report_.timeline.ready_s = now_s();
  tell_ready(fmt::format("ready: listening on {} port {}", options_.addresses.front(), options_.listen),
             options_.ready_fd, terminal_);
  manager_.ready(now_s());
  exit_status_ = 1;
  control(reception, host, forwards, reset_duty, watch);
  const bool done = reception.session().state() == SessionState::done;
  // Nothing that comes now changes where the guest is.
  exit_status_ = reception.exit_status();
  const bool completed = exit_status_ == 0;
  if (done) guest.keep(options_.unlink);
  // At once: a guest that is saved with it on would leave its RAM out. Poll cores see to the FINs meanwhile.
  if (done) disarm_by_qmp(options_, report_);
  forwards.finish(completed, signals_);
  reset_duty.finish(reception.session(), completed, signals_);
  host.stop();
  report_.timeline.done_s = now_s();
  reception.report_end(report_);
  if (done) keep_blocks(options_, guest, report_);
}

void ReceiveRun::take_memory(GuestBlocks& guest, const Placement& placement) {
  const double since_s = now_s();
  manager_.status("takes the guest's memory", since_s);
  guest.prefault(placement, memory_settings(options_), terminal_, signals_, options_.expect_postcopy);
  report_.timeline.prefault_s = now_s() - since_s;
  if (report_.timeline.prefault_s > 0)
    report_.prefault_bytes_per_s = static_cast<double>(guest.bytes()) / report_.timeline.prefault_s;
}

void ReceiveRun::control(Reception& reception, Host& host, Forwards& forwards, ResetDuty& reset_duty,
                         Watch& watch) {
  SessionControl& control = reception.control();
  ControlPace pace;
  SignalPolicy signal_policy;
  int status_if_killed = 1;
  double looked_s = now_s();
  while (!control.over()) {
    const uint32_t work = control.do_work(monotonic_ns());
    const SessionState state = reception.session().state();
    const int signal = signals_.wait(pace.pause_us(state, work), reception.destination().wake_fd());
    act_on_signal(signal, monotonic_ns(), signal_policy, control, terminal_);
    if (reception.status_if_killed() != status_if_killed)
      lifeline_.if_killed(status_if_killed = reception.status_if_killed());
    reception.tell(terminal_, report_);
    forwards.look();
    watch.look(now_s(), reception.session().state(), work, [&](Report& live) {
      live.warnings = report_.warnings;
      live.timeline = report_.timeline;
      reception.report_now(live);
      return reception.sample(now_s());
    });
    if (terminal_.due()) terminal_.progress(progress_.line(reception.sample(now_s()), terminal_.width()));
    if (now_s() - looked_s < kLookAround_s) continue;
    looked_s = now_s();
    look_around(reception, host, reset_duty);
  }
}

void ReceiveRun::look_around(Reception& reception, Host& host, ResetDuty& reset_duty) {
  if (manager_.present()) {
    manager_.status(progress_.line(reception.sample(now_s()), 0), now_s());
    manager_.look(now_s(), host.turns());
  }
  reset_duty.look();
  for (const std::string& line : host.network().look_at_links(now_s())) terminal_.say(line);
  warn(host.network().take_conflict());
  warn(host.network().look_at_traffic(now_s()));
}

void ReceiveRun::warn(const std::string& warning) {
  if (warning.empty()) return;
  report_.warnings.push_back(warning);
  terminal_.warn("warning: " + warning);
}

int supervised(const ReceiveOptions& options) {
  Supervision supervision;
  supervision.receive = [&](const Lifeline& lifeline) { return ReceiveRun(options, lifeline).run(); };
  supervision.leave = [&](const Supervision::Legacy& legacy) {
    return leave_behind(options, options.runtime_dir, legacy);
  };
  if (options.ready_fd > STDERR_FILENO) supervision.of_child = {options.ready_fd};
  return supervise(supervision);
}

}  // namespace

void add_receive_command(CLI::App& app, int& exit_status) {
  auto options = std::make_shared<ReceiveOptions>();
  CLI::App* const command = app.add_subcommand("receive", "receive one live migration");
  add_receive_options(*command, *options);
  auto daemon = std::make_shared<std::string>();
  add_via_option(*command, *daemon);
  command->callback([options, daemon, command, &exit_status] {
    if (const std::string problem = ready_fd_problem(options->ready_fd); !problem.empty()) {
      std::fprintf(stderr, "migrx: %s\n", problem.c_str());
      exit_status = 2;
      return;
    }
    if (!daemon->empty()) {
      exit_status = receive_via(*daemon, *command, *options);
      return;
    }
    const Lifeline none;
    exit_status = options->supervise ? supervised(*options) : ReceiveRun(*options, none).run();
  });
}

}  // namespace migrx
