#include "loader/app/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <utility>

#include "loader/stream/printable.h"
#include "numa/clock.h"

namespace migrx {
namespace {

constexpr uint64_t kOnTerminalNs = 100'000'000;
constexpr uint64_t kPlainNs = 2'000'000'000;  // plain lines end up in log files
// As of syslog(3).
constexpr int kError = 3;
constexpr int kWarning = 4;
constexpr int kInfo = 6;

}  // namespace

StandardTerminal::StandardTerminal(bool quiet)
    : quiet_(quiet),
      info_(journal_prefix(STDOUT_FILENO, kInfo, std::getenv("JOURNAL_STREAM"))),
      warning_(journal_prefix(STDERR_FILENO, kWarning, std::getenv("JOURNAL_STREAM"))),
      error_(journal_prefix(STDERR_FILENO, kError, std::getenv("JOURNAL_STREAM"))) {
  winsize size{};
  if (::isatty(STDOUT_FILENO) != 0 && ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0)
    width_ = size.ws_col > 20 ? size.ws_col : 80;
  if (!info_.empty() || !error_.empty()) journal_.emplace();
}

StandardTerminal::~StandardTerminal() {
  clear_line();
}

bool StandardTerminal::due() const noexcept {
  if (quiet_ || !info_.empty()) return false;
  return last_ns_ == 0 || monotonic_ns() - last_ns_ >= (width_ > 0 ? kOnTerminalNs : kPlainNs);
}

void StandardTerminal::progress(const std::string& line) {
  last_ns_ = monotonic_ns();
  if (width_ > 0) {
    std::printf("\r\x1b[K%s", printable(line).c_str());
    line_open_ = true;
  } else {
    std::printf("%s\n", printable(line).c_str());
  }
  std::fflush(stdout);
}

void StandardTerminal::describe(const std::string& name, std::string value) {
  fields_.emplace_back(name, std::move(value));
}

bool StandardTerminal::to_journal(const std::string& prefix, int level, const std::string& text,
                                  const JournalFields& fields) const {
  if (prefix.empty()) return false;
  JournalFields all = fields_;
  all.insert(all.end(), fields.begin(), fields.end());
  return journal_->send(journal_entry(level, text, all));
}

void StandardTerminal::say(const std::string& text, const JournalFields& fields) {
  if (quiet_) return;
  clear_line();
  const std::string shown = printable(text, /*lines=*/true);
  if (to_journal(info_, kInfo, shown, fields)) return;
  std::printf("%s\n", with_prefix(info_, shown).c_str());
  std::fflush(stdout);
}

void StandardTerminal::warn(const std::string& text, const JournalFields& fields) {
  clear_line();
  const bool warning = text.starts_with("warning:");
  const std::string& prefix = warning ? warning_ : error_;
  const std::string shown = printable(text, /*lines=*/true);
  if (to_journal(prefix, warning ? kWarning : kError, shown, fields)) return;
  std::fprintf(stderr, "%s\n", with_prefix(prefix, "migrx: " + shown).c_str());
}

void StandardTerminal::clear_line() {
  if (!line_open_) return;
  std::printf("\r\x1b[K");
  std::fflush(stdout);
  line_open_ = false;
}

}  // namespace migrx
