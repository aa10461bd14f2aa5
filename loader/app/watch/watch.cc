#include "loader/app/watch/watch.h"

#include "loader/app/setup_error.h"

namespace migrx {
namespace {

constexpr double kIntervalS = 1;
// With the guest standing still, a look waits until there was no work for so long: the destination loads its
// devices then, or nobody sends.
constexpr double kQuietS = 0.02;

}  // namespace

Watch::Watch(const std::optional<std::string>& address, const std::vector<CpuId>& taken, const Report& head) {
  head_.version = head.version;
  head_.command = head.command;
  head_.started_unix_s = head.started_unix_s;
  if (!address) return;
  try {
    server_ = serve_metrics(*address, taken, warning_);
  } catch (const std::exception& problem) {
    throw SetupError(problem.what());
  }
  publish(head_, {});
}

void Watch::look(double now_s, SessionState state, uint32_t work,
                 const std::function<ProgressSample(Report&)>& sample) {
  if (work > 0) worked_s_ = now_s;
  if ((server_ == nullptr && !also_) || now_s < next_s_) return;
  const bool standing_still = state == SessionState::switchover || state == SessionState::device_state;
  if (standing_still && now_s - worked_s_ < kQuietS) return;
  next_s_ = now_s + kIntervalS;
  Report report = head_;
  const ProgressSample progress = sample(report);
  publish(report, progress);
}

void Watch::publish(const Report& report, const ProgressSample& progress) {
  if (also_) also_(report, progress);
  if (server_ != nullptr) server_->publish(metrics_of(report, progress, last_));
}

}  // namespace migrx
