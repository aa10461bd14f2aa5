// The seam between the hand-off's connections and their encryption; loader/tls/ implements it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "dataplane/handoff/byte_order.h"

namespace migrx {

// One connection: bytes of the socket in and out, text of the stream in and out. Control thread.
class SecuredLink {
 public:
  enum class Phase : uint8_t {
    wants_bytes,  // of the handshake; the first time none
    working,      // on another thread: nothing else may be called
    open,
    failed,
  };
  virtual ~SecuredLink() = default;

  [[nodiscard]] virtual Phase phase() const noexcept = 0;
  // wants_bytes: the handshake goes on with what the peer sent.
  virtual void go_on(Bytes from_peer) = 0;
  // What is to be sent now; the caller takes it.
  [[nodiscard]] virtual std::vector<std::byte> take_output() = 0;
  // open: the text as records in take_output(). False: problem().
  [[nodiscard]] virtual bool seal(Bytes text) = 0;
  // open: what the peer sent; plaintext is appended to `text`. False: it has ended, by problem() or, when
  // that is empty, by the peer's word.
  [[nodiscard]] virtual bool open(Bytes from_peer, std::vector<std::byte>& text) = 0;
  // After failed, or after something returned false.
  [[nodiscard]] virtual std::string problem() const = 0;
};

class LinkSecurity {
 public:
  virtual ~LinkSecurity() = default;
  // For a connection that has just been made; it must not outlive this object. Control thread. Never nullptr.
  [[nodiscard]] virtual std::unique_ptr<SecuredLink> connect() = 0;
};

}  // namespace migrx
