// A further connection to the destination QEMU, beside main: it is made without waiting for it.
#pragma once

#include <cstdint>
#include <string>

#include "loader/destination/destination_link.h"
#include "loader/destination/socket_address.h"
#include "numa/descriptor.h"

namespace migrx {

// Where it leads.
struct FurtherAddress {
  SocketAddress address;
  int namespace_fd = -1;             // of a network namespace (/proc/PID/ns/net); -1: ours
  LinkSecurity* security = nullptr;  // nullptr: not encrypted; outlives the link
};

// Control thread. Nothing here blocks.
class FurtherLink {
 public:
  // True: connected, from now on. False: not yet, or `problem` says why it cannot be.
  bool connect(const FurtherAddress& to, uint64_t now_ns, std::string& problem);
  [[nodiscard]] bool connected() const noexcept { return connected_; }
  [[nodiscard]] DestinationLink& link() noexcept { return link_; }
  [[nodiscard]] const DestinationLink& link() const noexcept { return link_; }
  void close();
  // Why it has ended, `what` being its kind: "closed a multifd connection"; empty: it has not.
  [[nodiscard]] std::string end_text(const std::string& what) const;

 private:
  Descriptor socket_;  // until it is connected
  DestinationLink link_;
  bool connected_ = false;
};

}  // namespace migrx
