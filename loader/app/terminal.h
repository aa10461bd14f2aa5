// Where progress and messages go: a line that is redrawn on a terminal, plain lines elsewhere, nothing with
// --quiet. To systemd's journal (JOURNAL_STREAM) each line has its level, and progress is not for it: the
// manager's status has that (watch/service_manager.h).
#pragma once

#include <cstdint>
#include <string>

namespace migrx {

// Control thread only.
class Terminal {
 public:
  explicit Terminal(bool quiet);
  ~Terminal();
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  // Progress is due: several times a second on a terminal, every few seconds elsewhere. Never with --quiet.
  [[nodiscard]] bool due(double now_s) const noexcept;
  // Columns of the terminal; 0: not a terminal, plain lines.
  [[nodiscard]] unsigned width() const noexcept { return width_; }
  void progress(const std::string& line, double now_s);
  // A line that stays. Errors and warnings also with --quiet, and on stderr.
  // To the journal: 6 (info); 4 (warning) when the text begins with "warning:", else 3 (error).
  void say(const std::string& text);
  void warn(const std::string& text);

 private:
  void clear_line();
  const bool quiet_;
  const std::string info_;  // before each line on stdout
  const std::string warning_;
  const std::string error_;
  unsigned width_ = 0;
  bool line_open_ = false;
  double last_s_ = -1e9;
};

}  // namespace migrx
