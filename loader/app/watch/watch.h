// Gives those who watch a receiver what there is to see, once a second.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "loader/app/watch/metrics_server.h"
#include "numa/placement.h"

namespace migrx {

// Control thread only.
class Watch {
 public:
  // `address`: of --metrics; nothing: nobody watches. Throws SetupError when the address cannot be had.
  Watch(const std::optional<std::string>& address, const Placement& placement);

  // Something for the operator to know, or "".
  [[nodiscard]] const std::string& warning() const noexcept { return warning_; }
  [[nodiscard]] bool due(double now_s) const noexcept { return server_ != nullptr && now_s >= next_s_; }
  void publish(const Report& report, const ProgressSample& progress);

 private:
  std::unique_ptr<MetricsServer> server_;
  std::string warning_;
  double next_s_ = 0;
  CoreTimes last_;
};

}  // namespace migrx
