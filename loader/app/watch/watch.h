// Once a second, publishes the state of a receiver, or of a daemon, to its watchers.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "loader/app/watch/metrics_server.h"
#include "loader/session/session.h"

namespace migrx {

// Control thread only.
class Watch {
 public:
  // `address`: of --metrics; nothing: no metrics. `taken`: the CPUs that poll and load. `head`: what the
  // report has already. Throws SetupError when the address cannot be had.
  Watch(const std::optional<std::string>& address, const std::vector<CpuId>& taken, const Report& head);

  // Something for the operator to know, or "".
  [[nodiscard]] const std::string& warning() const noexcept { return warning_; }
  // Somebody else who is shown each look.
  void also(std::function<void(const Report&, const ProgressSample&)> tell) { also_ = std::move(tell); }
  // That the process is there, until the first look.
  void announce() { publish(head_, {}); }
  // Takes a look when one is due: `sample` fills a report and a progress sample as they stand now. Not while
  // the guest stands still and this thread has something to do (`work`): the look would be downtime.
  void look(double now_s, SessionState state, uint32_t work,
            const std::function<ProgressSample(Report&)>& sample);
  // The same of a daemon, whose `sample` gets a report of the host to begin with. With many migrations some
  // guest often stands still, so a look waits for that, but not for ever.
  void look(double now_s, bool guest_stands_still, uint32_t work,
            const std::function<DaemonLook(Report)>& sample);

 private:
  [[nodiscard]] bool due(double now_s, bool guest_stands_still, uint32_t work, double patience_s) noexcept;
  void publish(const Report& report, const ProgressSample& progress);

  std::unique_ptr<MetricsServer> server_;
  std::function<void(const Report&, const ProgressSample&)> also_;
  std::string warning_;
  Report head_;
  double next_s_ = 0;
  double worked_s_ = 0;  // when there was work last
  CoreTimes last_;
};

}  // namespace migrx
