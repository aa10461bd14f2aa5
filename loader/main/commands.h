// Commands between sections: 08 be16 cmd, be16 len, payload
// (QEMU migration/savevm.c, loadvm_process_command).
#pragma once

#include "loader/main/main_events.h"
#include "loader/main/main_settings.h"
#include "loader/main/step.h"
#include "loader/stream/byte_reader.h"

namespace migrx {

class CommandReader {
 public:
  explicit CommandReader(const MainSettings& settings) noexcept : settings_(settings) {}

  // Reads one command, from the byte after its type byte on. done: the command is legal here and now;
  // command() and payload() are valid until more is read from `in`. Like QEMU, the command is judged before
  // its length.
  Step read(ByteReader& in, StreamError& error) noexcept;
  [[nodiscard]] MigCommand command() const noexcept { return command_; }
  [[nodiscard]] Bytes payload() const noexcept { return payload_; }
  [[nodiscard]] bool return_path_open() const noexcept { return return_path_open_; }

 private:
  bool check(uint64_t at, uint16_t cmd, uint16_t length, StreamError& error) noexcept;

  const MainSettings& settings_;
  MigCommand command_ = MigCommand::invalid;
  Bytes payload_;
  uint16_t length_ = 0;
  bool have_header_ = false;
  bool return_path_open_ = false;
};

[[nodiscard]] const char* to_string(MigCommand command) noexcept;

}  // namespace migrx
