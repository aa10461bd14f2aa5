// ICMP echo (RFC 792), so that people can ping the port. Pure.
#pragma once

#include <cstdint>

#include "dataplane/handoff/byte_order.h"
#include "dataplane/wire/address.h"

namespace migrx {

// Builds the reply to an echo request for `local_ip`. `frame`: from the Ethernet header on, contiguous.
// Returns the length of the frame in `out`; 0: not an unfragmented, well-formed echo request for us, or `out`
// is shorter than the packet. Requests to broadcast addresses get no answer (RFC 1122 section 3.2.2.6).
[[nodiscard]] uint32_t build_icmp_echo_reply(Bytes frame, Ipv4Address local_ip, MutableBytes out) noexcept;

}  // namespace migrx
