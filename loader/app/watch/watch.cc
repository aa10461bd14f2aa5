#include "loader/app/watch/watch.h"

#include <limits>

namespace migrx {
namespace {

constexpr double kIntervalS = 1;
// With the guest standing still, a look waits until there was no work for so long: the destination loads its
// devices then, or nobody sends.
constexpr double kQuietS = 0.02;
constexpr double kForEver = std::numeric_limits<double>::infinity();
constexpr double kDaemonsPatienceS = 3;

}  // namespace

Watch::Watch(const std::optional<std::string>& address, const std::vector<CpuId>& taken, const Report& head) {
  head_.version = head.version;
  head_.command = head.command;
  head_.started_unix_s = head.started_unix_s;
  if (address) server_ = serve_metrics(*address, taken, warning_);
}

bool Watch::due(double now_s, bool guest_stands_still, uint32_t work, double patience_s) noexcept {
  if (work > 0) worked_s_ = now_s;
  if ((server_ == nullptr && !also_) || now_s < next_s_) return false;
  if (guest_stands_still && now_s - worked_s_ < kQuietS && now_s - next_s_ < patience_s) return false;
  next_s_ = now_s + kIntervalS;
  return true;
}

void Watch::look(double now_s, SessionState state, uint32_t work,
                 const std::function<ProgressSample(Report&)>& sample) {
  const bool standing_still = state == SessionState::switchover || state == SessionState::device_state;
  if (!due(now_s, standing_still, work, kForEver)) return;
  Report report = head_;
  const ProgressSample progress = sample(report);
  publish(report, progress);
}

void Watch::look(double now_s, bool guest_stands_still, uint32_t work,
                 const std::function<DaemonLook(Report)>& sample) {
  if (!due(now_s, guest_stands_still, work, kDaemonsPatienceS)) return;
  server_->publish(metrics_of(sample(head_), last_));
}

void Watch::publish(const Report& report, const ProgressSample& progress) {
  if (also_) also_(report, progress);
  if (server_ != nullptr) server_->publish(metrics_of(report, progress, last_));
}

}  // namespace migrx
