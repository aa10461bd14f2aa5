// A TCP connection to a server of this host, in its network namespace.
#pragma once

#include "loader/destination/socket_address.h"
#include "loader/forward/server_link.h"
#include "numa/descriptor.h"

namespace migrx {

class TcpServerLink final : public ServerLink {
 public:
  // Begins to connect. network_namespace: a descriptor that names it, -1: ours. A few system calls.
  TcpServerLink(const SocketAddress& address, int network_namespace) noexcept;

  [[nodiscard]] Way way() noexcept override;
  [[nodiscard]] Step send(std::span<const Bytes> pieces) noexcept override;
  [[nodiscard]] Step receive(std::span<std::byte> into) noexcept override;
  void finish_sending() noexcept override;
  void close(bool reset) noexcept override;
  [[nodiscard]] int fd() const noexcept override { return socket_.get(); }

 private:
  Descriptor socket_;  // empty: it could not be made, or is closed
  Way way_ = Way::failed;
};

}  // namespace migrx
