// The source's channel of postcopy-preempt: whatever it brings goes to the destination QEMU, whose guest
// waits for it. It begins with no magic, and says nothing before a page is wanted (QEMU
// migration/postcopy-ram.c, postcopy_preempt_establish_channel).
#pragma once

#include "loader/session/urgent_pages.h"
#include "loader/stream/parser.h"

namespace migrx {

// One worker thread at a time.
class PreemptChannel final : public ChannelParser {
 public:
  explicit PreemptChannel(UrgentPages& pages) noexcept : pages_(pages) {}

  ParseResult parse(Bytes piece) noexcept override {
    const std::size_t taken = pages_.write(piece);
    offset_ += taken;
    return {taken, taken == piece.size() ? ParseStatus::need_more : ParseStatus::parked};
  }
  [[nodiscard]] bool ready() noexcept override { return pages_.has_room(); }
  // The source closes it at the end; a broken one shows on main, too.
  StreamError end_of_stream() noexcept override { return {}; }
  [[nodiscard]] const StreamError& error() const noexcept override { return none_; }
  [[nodiscard]] uint64_t offset() const noexcept override { return offset_; }

 private:
  UrgentPages& pages_;
  uint64_t offset_ = 0;
  StreamError none_;
};

}  // namespace migrx
