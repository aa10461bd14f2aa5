#include "loader/app/watch/watch.h"

#include "loader/app/setup_error.h"

namespace migrx {
namespace {

constexpr double kIntervalS = 1;

}  // namespace

Watch::Watch(const std::optional<std::string>& address, const Placement& placement) {
  if (!address) return;
  std::string listening;
  bool loopback = false;
  if (const std::string problem = parse_metrics_address(*address, listening, loopback); !problem.empty())
    throw SetupError(problem);
  if (!loopback)
    warning_ =
        "--metrics " + *address + " answers everybody who reaches it, without encryption: 127.0.0.1 is safer";
  std::vector<CpuId> taken;
  for (const ThreadPlan& thread : placement.threads) taken.push_back(thread.cpu);
  try {
    server_ = std::make_unique<MetricsServer>(listening, taken);
  } catch (const std::exception& problem) {
    throw SetupError(problem.what());
  }
}

void Watch::publish(const Report& report, const ProgressSample& progress) {
  next_s_ = progress.now_s + kIntervalS;
  if (server_ != nullptr) server_->publish(metrics_of(report, progress, last_));
}

}  // namespace migrx
