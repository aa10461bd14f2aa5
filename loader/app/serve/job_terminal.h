// What a job of a daemon tells: kept for whoever asks about the session, and said by the daemon with the
// session's name before it.
#pragma once

#include <deque>
#include <mutex>
#include <string>
#include <vector>

#include "loader/app/terminal.h"

namespace migrx {

// Any thread.
class JobTerminal final : public Terminal {
 public:
  [[nodiscard]] bool due(double now_s) const noexcept override;
  [[nodiscard]] unsigned width() const noexcept override { return 0; }
  void progress(const std::string& line, double now_s) override;
  void say(const std::string& text) override { keep({text, false}); }
  void warn(const std::string& text) override { keep({text, true}); }

  [[nodiscard]] std::string last_progress() const;
  struct Line {
    std::string text;
    bool warning = false;
  };
  // The lines since the last call, the oldest first.
  [[nodiscard]] std::vector<Line> take_lines();

 private:
  static constexpr std::size_t kLinesMax = 64;  // of those not taken; the oldest go
  void keep(Line line);

  mutable std::mutex mutex_;  // guards what follows
  std::string progress_;
  double last_s_ = -1e9;
  std::deque<Line> lines_;
};

}  // namespace migrx
