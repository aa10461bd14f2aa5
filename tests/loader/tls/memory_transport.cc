#include "tests/loader/tls/memory_transport.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace migrx {

void MemoryTransport::attach(gnutls_session_t session) {
  session_ = session;
  gnutls_transport_set_ptr(session, this);
  gnutls_transport_set_pull_function(session, pull);
  gnutls_transport_set_push_function(session, push);
  gnutls_handshake_set_timeout(session, GNUTLS_INDEFINITE_TIMEOUT);
}

void MemoryTransport::give(Bytes bytes) {
  input_.insert(input_.end(), bytes.begin(), bytes.end());
}

std::vector<std::byte> MemoryTransport::take() {
  return std::exchange(output_, {});
}

ssize_t MemoryTransport::pull(gnutls_transport_ptr_t self, void* to, std::size_t bytes) {
  auto& transport = *static_cast<MemoryTransport*>(self);
  const std::size_t n = std::min(bytes, transport.input_.size());
  if (n == 0) {
    gnutls_transport_set_errno(transport.session_, EAGAIN);
    return -1;
  }
  std::memcpy(to, transport.input_.data(), n);
  transport.input_.erase(transport.input_.begin(), transport.input_.begin() + static_cast<std::ptrdiff_t>(n));
  return static_cast<ssize_t>(n);
}

ssize_t MemoryTransport::push(gnutls_transport_ptr_t self, const void* from, std::size_t bytes) {
  auto& transport = *static_cast<MemoryTransport*>(self);
  const auto* const first = static_cast<const std::byte*>(from);
  transport.output_.insert(transport.output_.end(), first, first + bytes);
  return static_cast<ssize_t>(bytes);
}

}  // namespace migrx
