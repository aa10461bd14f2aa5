// Ethernet II with at most one IEEE 802.1Q tag: what ARP, ICMP and TCP share.
#pragma once

#include <cstdint>
#include <cstring>

#include "dataplane/handoff/byte_order.h"
#include "dataplane/wire/address.h"

namespace migrx {

namespace ether_type {
inline constexpr uint16_t ipv4 = 0x0800;
inline constexpr uint16_t arp = 0x0806;
inline constexpr uint16_t vlan = 0x8100;
inline constexpr uint16_t ipv6 = 0x86dd;
inline constexpr uint16_t service_vlan = 0x88a8;  // IEEE 802.1ad
}  // namespace ether_type

struct EthernetView {
  FrameAddress link;
  uint16_t type = 0;
  uint16_t payload_offset = 0;
};

// False: too short. A second tag, or a provider's, is not looked into: `type` says that it is one.
[[nodiscard]] inline bool parse_ethernet(Bytes frame, EthernetView& out) noexcept {
  if (frame.size() < 14) return false;
  std::memcpy(out.link.local_mac.bytes.data(), frame.data(), 6);
  std::memcpy(out.link.remote_mac.bytes.data(), frame.data() + 6, 6);
  out.type = load_be16(frame.data() + 12);
  out.payload_offset = 14;
  out.link.vlan_tci = out.link.tagged = 0;
  if (out.type == ether_type::vlan) [[unlikely]] {
    if (frame.size() < 18) return false;
    out.link.vlan_tci = load_be16(frame.data() + 14);
    out.link.tagged = 1;
    out.type = load_be16(frame.data() + 16);
    out.payload_offset = 18;
  }
  return true;
}

// Writes 14 or 18 bytes; returns how many. Precondition: out.size() >= 18.
inline uint32_t build_ethernet(const FrameAddress& link, uint16_t type, MutableBytes out) noexcept {
  std::memcpy(out.data(), link.remote_mac.bytes.data(), 6);
  std::memcpy(out.data() + 6, link.local_mac.bytes.data(), 6);
  if (link.tagged == 0) {
    store_be16(out.data() + 12, type);
    return 14;
  }
  store_be16(out.data() + 12, ether_type::vlan);
  store_be16(out.data() + 14, link.vlan_tci);
  store_be16(out.data() + 16, type);
  return 18;
}

}  // namespace migrx
