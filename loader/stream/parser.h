// The interface of every channel parser, as the worker that feeds it sees it. Its implementations:
// MainChannel, MultifdChannel, and TlsChannel before either when the stream is encrypted.
#pragma once

#include "dataplane/handoff/byte_order.h"
#include "dataplane/handoff/handoff.h"
#include "loader/stream/error.h"

namespace migrx {

enum class ParseStatus : uint8_t {
  need_more,  // everything fed was used up
  parked,     // waits for other channels, for memory or for a slow hand-off; call again when ready() is true
  complete,   // nothing more is expected on this channel (bytes that follow are ignored)
  refused,    // a stranger is connected: the connection is refused, and nothing else happens
  failed,     // error() says why; the parser must not be fed again
};

struct ParseResult {
  std::size_t consumed = 0;  // of the bytes fed; the rest must be fed again (after parked)
  ParseStatus status = ParseStatus::need_more;
};

// Why a multifd channel that is refused may be the session's own source's all the same.
enum class Claim : uint8_t {
  none,
  unknown,    // its TLS was refused, so it has not told whether it is one
  surplus,    // all are here, and it comes from the source's address with the source's uuid
  elsewhere,  // some are missing, and only its address speaks against it: a NAT may have several
};

// One channel's state machine. Sans-IO: bytes in, page writes and events out. One worker thread at a time.
class ChannelParser {
 public:
  virtual ~ChannelParser() = default;
  // Hot: no allocation, lock, exception, log or system call for the records that carry pages.
  virtual ParseResult parse(Bytes piece) noexcept = 0;
  // The short way of a burst: takes slices from the first one on, as long as each is, from its first byte to
  // its last, page data that goes to memory as it is. Returns how many; none when the stream stands anywhere
  // else. Taking them comes to the same as parse() of one after the other. Hot.
  virtual std::size_t take_page_data(std::span<const Slice> /*slices*/) noexcept { return 0; }
  // For who has to change bytes on their way (loader/tls/tls_channel.h). When the next `to` bytes of the
  // stream are page data that goes to memory as it is: where those from `from` on go, as far as they lie side
  // by side, in whole cache lines. Empty: all of them must come through parse(). Who has put all of them into
  // their places calls page_data_written(to), and then parse(), for what follows from it; who has not may
  // still give them to parse(). Between calls of parse(), when it has used up what it was fed. Hot.
  [[nodiscard]] virtual MutableBytes page_place(std::size_t /*from*/, std::size_t /*to*/) noexcept {
    return {};
  }
  virtual void page_data_written(std::size_t /*bytes*/) noexcept {}
  // The stream has said which channel of which session it is; during a TLS handshake it has not.
  [[nodiscard]] virtual bool identified() const noexcept { return true; }
  // The stream is a multifd channel's, as far as it has told.
  [[nodiscard]] virtual bool may_be_multifd() const noexcept { return false; }
  // Of a stream that was refused.
  [[nodiscard]] virtual Claim claim() const noexcept { return Claim::none; }
  // A parked parser may go on.
  [[nodiscard]] virtual bool ready() noexcept = 0;
  // The connection ended here. Returns an error unless the stream may end at this point.
  virtual StreamError end_of_stream() noexcept = 0;
  [[nodiscard]] virtual const StreamError& error() const noexcept = 0;
  [[nodiscard]] virtual uint64_t offset() const noexcept = 0;
  // Stream offset of the oldest byte that was consumed but is still referenced (copy jobs on their way to
  // another node's worker); kNothingNeeded: all that was consumed may go back to its poll core. Slices that
  // begin before it and reach beyond it, and all later ones, must not be released.
  static constexpr uint64_t kNothingNeeded = UINT64_MAX;
  // Holds after end_of_stream() and after a failure, too.
  [[nodiscard]] virtual uint64_t needed_from() noexcept { return kNothingNeeded; }
  // Bytes written to guest RAM beyond those that came for them, ever: pages cleared, multifd packets
  // inflated. The worker's time is shared out as if these bytes had come (channel.h).
  [[nodiscard]] uint64_t expanded_bytes() const noexcept { return expanded_bytes_; }

 protected:
  uint64_t expanded_bytes_ = 0;
};

}  // namespace migrx
