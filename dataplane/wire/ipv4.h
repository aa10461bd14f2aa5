// The IPv4 header (RFC 791): what ICMP and TCP share. IPv6's: ipv6.h.
#pragma once

#include <cstdint>

#include "dataplane/handoff/byte_order.h"
#include "dataplane/wire/address.h"
#include "dataplane/wire/counters.h"

namespace migrx {

namespace ip_protocol {
inline constexpr uint8_t icmp = 1;
inline constexpr uint8_t tcp = 6;
}  // namespace ip_protocol

struct Ipv4View {
  Ipv4Address source;
  Ipv4Address destination;
  uint16_t header_length = 0;
  uint16_t total_length = 0;  // header and payload; never more than was received
  uint8_t protocol = 0;
};

// `packet`: from the IPv4 header on, as far as it is contiguous; `available`: bytes to the end of the frame.
// segment_ok, or the fate of the packet. Options are skipped. The checksum is not looked at.
[[nodiscard]] inline WireCounter parse_ipv4(Bytes packet, uint32_t available, Ipv4View& out) noexcept {
  if (packet.size() < 20)
    return available < 20 ? WireCounter::frame_too_short : WireCounter::frame_headers_split;
  const std::byte* p = packet.data();
  const uint32_t version_ihl = std::to_integer<uint32_t>(p[0]);
  out.header_length = static_cast<uint16_t>((version_ihl & 0x0f) * 4);
  out.total_length = load_be16(p + 2);
  if ((version_ihl >> 4) != 4 || out.header_length < 20) return WireCounter::ip_header_bad;
  if (out.total_length < out.header_length) return WireCounter::ip_header_bad;
  if (out.total_length > available) return WireCounter::ip_length_bad;
  if (out.header_length > packet.size()) return WireCounter::frame_headers_split;
  // More fragments, or an offset: reassembly is not for us, since TCP sends within the MSS we announced.
  if ((load_be16(p + 6) & 0x3fff) != 0) return WireCounter::ip_fragment;
  out.protocol = std::to_integer<uint8_t>(p[9]);
  out.source.value = load_be32(p + 12);
  out.destination.value = load_be32(p + 16);
  return WireCounter::segment_ok;
}

// RFC 1122 section 3.2.1.3: such addresses are never a source. An answer to one would go astray or to many.
[[nodiscard]] constexpr bool plausible_source(Ipv4Address a) noexcept {
  return a.value != 0 && a.value < 0xe000'0000;  // neither "this host" nor class D, E or broadcast
}

}  // namespace migrx
