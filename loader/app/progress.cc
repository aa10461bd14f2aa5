#include "loader/app/progress.h"

#include <fmt/format.h>

#include <algorithm>

namespace migrx {

// From the mean over the pass so far: on a steady source that is right early, and a pause does not throw it.
void Progress::estimate(const ProgressSample& s) {
  if (share_ <= 0 || share_ >= 1) {
    left_s_ = -1;
    return;
  }
  if (first_page_s_ < 0) {
    first_page_s_ = s.now_s;
    first_share_ = share_;
  }
  // Before a tenth of the pass a guess would be one.
  constexpr double kShareLeast = 0.1;
  const double passed_s = s.now_s - first_page_s_;
  if (share_ < first_share_ + kShareLeast || passed_s <= 0) return;
  const double fresh_s = (1 - share_) * passed_s / (share_ - first_share_);
  left_s_ = left_s_ < 0 ? fresh_s : std::min(left_s_, fresh_s);
}

const Progress::Look& Progress::look_back(const ProgressSample& s) {
  constexpr double kIntervalS = 1;
  constexpr std::size_t kLooksMax = 64;  // more often than that is no rhythm of ours
  last_bytes_ = std::max(last_bytes_, s.wire_bytes);
  while (looks_.size() > 1 && looks_[1].now_s <= s.now_s - kIntervalS) looks_.pop_front();
  if (looks_.empty() || s.now_s > looks_.back().now_s) {
    if (looks_.size() == kLooksMax) looks_.pop_back();
    looks_.push_back({s.now_s, last_bytes_, s.poll_busy_s, s.poll_idle_s});
  }
  return looks_.front();
}

std::string Progress::line(const ProgressSample& s, unsigned width) {
  const Look& before = look_back(s);
  if (s.ram_pages > 0)
    share_ =
        std::clamp(static_cast<double>(s.first_pass_pages) / static_cast<double>(s.ram_pages), share_, 1.0);

  estimate(s);

  std::string text = fmt::format("{:7.1f}s {:<10}", s.now_s, s.phase);
  if (s.channels_expected > 0) text += fmt::format(" ch {}/{}", s.channels, s.channels_expected);
  const double passed_s = s.now_s - before.now_s;
  if (s.wire_bytes > 0) {
    const double rate = passed_s > 0 ? static_cast<double>(last_bytes_ - before.wire_bytes) / passed_s : 0;
    text += fmt::format("  {:.2f} GiB at {:.2f} GiB/s  round {}  {} pages  {} zero",
                        static_cast<double>(last_bytes_) / (1U << 30), rate / (1U << 30), s.rounds, s.pages,
                        s.zero_pages);
  }
  if (s.ram_pages > 0 && share_ < 1) {
    const double left = (1 - share_) * static_cast<double>(s.ram_pages) * 4096;
    text +=
        fmt::format("  {:.0f}% of the first pass, {:.2f} GiB of RAM left", share_ * 100, left / (1U << 30));
    if (left_s_ >= 0) text += fmt::format(", {:.0f} s of it", left_s_);
  }
  const double busy_s = s.poll_busy_s - before.busy_s;
  const double idle_s = s.poll_idle_s - before.idle_s;
  if (busy_s >= 0 && idle_s >= 0 && busy_s + idle_s > 0)
    text += fmt::format("  {}, {:.0f} % useful", s.spins ? "polling" : "poll cores",
                        100 * busy_s / (busy_s + idle_s));
  if (width == 0) return text;
  if (text.size() >= width) text.resize(width - 1);
  return text;
}

}  // namespace migrx
