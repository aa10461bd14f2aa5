// Commands between sections: 08 be16 cmd, be16 len, payload
// (QEMU migration/savevm.c, loadvm_process_command).
#pragma once

#include <array>

#include "loader/main/main_events.h"
#include "loader/main/main_settings.h"
#include "loader/main/step.h"
#include "loader/stream/byte_reader.h"

namespace migrx {

// Payload of RAM_DISCARD: one range of a block with a name of one byte; twelve, with the longest name.
inline constexpr uint16_t kDiscardBytesMin = 1 + (1 + 1) + 1 + 16;
inline constexpr uint16_t kDiscardBytesMax = 1 + (1 + 255) + 1 + 12 * 16;

class CommandReader {
 public:
  explicit CommandReader(const MainSettings& settings) noexcept : settings_(settings) {}

  // Reads one command, from the byte after its type byte on. done: the command is legal here and now;
  // command() and payload() are valid until more is read from `in`. Like QEMU, the command is judged before
  // its length. Of a command that switches to postcopy only the head is read: head() is that, its type byte
  // included, and payload() is empty.
  Step read(ByteReader& in, StreamError& error) noexcept;
  [[nodiscard]] MigCommand command() const noexcept { return command_; }
  [[nodiscard]] Bytes payload() const noexcept { return payload_; }
  [[nodiscard]] bool return_path_open() const noexcept { return return_path_open_; }
  // RAM_DISCARD or PACKAGED.
  [[nodiscard]] bool switches_to_postcopy() const noexcept {
    return command_ == MigCommand::postcopy_ram_discard || command_ == MigCommand::packaged;
  }
  [[nodiscard]] Bytes head() const noexcept { return head_; }
  // The source may switch to postcopy: these are the page sizes of its blocks, OR-ed. 0: it may not.
  [[nodiscard]] uint64_t page_sizes() const noexcept { return page_sizes_; }

 private:
  bool check(uint64_t at, uint16_t cmd, uint16_t length, StreamError& error) noexcept;
  bool check_advise(uint64_t at, uint16_t length, StreamError& error) const noexcept;
  bool take_advice(uint64_t at, StreamError& error) noexcept;

  const MainSettings& settings_;
  MigCommand command_ = MigCommand::invalid;
  Bytes payload_;
  std::array<std::byte, 5> head_{};
  uint64_t page_sizes_ = 0;
  uint16_t length_ = 0;
  bool have_header_ = false;
  bool return_path_open_ = false;
};

[[nodiscard]] const char* to_string(MigCommand command) noexcept;

}  // namespace migrx
