// Listening sockets that cannot be reached from here: [::1] on a host whose loopback has no IPv6 address,
// while QEMU listens on all addresses of both families and opens that socket first. Its other socket is there
// a moment later, and is the one that a guest goes to.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "loader/destination/socket_diag.h"

namespace migrx {

// One thread.
class UnreachableListeners {
 public:
  static constexpr uint64_t kPatienceNs = 500'000'000;

  struct One {
    PortListener listener;
    std::string why;
    uint64_t since_ns = 0;
  };
  void add(PortListener listener, std::string why, uint64_t now_ns);
  // Those that nobody came for in time. listeners: all that there are now. One that has gone, or beside which
  // a socket of the same port can be reached, is forgotten.
  [[nodiscard]] std::vector<One> take_due(const std::vector<PortListener>& listeners, uint64_t now_ns);

 private:
  std::vector<One> list_;
};

}  // namespace migrx
