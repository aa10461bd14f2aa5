// ARP for IPv4 over Ethernet (RFC 826): parse and build. Pure.
#pragma once

#include <cstdint>

#include "dataplane/handoff/byte_order.h"
#include "dataplane/wire/address.h"

namespace migrx {

struct ArpPacket {
  enum class Operation : uint16_t { request = 1, reply = 2 };
  Operation operation = Operation::request;
  EthernetAddress sender_mac;
  Ipv4Address sender_ip;
  EthernetAddress target_mac;
  Ipv4Address target_ip;
  FrameAddress link;  // of the frame it came in
};

inline constexpr uint32_t kArpFrameBytesMax = 14 + 4 + 28;

// `frame`: from the Ethernet header on, contiguous. False: not a well-formed ARP request or reply.
[[nodiscard]] bool parse_arp(Bytes frame, ArpPacket& out) noexcept;

// Writes a frame to link.remote_mac from link.local_mac; returns its length, 0 if `out` is too small.
[[nodiscard]] uint32_t build_arp(const ArpPacket& packet, MutableBytes out) noexcept;

// Answers `request` if it asks for `ip`; false: it does not, or it is no request.
[[nodiscard]] bool arp_reply_for(const ArpPacket& request, EthernetAddress mac, Ipv4Address ip,
                                 ArpPacket& reply) noexcept;
// "Who has target_ip": also the announcement of an address of one's own, when both are equal (RFC 5227
// section 3).
[[nodiscard]] ArpPacket arp_request_for(EthernetAddress mac, Ipv4Address ip, Ipv4Address target_ip) noexcept;

}  // namespace migrx
