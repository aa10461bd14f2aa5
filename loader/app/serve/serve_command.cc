#include "loader/app/serve/serve_command.h"

#include <fmt/format.h>
#include <grp.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "loader/app/handoff_tls.h"
#include "loader/app/host.h"
#include "loader/app/live_connections.h"
#include "loader/app/reset_duty.h"
#include "loader/app/runtime_folder.h"
#include "loader/app/serve/daemon.h"
#include "loader/app/serve/discovery.h"
#include "loader/app/serve/intake.h"
#include "loader/app/serve/serve_options.h"
#include "loader/app/session_report.h"
#include "loader/app/setup_error.h"
#include "loader/app/signal_echo.h"
#include "loader/app/signals.h"
#include "loader/app/supervisor.h"
#include "loader/app/terminal.h"
#include "loader/app/tls_setup.h"
#include "loader/app/watch/service_manager.h"
#include "loader/app/watch/watch.h"
#include "loader/control/control_socket.h"
#include "loader/destination/port_range.h"
#include "numa/clock.h"
#include "numa/mapping_guard.h"

namespace migrx {
namespace {

constexpr const char* kCommand = "serve";
constexpr double kWatchEvery_s = 0.1;
constexpr uint64_t kFarewellNs = 1'000'000'000;

// The runtime folder is its owner's alone, and the socket lies in it: the group may pass, and see nothing.
void let_group_reach(const std::string& path, const std::string& name) {
  const std::string folder = path.substr(0, path.rfind('/'));
  const group* const entry = ::getgrnam(name.c_str());
  struct stat status {};
  if (folder.empty() || entry == nullptr || ::stat(folder.c_str(), &status) != 0) return;
  const bool ours_alone = status.st_uid == ::geteuid() && (status.st_mode & 0077) == 0;
  if (!ours_alone) return;
  if (::chown(folder.c_str(), static_cast<uid_t>(-1), entry->gr_gid) != 0 ||
      ::chmod(folder.c_str(), 0710) != 0)
    throw SetupError(fmt::format("--control {}: the group {} cannot be given the way to it: {}", path, name,
                                 std::strerror(errno)));
}

// One `migrx serve`: the host is set up, then jobs come and go until it is told to end.
class ServeRun {
 public:
  ServeRun(const ServeOptions& options, const Lifeline& lifeline);
  [[nodiscard]] int run();

 private:
  void serve();
  void read_found_tls();
  void control(Daemon& daemon, Intake* intake, ControlSocket& socket, Host& host, ResetDuty& resets,
               Watch& watch);
  void on_signal(int number, Daemon& daemon);
  void look_around(Daemon& daemon, Host& host, ResetDuty& resets);
  void say_lines(Daemon& daemon);
  void say_farewell(Host& host, ResetDuty& resets);
  [[nodiscard]] double now_s() const { return static_cast<double>(monotonic_ns() - start_ns_) * 1e-9; }

  const ServeOptions& options_;
  const Lifeline& lifeline_;
  const uint64_t start_ns_ = monotonic_ns();
  const SignalWatch signals_;
  StandardTerminal terminal_;
  LiveConnections live_connections_;
  ServiceManager manager_;
  uint64_t drain_since_ns_ = 0;  // 0: it does not drain
  uint64_t signalled_ns_ = 0;
  bool drain_over_ = false;
};

ServeRun::ServeRun(const ServeOptions& options, const Lifeline& lifeline)
    : options_(options),
      lifeline_(lifeline),
      terminal_(options.quiet),
      live_connections_(lifeline),
      manager_(service_environment(), lifeline.held() ? ::getppid() : ::getpid()) {}

int ServeRun::run() {
  int exit_status = 2;
  terminal_.describe("MIGRX_COMMAND", kCommand);
  if (!manager_.warning().empty()) terminal_.warn("warning: " + manager_.warning());
  try {
    serve();
    exit_status = 0;
  } catch (const std::exception& problem) {
    terminal_.warn(problem.what());
  }
  manager_.stopping(exit_status == 0 ? "drained" : "not started");
  if (!live_connections_.empty() && !lifeline_.held())
    terminal_.warn(leave_behind(options_, options_.runtime_dir, live_connections_.all().connections, false));
  return exit_status;
}

void ServeRun::serve() {
  if (const std::string problem = check_serve_options(options_); !problem.empty()) throw SetupError(problem);
  const Placement placement = place_here(options_, options_.ports, {}, options_.mtu);
  for (const std::string& warning : placement.warnings) terminal_.warn("warning: " + warning);

  MappingGuard guard;  // before any thread
  read_found_tls();
  Report head;
  head.version = MIGRX_VERSION;
  head.command = kCommand;
  head.started_unix_s = unix_time_s() - now_s();
  Watch watch(options_.metrics, cpus_of(placement), head);
  if (!watch.warning().empty()) terminal_.warn("warning: " + watch.warning());
  manager_.status("sets the ports up and waits for their links", now_s());
  inherit_from_predecessors(options_, options_.runtime_dir, live_connections_, terminal_);
  const uint32_t connections = connections_of(options_);
  std::optional<SignalEcho> echo(std::in_place, signals_, terminal_);
  Host host(options_, placement, connections, connections * placement.poll_agents,
            usable_runtime_folder(options_.runtime_dir));
  echo.reset();
  if (signals_.pending()) throw SetupError(kInterrupted);
  for (const std::string& warning : host.network().warnings()) terminal_.warn("warning: " + warning);
  host.open(options_.probe && live_connections_.inherited().connections.empty());

  Arrivals arrivals(host.network(), live_connections_);
  // As long as the process that stays after a `migrx receive` would. 0: not at all there, a moment here.
  ResetDuty resets(host.network(), live_connections_,
                   static_cast<uint64_t>(std::max(options_.linger_s, 1.0) * 1e9));
  const ClientFiles client_files(options_.client_folders);
  ControlSocket* socket_of_events = nullptr;
  Daemon daemon(options_, {host, live_connections_, arrivals, resets, lifeline_, client_files, guard,
                           [&](const char* event, const nlohmann::json& data) {
                             if (socket_of_events != nullptr) socket_of_events->event(event, data);
                           }});
  const Host::Running running = host.run(signals_, terminal_);
  lifeline_.listening();
  resets.start();

  if (!options_.group.empty()) let_group_reach(options_.control, options_.group);
  ControlSocket socket({.path = options_.control, .group = options_.group, .version = MIGRX_VERSION}, daemon);
  socket_of_events = &socket;
  terminal_.say(fmt::format("ready: {} takes in up to {} migrations; control socket {}",
                            host.network().first_address(), options_.sessions_max, options_.control));
  manager_.ready(now_s());
  std::optional<Discovery> discovery;
  std::optional<Intake> intake;
  if (!options_.serve_ports.empty()) {
    PortRange range;
    (void)parse_port_range(options_.serve_ports, range);
    std::vector<uid_t> users;
    (void)user_ids(options_.serve_users, users);
    discovery.emplace(range, std::move(users), host.network().awaited_ports());
    intake.emplace(*discovery, daemon, terminal_, options_.found_tls);
  }
  control(daemon, intake ? &*intake : nullptr, socket, host, resets, watch);
  socket_of_events = nullptr;
  say_farewell(host, resets);
}

// Each migration reads its own; what cannot be used is told before the first one comes.
void ServeRun::read_found_tls() {
  const FoundTlsOptions& tls = options_.found_tls;
  Report found;
  if (tls.creds) (void)TlsSetup(*tls.creds, tls.authz, 1, 1.0, found);
  (void)HandoffTls(tls.job_options(), tls.creds.has_value(), found);
  for (const std::string& warning : found.warnings) terminal_.warn("warning: " + warning);
}

void ServeRun::control(Daemon& daemon, Intake* intake, ControlSocket& socket, Host& host, ResetDuty& resets,
                       Watch& watch) {
  double looked_s = now_s();
  while (!daemon.draining() || daemon.under_way() > 0) {
    if (intake != nullptr) intake->look(monotonic_ns());
    uint32_t work = daemon.do_work(monotonic_ns());
    work += socket.do_work();
    on_signal(signals_.wait(work > 0 ? 0 : daemon.pause_us(), socket.wake_fd()), daemon);
    watch.look(now_s(), daemon.guest_stands_still(), work, [&](Report report) {
      report.cpu_s = cpu_seconds();
      host.report(report);
      return DaemonLook{std::move(report), daemon.numbers(), daemon.looks()};
    });
    if (now_s() - looked_s < kWatchEvery_s) continue;
    looked_s = now_s();
    look_around(daemon, host, resets);
  }
  say_lines(daemon);
  // Who asked may want to know how it ended.
  for (int turn = 0; turn < 20 && socket.do_work() > 0; ++turn) {
  }
}

void ServeRun::on_signal(int number, Daemon& daemon) {
  const uint64_t now_ns = monotonic_ns();
  if (daemon.draining() && drain_since_ns_ == 0) drain_since_ns_ = now_ns;
  if (drain_since_ns_ != 0 && options_.drain_timeout_s > 0 && !drain_over_ &&
      now_ns - drain_since_ns_ >= static_cast<uint64_t>(options_.drain_timeout_s * 1e9)) {
    drain_over_ = true;
    terminal_.warn("--drain-timeout is over: migrations whose guest still runs at its source are ended");
    daemon.signal_all(now_ns);
  }
  if (number == 0) return;
  if (number == SIGHUP) {
    terminal_.say("SIGHUP: TLS credentials are read again by themselves; other options need a restart");
    return;
  }
  if (number == SIGUSR1) return;
  if (signalled_ns_ != 0 && now_ns - signalled_ns_ < SignalPolicy::kOneNs) return;
  signalled_ns_ = now_ns;
  if (!daemon.draining()) {
    daemon.drain();
    drain_since_ns_ = now_ns;
    terminal_.warn(
        fmt::format("draining: {} migrations are under way, and no new one is taken in; a second "
                    "signal ends those whose guest still runs at its source",
                    daemon.under_way()));
    return;
  }
  daemon.signal_all(now_ns);
}

void ServeRun::look_around(Daemon& daemon, Host& host, ResetDuty& resets) {
  say_lines(daemon);
  resets.look();
  if (manager_.present()) {
    manager_.status(
        fmt::format("{} migrations under way{}", daemon.under_way(), daemon.draining() ? ", draining" : ""),
        now_s());
    manager_.look(now_s(), host.turns());
  }
  for (const std::string& line : host.network().look_at_links(now_s())) terminal_.say(line);
  for (const std::string& warning : {host.network().take_conflict(), host.network().look_at_traffic(now_s())})
    if (!warning.empty()) terminal_.warn("warning: " + warning);
}

void ServeRun::say_lines(Daemon& daemon) {
  for (const JobTerminal::Line& line : daemon.take_lines()) {
    if (line.warning)
      terminal_.warn(line.text, line.fields);
    else
      terminal_.say(line.text, line.fields);
  }
}

// FINs and resets are to reach everybody before the poll cores stop.
void ServeRun::say_farewell(Host& host, ResetDuty& resets) {
  const uint64_t until_ns = monotonic_ns() + kFarewellNs;
  while ((host.network().connections() > 0 || resets.waiting() > 0) && monotonic_ns() < until_ns)
    (void)signals_.wait(1000);
  resets.look();
}

int supervised(const ServeOptions& options) {
  Supervision supervision;
  supervision.receive = [&](const Lifeline& lifeline) { return ServeRun(options, lifeline).run(); };
  supervision.leave = [&](const Supervision::Legacy& legacy) {
    return leave_behind(options, options.runtime_dir, legacy);
  };
  return supervise(supervision);
}

}  // namespace

void add_serve_command(CLI::App& app, int& exit_status) {
  auto options = std::make_shared<ServeOptions>();
  CLI::App* const command =
      app.add_subcommand("serve", "a daemon that owns the ports and receives many migrations at once");
  add_serve_options(*command, *options);
  command->callback([options, &exit_status] {
    const Lifeline none;
    exit_status = options->supervise ? supervised(*options) : ServeRun(*options, none).run();
  });
}

}  // namespace migrx
