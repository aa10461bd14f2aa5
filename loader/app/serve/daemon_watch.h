// Once a second, publishes the state of a daemon to those who scrape its metrics.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "loader/app/host.h"
#include "loader/app/serve/daemon.h"
#include "loader/app/watch/metrics_server.h"

namespace migrx {

// Control thread only.
class DaemonWatch {
 public:
  // `address`: of --metrics; nothing: no metrics, and look() does nothing. The placement's CPUs are left to
  // those that poll and load. Throws SetupError when the address cannot be had.
  DaemonWatch(const std::optional<std::string>& address, const Placement& placement);

  // Something for the operator to know, or "".
  [[nodiscard]] const std::string& warning() const noexcept { return warning_; }
  // Takes a look when one is due. work: what the control thread found to do in this turn. While a guest
  // stands still the look waits for a quiet moment, but not for ever: with many migrations one of them often
  // does.
  void look(double now_s, uint32_t work, const Daemon& daemon, const Host& host);

 private:
  std::unique_ptr<MetricsServer> server_;
  std::string warning_;
  double started_unix_s_;
  double next_s_ = 0;
  double worked_s_ = 0;  // when there was work last
  CoreTimes last_;
};

}  // namespace migrx
