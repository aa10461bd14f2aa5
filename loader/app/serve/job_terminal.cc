#include "loader/app/serve/job_terminal.h"

#include <utility>

namespace migrx {
namespace {

constexpr uint64_t kProgressNs = 200'000'000;

}  // namespace

bool JobTerminal::due() const noexcept {
  const std::lock_guard lock(mutex_);
  return last_ns_ == 0 || now_ns_() - last_ns_ >= kProgressNs;
}

void JobTerminal::progress(const std::string& line) {
  const std::lock_guard lock(mutex_);
  progress_ = line;
  last_ns_ = now_ns_();
}

std::string JobTerminal::last_progress() const {
  const std::lock_guard lock(mutex_);
  return progress_;
}

void JobTerminal::keep(Line line) {
  const std::lock_guard lock(mutex_);
  if (lines_.size() == kLinesMax) lines_.pop_front();
  lines_.push_back(std::move(line));
}

std::vector<JobTerminal::Line> JobTerminal::take_lines() {
  const std::lock_guard lock(mutex_);
  std::vector<Line> lines(lines_.begin(), lines_.end());
  lines_.clear();
  return lines;
}

}  // namespace migrx
