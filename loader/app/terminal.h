// Where progress and messages go: a line that is redrawn on a terminal, plain lines elsewhere, nothing with
// --quiet. In systemd's journal (JOURNAL_STREAM) each line is an entry with its level and fields, and
// progress is not for it: the manager's status has that (watch/service_manager.h).
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "loader/app/watch/journal.h"

namespace migrx {

// What a job tells those who watch it.
class Terminal {
 public:
  virtual ~Terminal() = default;
  // Progress is due: the last line of it was long enough ago.
  [[nodiscard]] virtual bool due() const noexcept = 0;
  // Columns of the terminal; 0: not a terminal, plain lines.
  [[nodiscard]] virtual unsigned width() const noexcept = 0;
  virtual void progress(const std::string& line) = 0;
  // A line that stays.
  virtual void say(const std::string& text) = 0;
  // A warning when the text begins with "warning:", else an error.
  virtual void warn(const std::string& text) = 0;
};

// stdout and stderr. Control thread only.
class StandardTerminal final : public Terminal {
 public:
  explicit StandardTerminal(bool quiet);
  ~StandardTerminal() override;
  StandardTerminal(const StandardTerminal&) = delete;
  StandardTerminal& operator=(const StandardTerminal&) = delete;

  // Several times a second on a terminal, every few seconds elsewhere. Never with --quiet.
  [[nodiscard]] bool due() const noexcept override;
  [[nodiscard]] unsigned width() const noexcept override { return width_; }
  void progress(const std::string& line) override;
  // Errors and warnings also with --quiet, and on stderr.
  // To the journal: 6 (info); 4 (warning), 3 (error).
  void say(const std::string& text) override { say(text, {}); }
  void warn(const std::string& text) override { warn(text, {}); }
  // With fields of its own, for the journal.
  void say(const std::string& text, const JournalFields& fields);
  void warn(const std::string& text, const JournalFields& fields);
  // A field of all entries from now on.
  void describe(const std::string& name, std::string value);

 private:
  void clear_line();
  // prefix: of the stream that the text would go to; empty: nobody reads that one for the journal.
  [[nodiscard]] bool to_journal(const std::string& prefix, int level, const std::string& text,
                                const JournalFields& fields) const;
  const bool quiet_;
  const std::string info_;  // before each line on stdout
  const std::string warning_;
  const std::string error_;
  std::optional<JournalSocket> journal_;  // nothing: nobody reads our lines for the journal
  JournalFields fields_;
  unsigned width_ = 0;
  bool line_open_ = false;
  uint64_t last_ns_ = 0;  // 0: no progress yet
};

}  // namespace migrx
