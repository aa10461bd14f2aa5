// ICMP echo (RFC 792), so that people can ping the port. Pure.
#pragma once

#include <cstdint>

#include "dataplane/handoff/byte_order.h"
#include "dataplane/wire/address.h"

namespace migrx {

// The reply to one echo request, in as many frames as it takes: a `ping -M do -s 8972` asks whether jumbo
// frames arrive here, and is answered also by a port that sends shorter frames than it receives.
class IcmpEchoReply {
 public:
  // `frame`: from the Ethernet header on, contiguous; must outlive this. False: not an unfragmented,
  // well-formed echo request for `local_ip`. Requests to broadcast addresses get no answer (RFC 1122
  // section 3.2.2.6).
  [[nodiscard]] bool take(Bytes frame, Ipv4Address local_ip) noexcept;
  // Writes the next frame of the reply, an IP packet of at most `mtu` bytes, and returns its length; 0: all
  // has been written, or `out` is too short. identification: the same for all frames, and another for the
  // next reply that takes several (RFC 6864 section 4.3).
  [[nodiscard]] uint32_t next(uint32_t mtu, uint16_t identification, MutableBytes out) noexcept;

 private:
  FrameAddress link_;
  Ipv4Address local_ip_;
  Ipv4Address remote_ip_;
  Bytes icmp_;
  uint16_t checksum_ = 0;
  uint32_t written_ = 0;  // of icmp_
};

}  // namespace migrx
