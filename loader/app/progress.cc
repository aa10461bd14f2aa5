#include "loader/app/progress.h"

#include <fmt/format.h>

#include <algorithm>

namespace migrx {

std::string Progress::line(const ProgressSample& s, unsigned width) {
  if (started_ && s.now_s > last_s_) {
    const double rate =
        static_cast<double>(s.wire_bytes - std::min(s.wire_bytes, last_bytes_)) / (s.now_s - last_s_);
    rate_ = rate_ == 0 ? rate : 0.6 * rate_ + 0.4 * rate;
  }
  started_ = true;
  last_s_ = s.now_s;
  last_bytes_ = std::max(last_bytes_, s.wire_bytes);
  if (s.ram_pages > 0)
    share_ =
        std::clamp(static_cast<double>(s.first_pass_pages) / static_cast<double>(s.ram_pages), share_, 1.0);

  std::string text = fmt::format("{:7.1f}s {:<10}", s.now_s, s.phase);
  if (s.channels_expected > 0) text += fmt::format(" ch {}/{}", s.channels, s.channels_expected);
  if (s.wire_bytes > 0)
    text += fmt::format("  {:.2f} GiB at {:.2f} GiB/s  round {}  {} pages  {} zero",
                        static_cast<double>(last_bytes_) / (1U << 30), rate_ / (1U << 30), s.rounds, s.pages,
                        s.zero_pages);
  if (s.ram_pages > 0 && share_ < 1) {
    const double left = (1 - share_) * static_cast<double>(s.ram_pages) * 4096;
    text +=
        fmt::format("  {:.0f}% of the first pass, {:.2f} GiB of RAM left", share_ * 100, left / (1U << 30));
  }
  if (width == 0) return text;
  if (text.size() >= width) text.resize(width - 1);
  return text;
}

}  // namespace migrx
