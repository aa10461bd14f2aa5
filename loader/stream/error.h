// What went wrong with a migration, in the words an operator needs: which channel, which byte, which field.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "loader/stream/multifd_id.h"

namespace migrx {

// The main channel, a multifd channel, or a connection that has not said yet what it is.
class ChannelName {
 public:
  constexpr ChannelName() noexcept = default;  // unidentified
  constexpr explicit ChannelName(MultifdId id) noexcept : number_(static_cast<int32_t>(id.number())) {}
  [[nodiscard]] static constexpr ChannelName main() noexcept {
    ChannelName name;
    name.number_ = kMain;
    return name;
  }
  [[nodiscard]] constexpr bool is_main() const noexcept { return number_ == kMain; }
  // Nothing: main, or unidentified.
  [[nodiscard]] constexpr std::optional<MultifdId> multifd() const noexcept {
    if (number_ < 0) return std::nullopt;
    return MultifdId{static_cast<uint32_t>(number_)};
  }
  friend bool operator==(ChannelName, ChannelName) = default;

 private:
  static constexpr int32_t kMain = -1;
  static constexpr int32_t kUnknown = -2;
  int32_t number_ = kUnknown;
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

// Filled once, when a session fails; a plain value, so that a worker can hand it to the control
// thread. `field` names section or record and field ("multifd packet: next_packet_size"); it points
// to static storage.
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
