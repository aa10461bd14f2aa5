// The return path: messages from a destination to a source on the main connection (QEMU
// migration/migration.c, migrate_send_rp_* and source_return_path_thread). Message: be16 type,
// be16 length, payload.
//
// migrx writes them to the real source (builders), and reads those of a destination QEMU it hands off to
// (reader). Never write one before the source's OPEN_RETURN_PATH: a source without a return path does not
// read, and its close() would become a reset that discards bytes still under way.
#pragma once

#include <array>
#include <cstdint>

#include "dataplane/handoff/byte_order.h"
#include "loader/stream/byte_reader.h"
#include "loader/stream/error.h"

namespace migrx {

// enum mig_rp_message_type.
enum class ReturnPathType : uint16_t {
  invalid = 0,
  shut = 1,            // be32: 0 success, else an error; once, last
  pong = 2,            // be32: the value of the PING
  req_pages_id = 3,    // postcopy
  req_pages = 4,       // postcopy
  recv_bitmap = 5,     // postcopy recovery
  resume_ack = 6,      // postcopy recovery
  switchover_ack = 7,  // no payload; sources before 8.1 fail on it
};
[[nodiscard]] const char* to_string(ReturnPathType type) noexcept;

inline constexpr std::size_t kReturnPathHeaderBytes = 4;

[[nodiscard]] std::array<std::byte, 8> make_shut(uint32_t value) noexcept;
[[nodiscard]] std::array<std::byte, 8> make_pong(uint32_t value) noexcept;
[[nodiscard]] std::array<std::byte, 4> make_switchover_ack() noexcept;

struct ReturnPathMessage {
  ReturnPathType type = ReturnPathType::invalid;
  uint32_t value = 0;  // of SHUT and PONG
};

// Reads a destination's messages from a stream that may be torn anywhere. Only what a destination may say in
// precopy passes: SHUT, PONG, SWITCHOVER_ACK, with exact lengths; nothing may follow SHUT.
class ReturnPathReader {
 public:
  ReturnPathReader() : in_(kReturnPathHeaderBytes + 4) {}

  // The next bytes; those before must have been used up (next() returned false without an error).
  void feed(Bytes bytes) noexcept { in_.feed(bytes); }
  // True: `message` is the next one. False: needs more bytes, or error() is set.
  [[nodiscard]] bool next(ReturnPathMessage& message) noexcept;
  [[nodiscard]] const StreamError& error() const noexcept { return error_; }
  [[nodiscard]] bool shut_seen() const noexcept { return shut_seen_; }
  // Inside a message: an end of the connection here is `truncated`.
  [[nodiscard]] bool mid_message() const noexcept { return have_header_ || in_.carried() > 0; }

 private:
  ByteReader in_;
  StreamError error_;
  ReturnPathType type_ = ReturnPathType::invalid;
  uint16_t length_ = 0;
  bool have_header_ = false;
  bool shut_seen_ = false;
};

}  // namespace migrx
