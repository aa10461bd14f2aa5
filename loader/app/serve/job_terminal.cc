#include "loader/app/serve/job_terminal.h"

#include <utility>

namespace migrx {
namespace {

constexpr double kProgress_s = 0.2;

}  // namespace

bool JobTerminal::due(double now_s) const noexcept {
  const std::lock_guard lock(mutex_);
  return now_s - last_s_ >= kProgress_s;
}

void JobTerminal::progress(const std::string& line, double now_s) {
  const std::lock_guard lock(mutex_);
  progress_ = line;
  last_s_ = now_s;
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
