// ICMPv6 (RFC 4443): what all its messages share, and echo. Neighbour discovery: ndp.h; multicast listener
// discovery: mld.h. Pure.
#pragma once

#include <cstdint>

#include "dataplane/handoff/byte_order.h"
#include "dataplane/wire/address.h"
#include "dataplane/wire/ipv6.h"

namespace migrx {

namespace icmp6_type {
inline constexpr uint8_t packet_too_big = 2;
inline constexpr uint8_t echo_request = 128;
inline constexpr uint8_t echo_reply = 129;
inline constexpr uint8_t listener_query = 130;
inline constexpr uint8_t neighbour_solicitation = 135;
inline constexpr uint8_t neighbour_advertisement = 136;
inline constexpr uint8_t listener_report = 143;
}  // namespace icmp6_type

// One message with the headers before it.
struct Icmp6View {
  FrameAddress link;
  Ipv6View ip;
  Bytes message;  // from its type on; at least 8 bytes
  [[nodiscard]] uint8_t type() const noexcept { return std::to_integer<uint8_t>(message[0]); }
};

// `frame`: from the Ethernet header on, contiguous; must outlive `out`. False: not a whole ICMPv6 message of
// code 0. Its checksum is not looked at.
[[nodiscard]] bool parse_icmp6(Bytes frame, Icmp6View& out) noexcept;
[[nodiscard]] bool icmp6_checksum_ok(const Icmp6View& view) noexcept;
// Writes the checksum of a message that lies at `message`, with 0 in its place.
void put_icmp6_checksum(const IpAddress& source, const IpAddress& destination, MutableBytes message) noexcept;

// The reply to one echo request, in as many frames as it takes: RFC 8200 section 4.5 has who sends fragment.
class Icmp6EchoReply {
 public:
  // `request` and its bytes outlive this. False: not an echo request for `local_ip` with its right checksum.
  // Requests to groups get no answer: everybody would speak at once.
  [[nodiscard]] bool take(const Icmp6View& request, const IpAddress& local_ip) noexcept;
  // Writes the next frame, an IP packet of at most `mtu` bytes, and returns its length; 0: all has been
  // written, or `out` is too short. identification: the same for all frames, another for the next reply.
  [[nodiscard]] uint32_t next(uint32_t mtu, uint32_t identification, MutableBytes out) noexcept;

 private:
  FrameAddress link_;
  IpAddress local_ip_;
  IpAddress remote_ip_;
  Bytes message_;
  uint16_t checksum_ = 0;
  uint32_t written_ = 0;  // of message_
};

}  // namespace migrx
