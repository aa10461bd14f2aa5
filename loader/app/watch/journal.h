// systemd's journal: entries with fields by its own socket, and, where that is not to be had, levels of the
// lines that it reads from stdout and stderr (sd-daemon(3)).
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "numa/descriptor.h"

namespace migrx {

// "<4>" and so on before a line, when `fd` is connected to the journal (JOURNAL_STREAM, sd-daemon(3)); ""
// otherwise. `level` as of syslog(3).
[[nodiscard]] std::string journal_prefix(int fd, int level, const char* journal_stream);
// Each line of `text` with that prefix.
[[nodiscard]] std::string with_prefix(const std::string& prefix, const std::string& text);

// What an entry has beside its text: names of capitals, digits and "_", such as MIGRX_SESSION.
using JournalFields = std::vector<std::pair<std::string, std::string>>;
// One entry as the journal's socket takes it (systemd's "Native Journal Protocol"). `message` may have
// several lines; what is longer than a datagram carries is cut.
[[nodiscard]] std::string journal_entry(int level, const std::string& message, const JournalFields& fields);

// The journal's socket. One thread at a time; never waits.
class JournalSocket {
 public:
  explicit JournalSocket(std::string path = "/run/systemd/journal/socket");
  // False: the journal did not take it, and the line is to be written as text.
  [[nodiscard]] bool send(const std::string& entry) const noexcept;

 private:
  const std::string path_;
  Descriptor socket_;
};

}  // namespace migrx
