// Main's stream from the switch to postcopy on, up to its point of no return (QEMU migration/migration.c,
// postcopy_start; migration/savevm.c, loadvm_postcopy_ram_handle_discard and loadvm_handle_cmd_packaged):
//
//   RAM_DISCARD*    u8 version (0), str8 block, u8 0, 1 to 12 × (be64 start, be64 length)
//   PING
//   PACKAGED        be32 length, then so many bytes: device state and the commands LISTEN and RUN
//
// All of it passes on to the destination QEMU as it is. migrx reads along, because it has to know which pages
// of those that it has loaded are dropped there. What comes behind the package's length is not looked at.
#pragma once

#include <cstdint>

#include "loader/main/commands.h"
#include "loader/main/main_events.h"
#include "loader/ram/ram_block.h"
#include "loader/stream/byte_reader.h"

namespace migrx {

// Main's worker. Sans-IO; no allocation.
class PostcopyReader {
 public:
  // Both must outlive the reader.
  PostcopyReader(MainEvents& events, const RamBlockList& blocks)
      : events_(events), blocks_(blocks), in_(kDiscardBytesMax) {}

  // at: offset in the stream of the first byte.
  void begin(uint64_t at) noexcept { begun_at_ = at; }
  // Reads all of the next bytes. False: what has come is no QEMU's, and `error` says why.
  [[nodiscard]] bool read(Bytes bytes, StreamError& error);
  // The package has begun, so nothing more is read.
  [[nodiscard]] bool over() const noexcept { return state_ == State::opaque; }

 private:
  enum class State : uint8_t { head, payload, package_length, opaque };
  [[nodiscard]] bool take_head(const std::byte* head, StreamError& error);
  [[nodiscard]] bool take_discard(Bytes payload, StreamError& error);
  [[nodiscard]] uint64_t offset() const noexcept { return begun_at_ + in_.offset(); }

  MainEvents& events_;
  const RamBlockList& blocks_;
  ByteReader in_;
  uint64_t begun_at_ = 0;
  State state_ = State::head;
  MigCommand command_ = MigCommand::invalid;
  uint16_t length_ = 0;
};

}  // namespace migrx
