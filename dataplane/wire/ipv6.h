// The IPv6 header and its extension headers (RFC 8200): what TCP, ICMPv6 and neighbour discovery share.
#pragma once

#include <cstdint>
#include <cstring>

#include "dataplane/handoff/byte_order.h"
#include "dataplane/wire/address.h"
#include "dataplane/wire/checksum.h"
#include "dataplane/wire/counters.h"

namespace migrx {

inline constexpr uint32_t kIpv6HeaderBytes = 40;
inline constexpr uint32_t kIpv6MtuMin = 1280;  // RFC 8200 section 5: every link carries that

namespace ipv6_next {
inline constexpr uint8_t hop_by_hop = 0;
inline constexpr uint8_t tcp = 6;
inline constexpr uint8_t routing = 43;
inline constexpr uint8_t fragment = 44;
inline constexpr uint8_t icmp = 58;
inline constexpr uint8_t destination_options = 60;
}  // namespace ipv6_next

struct Ipv6View {
  IpAddress source;
  IpAddress destination;
  uint16_t header_length = 0;   // with the extension headers
  uint16_t payload_length = 0;  // of what follows them; never more than was received
  uint8_t protocol = 0;         // of what follows them
  uint8_t hop_limit = 0;
  bool fragment_header = false;  // there was one, of a packet that is whole all the same
  bool router_alert = false;     // RFC 2711
};

inline constexpr uint32_t kIpv6ExtensionsMax = 4;
inline constexpr uint32_t kIpv6ExtensionBytesMax = 128;

// `packet`: from the IPv6 header on, as far as it is contiguous; `available`: bytes to the end of the frame.
// segment_ok, or the fate of the packet. At most kIpv6ExtensionsMax extension headers of
// kIpv6ExtensionBytesMax bytes together are walked through: hop-by-hop and destination options without an
// option that must be understood, a routing header that is used up, the fragment header of a packet that was
// not fragmented (RFC 6946). Others are refused. Jumbograms (RFC 2675) are damaged packets here.
[[nodiscard]] WireCounter parse_ipv6(Bytes packet, uint32_t available, Ipv6View& out) noexcept;

// RFC 4291 sections 2.5.2, 2.5.3, 2.7: such addresses are never the source of what is to be answered. An
// IPv4-mapped one is on no wire (RFC 4942 section 2.2), and would be taken for IPv4 here.
[[nodiscard]] constexpr bool plausible_source(const IpAddress& a) noexcept {
  return !a.is_unspecified() && !a.is_loopback() && !a.is_multicast() && !a.is_ipv4();
}

inline void load_ipv6(const std::byte* p, IpAddress& out) noexcept {
  out.high = load_be64(p);
  out.low = load_be64(p + 8);
}
inline void store_ipv6(std::byte* p, const IpAddress& a) noexcept {
  store_be64(p, a.high);
  store_be64(p + 8, a.low);
}

// Writes kIpv6HeaderBytes. Neither address is an IPv4 one.
void build_ipv6(const IpAddress& source, const IpAddress& destination, uint8_t protocol, uint8_t hop_limit,
                uint32_t payload_length, std::byte* out) noexcept;
// RFC 8200 section 8.1.
void add_ipv6_pseudo_header(ChecksumSum& sum, const IpAddress& source, const IpAddress& destination,
                            uint8_t protocol, uint32_t length) noexcept;

// ff02::1, and the group that is asked where `a` is: ff02::1:ff and the last three bytes of `a` (RFC 4291
// section 2.7.1).
inline constexpr IpAddress kAllNodes{0xff02'0000'0000'0000, 1};
[[nodiscard]] constexpr IpAddress solicited_node(const IpAddress& a) noexcept {
  return {0xff02'0000'0000'0000, uint64_t{0x1'ff00'0000} | (a.low & 0xff'ffff)};
}
// 33:33 and the last four bytes of a multicast address (RFC 2464 section 7).
[[nodiscard]] constexpr EthernetAddress multicast_mac(const IpAddress& group) noexcept {
  return {{std::byte{0x33}, std::byte{0x33}, static_cast<std::byte>(group.low >> 24),
           static_cast<std::byte>(group.low >> 16), static_cast<std::byte>(group.low >> 8),
           static_cast<std::byte>(group.low)}};
}

}  // namespace migrx
