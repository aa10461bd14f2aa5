// Levels of lines that systemd's journal reads from stdout and stderr (sd-daemon(3)).
#pragma once

#include <string>

namespace migrx {

// "<4>" and so on before a line, when `fd` is connected to the journal (JOURNAL_STREAM, sd-daemon(3)); ""
// otherwise. `level` as of syslog(3).
[[nodiscard]] std::string journal_prefix(int fd, int level, const char* journal_stream);
// Each line of `text` with that prefix.
[[nodiscard]] std::string with_prefix(const std::string& prefix, const std::string& text);

}  // namespace migrx
