// What a job of a daemon tells: kept for whoever asks about the session, and said by the daemon with the
// session's name before it.
#pragma once

#include <deque>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "loader/app/terminal.h"
#include "numa/clock.h"

namespace migrx {

// Any thread.
class JobTerminal final : public Terminal {
 public:
  // now_ns: its clock; a test has one of its own.
  explicit JobTerminal(uint64_t (*now_ns)() = monotonic_ns) : now_ns_(now_ns) {}

  [[nodiscard]] bool due() const noexcept override;
  [[nodiscard]] unsigned width() const noexcept override { return 0; }
  void progress(const std::string& line) override;
  void say(const std::string& text) override { keep({.text = text, .warning = false}); }
  void warn(const std::string& text) override { keep({.text = text, .warning = true}); }

  [[nodiscard]] std::string last_progress() const;
  struct Line {
    std::string text;
    bool warning = false;
    JournalFields fields = {};
  };
  // The last word.
  void conclude(Line line) { keep(std::move(line)); }
  // The lines since the last call, the oldest first.
  [[nodiscard]] std::vector<Line> take_lines();

 private:
  static constexpr std::size_t kLinesMax = 64;  // of those not taken; the oldest go
  void keep(Line line);

  uint64_t (*const now_ns_)();
  mutable std::mutex mutex_;  // guards what follows
  std::string progress_;
  uint64_t last_ns_ = 0;  // 0: no progress yet
  std::deque<Line> lines_;
};

}  // namespace migrx
