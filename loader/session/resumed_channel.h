// The main channel of a source that resumes a postcopy migration whose connection broke: no header, and
// nothing in it is for migrx (QEMU migration/migration.c, postcopy_do_resume). Its first bytes are the
// command RECV_BITMAP.
#pragma once

#include "loader/main/main_events.h"
#include "loader/stream/parser.h"

namespace migrx {

// One worker thread at a time.
class ResumedChannel final : public ChannelParser {
 public:
  // 08, be16 10, be16 length: of the first four bytes, the first three.
  static constexpr uint32_t kPrefix = 0x08000a;

  explicit ResumedChannel(MainEvents& outgoing) noexcept : outgoing_(outgoing) {}

  ParseResult parse(Bytes piece) noexcept override {
    const std::size_t taken = outgoing_.on_tail(piece);
    offset_ += taken;
    return {taken, taken == piece.size() ? ParseStatus::need_more : ParseStatus::parked};
  }
  [[nodiscard]] bool ready() noexcept override { return outgoing_.writable(); }
  StreamError end_of_stream() noexcept override { return {}; }
  [[nodiscard]] const StreamError& error() const noexcept override { return none_; }
  [[nodiscard]] uint64_t offset() const noexcept override { return offset_; }

 private:
  MainEvents& outgoing_;
  uint64_t offset_ = 0;
  StreamError none_;
};

}  // namespace migrx
