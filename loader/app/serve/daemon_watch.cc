#include "loader/app/serve/daemon_watch.h"

#include <exception>
#include <utility>
#include <vector>

#include "loader/app/session_report.h"
#include "loader/app/setup_error.h"

namespace migrx {
namespace {

constexpr double kInterval_s = 1;
constexpr double kQuiet_s = 0.02;
constexpr double kPatience_s = 3;

}  // namespace

DaemonWatch::DaemonWatch(const std::optional<std::string>& address, const Placement& placement)
    : started_unix_s_(unix_time_s()) {
  if (!address) return;
  std::vector<CpuId> taken;
  for (const ThreadPlan& thread : placement.threads) taken.push_back(thread.cpu);
  try {
    server_ = serve_metrics(*address, taken, warning_);
  } catch (const std::exception& problem) {
    throw SetupError(problem.what());
  }
}

void DaemonWatch::look(double now_s, uint32_t work, const Daemon& daemon, const Host& host) {
  if (work > 0) worked_s_ = now_s;
  if (server_ == nullptr || now_s < next_s_) return;
  const bool busy = now_s - worked_s_ < kQuiet_s;
  if (busy && now_s - next_s_ < kPatience_s && daemon.guest_stands_still()) return;
  next_s_ = now_s + kInterval_s;
  DaemonLook look;
  look.host.version = MIGRX_VERSION;
  look.host.command = "serve";
  look.host.started_unix_s = started_unix_s_;
  look.host.cpu_s = cpu_seconds();
  host.report(look.host);
  look.numbers = daemon.numbers();
  look.sessions = daemon.looks();
  server_->publish(metrics_of(look, last_));
}

}  // namespace migrx
