// What GnuTLS reads and writes in tests: bytes in memory instead of a socket.
#pragma once

#include <gnutls/gnutls.h>

#include <vector>

#include "dataplane/handoff/byte_order.h"

namespace migrx {

class MemoryTransport {
 public:
  // It outlives the session's last call.
  void attach(gnutls_session_t session);
  // What the peer sent.
  void give(Bytes bytes);
  // What goes to the peer; whoever asks takes it.
  [[nodiscard]] std::vector<std::byte> take();

 private:
  static ssize_t pull(gnutls_transport_ptr_t self, void* to, std::size_t bytes);
  static ssize_t push(gnutls_transport_ptr_t self, const void* from, std::size_t bytes);

  gnutls_session_t session_ = nullptr;
  std::vector<std::byte> input_;
  std::vector<std::byte> output_;
};

}  // namespace migrx
