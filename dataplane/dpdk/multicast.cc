#include "dataplane/dpdk/multicast.h"

#include <linux/if_packet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <utility>

namespace migrx {

MulticastMembership::MulticastMembership(int if_index, const std::vector<EthernetAddress>& groups) noexcept
    // Protocol 0: it receives nothing itself.
    : socket_(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0)) {
  for (const EthernetAddress& group : groups) {
    packet_mreq request{};
    request.mr_ifindex = if_index;
    request.mr_type = PACKET_MR_MULTICAST;
    request.mr_alen = static_cast<unsigned short>(group.bytes.size());
    std::memcpy(request.mr_address, group.bytes.data(), group.bytes.size());
    if (socket_ >= 0 &&
        ::setsockopt(socket_, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &request, sizeof request) != 0) {
      ::close(socket_);
      socket_ = -1;
    }
  }
}

MulticastMembership::~MulticastMembership() {
  if (socket_ >= 0) ::close(socket_);
}

MulticastMembership::MulticastMembership(MulticastMembership&& other) noexcept
    : socket_(std::exchange(other.socket_, -1)) {}

MulticastMembership& MulticastMembership::operator=(MulticastMembership&& other) noexcept {
  std::swap(socket_, other.socket_);
  return *this;
}

}  // namespace migrx
