// What went wrong with a migration, in the words an operator needs: which channel, which byte, which field.
#pragma once

#include <array>
#include <cstdint>
#include <string>

namespace migrx {

// The main channel, or multifd channel N.
struct ChannelName {
  static constexpr int32_t kMain = -1;
  static constexpr int32_t kUnknown = -2;  // has not said yet what it is
  int32_t index = kUnknown;
  friend bool operator==(ChannelName, ChannelName) = default;
};
[[nodiscard]] std::string to_string(ChannelName channel);  // "main", "multifd 3", "unidentified"

enum class ErrorClass : uint8_t {
  none,
  bad_stream,   // bytes no QEMU would send: corruption, or a wrong program
  truncated,    // the stream ended inside a record, or before RAM was complete
  mismatch,     // legal bytes, but source and receiver are configured differently
  unsupported,  // a legal QEMU feature that migrx does not implement
  io,           // a socket or file failed
  timed_out,    // nothing can come any more, or nothing came for the configured time
  cancelled,    // the operator asked for it
};
[[nodiscard]] const char* to_string(ErrorClass error_class) noexcept;

// Filled once, when a session fails; a plain value, so that a worker can hand it to the control thread.
// `field` names section or record and field ("multifd packet: next_packet_size"); it points to static
// storage.
struct StreamError {
  ErrorClass error_class = ErrorClass::none;
  ChannelName channel;
  uint64_t offset = 0;  // byte offset in that channel's stream of the record at fault
  const char* field = "";
  uint64_t found = 0;
  uint64_t allowed = 0;
  bool has_values = false;       // found and allowed mean something
  std::array<char, 320> text{};  // one sentence more: names, what to do about it

  [[nodiscard]] explicit operator bool() const noexcept { return error_class != ErrorClass::none; }
  // "main: byte 12345: RAM section: offset: found 67108864, allowed at most 67104768: …"
  [[nodiscard]] std::string message() const;
};

// What comes from the wire may stand in the arguments as it is: the text is made printable (printable.h).
[[gnu::format(printf, 4, 5)]] StreamError make_error(ErrorClass error_class, uint64_t offset,
                                                     const char* field, const char* format, ...) noexcept;
StreamError make_error_values(ErrorClass error_class, uint64_t offset, const char* field, uint64_t found,
                              uint64_t allowed, const char* text = "") noexcept;

}  // namespace migrx
