// Joins multicast groups on a kernel's interface, so that a packet socket sees their frames.
#pragma once

#include <vector>

#include "dataplane/wire/address.h"

namespace migrx {

// Holds a socket of its own: the interface takes the groups' frames as long as that is open, and they reach
// every packet socket that is bound to it. Needs CAP_NET_RAW. Control thread.
class MulticastMembership {
 public:
  MulticastMembership() = default;
  // if_index: the interface's, as if_nametoindex() gives it.
  MulticastMembership(int if_index, const std::vector<EthernetAddress>& groups) noexcept;
  ~MulticastMembership();
  MulticastMembership(MulticastMembership&& other) noexcept;
  MulticastMembership& operator=(MulticastMembership&& other) noexcept;
  MulticastMembership(const MulticastMembership&) = delete;
  MulticastMembership& operator=(const MulticastMembership&) = delete;
  // The interface takes them all.
  [[nodiscard]] bool held() const noexcept { return socket_ >= 0; }

 private:
  int socket_ = -1;
};

}  // namespace migrx
