#include "loader/app/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "dataplane/agent_thread.h"
#include "loader/app/watch/journal.h"
#include "loader/stream/printable.h"

namespace migrx {
namespace {

constexpr uint64_t kOnTerminalNs = 100'000'000;
constexpr uint64_t kPlainNs = 2'000'000'000;  // plain lines end up in log files

}  // namespace

StandardTerminal::StandardTerminal(bool quiet)
    : quiet_(quiet),
      info_(journal_prefix(STDOUT_FILENO, 6, std::getenv("JOURNAL_STREAM"))),
      warning_(journal_prefix(STDERR_FILENO, 4, std::getenv("JOURNAL_STREAM"))),
      error_(journal_prefix(STDERR_FILENO, 3, std::getenv("JOURNAL_STREAM"))) {
  winsize size{};
  if (::isatty(STDOUT_FILENO) != 0 && ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0)
    width_ = size.ws_col > 20 ? size.ws_col : 80;
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

void StandardTerminal::say(const std::string& text) {
  if (quiet_) return;
  clear_line();
  std::printf("%s\n", with_prefix(info_, printable(text, /*lines=*/true)).c_str());
  std::fflush(stdout);
}

void StandardTerminal::warn(const std::string& text) {
  clear_line();
  const std::string& prefix = text.starts_with("warning:") ? warning_ : error_;
  std::fprintf(stderr, "%s\n", with_prefix(prefix, "migrx: " + printable(text, /*lines=*/true)).c_str());
}

void StandardTerminal::clear_line() {
  if (!line_open_) return;
  std::printf("\r\x1b[K");
  std::fflush(stdout);
  line_open_ = false;
}

}  // namespace migrx
