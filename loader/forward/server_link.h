// The other side of a forwarded connection: a server of this host, as Forward (forward.h) sees it. Nothing of
// it blocks.
#pragma once

#include <cstddef>
#include <span>

#include "dataplane/handoff/byte_order.h"

namespace migrx {

// One thread.
class ServerLink {
 public:
  virtual ~ServerLink() = default;

  enum class Way : uint8_t { opening, open, failed };
  [[nodiscard]] virtual Way way() noexcept = 0;

  // Neither bytes nor end nor error: not now.
  struct Step {
    std::size_t bytes = 0;
    bool ended = false;  // the server has closed its side in an orderly way; of receive()
    bool failed = false;
  };
  // The first of these bytes, piece by piece; perhaps not all. At most kPiecesMax pieces, none of them empty.
  static constexpr std::size_t kPiecesMax = 64;
  [[nodiscard]] virtual Step send(std::span<const Bytes> pieces) noexcept = 0;
  [[nodiscard]] virtual Step receive(std::span<std::byte> into) noexcept = 0;
  // Nothing more will be sent.
  virtual void finish_sending() noexcept = 0;
  // Closed at once; reset: the server is told that what it has is not whole (RST).
  virtual void close(bool reset) noexcept = 0;
  // For poll(2); -1: closed.
  [[nodiscard]] virtual int fd() const noexcept = 0;
};

}  // namespace migrx
