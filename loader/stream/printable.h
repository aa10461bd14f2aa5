// Makes text that others chose (a peer's names, a process's command line) safe for a terminal, a log
// or a report.
#pragma once

#include <string>
#include <string_view>

namespace migrx {

// Overwrites with '?' whatever could steer a terminal or disguise a line: control characters (C0, DEL, C1),
// bytes that are no UTF-8, and the Unicode controls that turn or hide text. Newlines stay where `lines` says
// so. The length stays. Any thread.
void make_printable(char* text, std::size_t length, bool lines = false) noexcept;

[[nodiscard]] inline std::string printable(std::string_view text, bool lines = false) {
  std::string out(text);
  make_printable(out.data(), out.size(), lines);
  return out;
}

}  // namespace migrx
