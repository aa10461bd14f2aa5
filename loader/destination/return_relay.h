// What a destination QEMU says in postcopy, on its way to the source: passed on as it is, but for the bitmaps
// of a recovery, which are completed (discarded_pages.h).
//
//   REQ_PAGES_ID, REQ_PAGES   a page is wanted now: the guest waits for it
//   PONG, RESUME_ACK          passed on
//   SHUT                      the last page is in place (0)
//   RECV_BITMAP               be16 5, be16 length, str8 block; then outside the message be64 size, that many
//                             bytes, one bit for each page, the lowest first, be64 end mark
// (QEMU migration/migration.c, source_return_path_thread, migrate_send_rp_*; migration/ram.c,
// ramblock_recv_bitmap_send)
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "loader/destination/discarded_pages.h"
#include "loader/main/return_path.h"
#include "loader/stream/byte_reader.h"
#include "loader/stream/error.h"

namespace migrx {

// Sans-IO; one thread. Allocates no more than `out` grows.
class ReturnRelay {
 public:
  ReturnRelay() : in_(std::in_place, kMessageMax) {}

  // The next bytes from the destination, all of them; appends to `out` what the source is to get. discarded:
  // not null once it is known. False: no QEMU says so, error(); nothing more is to be fed.
  [[nodiscard]] bool feed(Bytes bytes, const DiscardedPages* discarded, std::vector<std::byte>& out);
  [[nodiscard]] const StreamError& error() const noexcept { return error_; }
  // The connection was lost, and another one begins.
  void begin_anew() noexcept;

  // Of the SHUT that has come.
  [[nodiscard]] std::optional<uint32_t> shut() const noexcept { return shut_; }
  // Pages that were asked for: messages, and bytes.
  [[nodiscard]] uint64_t requests() const noexcept { return requests_; }
  [[nodiscard]] uint64_t requested_bytes() const noexcept { return requested_bytes_; }

 private:
  static constexpr std::size_t kMessageMax = kReturnPathHeaderBytes + 12 + 1 + 255;
  static constexpr uint64_t kEndMark = 0x0123456789abcdef;
  enum class State : uint8_t { header, payload, bitmap_size, bitmap, bitmap_end };

  [[nodiscard]] bool take_header(const std::byte* header);
  [[nodiscard]] bool take_payload(Bytes payload);
  void complete(Bytes bits, const DiscardedPages* discarded, std::vector<std::byte>& out) const;
  [[nodiscard]] bool refuse(const char* field, const char* why);

  std::optional<ByteReader> in_;  // always there
  StreamError error_;
  State state_ = State::header;
  ReturnPathType type_ = ReturnPathType::invalid;
  uint16_t length_ = 0;
  std::string block_;  // of the bitmap that comes
  uint64_t bitmap_bytes_ = 0;
  uint64_t bitmap_done_ = 0;
  std::optional<uint32_t> shut_;
  uint64_t requests_ = 0;
  uint64_t requested_bytes_ = 0;
};

}  // namespace migrx
