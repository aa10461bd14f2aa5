// Neighbour discovery for IPv6 (RFC 4861) as far as a host that is not a router needs it: solicitations and
// advertisements, which are to IPv6 what ARP is to IPv4. Pure.
#pragma once

#include <cstdint>
#include <optional>

#include "dataplane/wire/icmp6.h"

namespace migrx {

struct NdpPacket {
  enum class Kind : uint8_t { solicitation, advertisement };
  Kind kind = Kind::solicitation;
  bool solicited = false;  // of an advertisement: it answers
  bool overrides = false;  // of an advertisement: it is to replace what is known
  bool has_mac = false;    // it bears its sender's link address
  EthernetAddress mac;     // that; the source's of a solicitation, the target's of an advertisement
  IpAddress source;        // `::` of a solicitation: its sender asks whether it may have `target`
  IpAddress destination;
  IpAddress target;
  FrameAddress link;  // of the frame it came in
};

inline constexpr uint32_t kNdpFrameBytesMax = 14 + 4 + kIpv6HeaderBytes + 24 + 8;

// The checks of RFC 4861 sections 7.1.1 and 7.1.2 (the hop limit is 255: nobody beyond the link can have sent
// it), of RFC 6980 (no fragment header), and that link addresses in it are those of single stations. False:
// not one of both kinds, or one to be ignored without a word.
[[nodiscard]] bool parse_ndp(const Icmp6View& view, NdpPacket& out) noexcept;

// Writes a frame to link.remote_mac from link.local_mac; returns its length, 0 if `out` is too small.
[[nodiscard]] uint32_t build_ndp(const NdpPacket& packet, MutableBytes out) noexcept;

// Answers `heard` if it asks for `ip`; false: it does not, or it is no question.
[[nodiscard]] bool ndp_reply_for(const NdpPacket& heard, EthernetAddress mac, const IpAddress& ip,
                                 NdpPacket& reply) noexcept;
// "Who has target_ip", to the group that such questions go to. `ip` of `::`: a question whether target_ip is
// free (RFC 4862 section 5.4.2), by which nobody learns anything of us.
[[nodiscard]] NdpPacket ndp_solicitation_for(EthernetAddress mac, const IpAddress& ip,
                                             const IpAddress& target_ip) noexcept;
// Tells everybody on the link where `ip` is (RFC 4861 section 7.2.6).
[[nodiscard]] NdpPacket ndp_announcement_of(EthernetAddress mac, const IpAddress& ip) noexcept;

}  // namespace migrx
