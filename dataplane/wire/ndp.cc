#include "dataplane/wire/ndp.h"

#include <algorithm>

#include "dataplane/wire/ethernet.h"

namespace migrx {
namespace {

constexpr uint8_t kHopLimit = 255;
constexpr uint32_t kFixedBytes = 24;  // type to target
constexpr uint32_t kOptionUnit = 8;
constexpr uint32_t kSourceLinkAddress = 1;
constexpr uint32_t kTargetLinkAddress = 2;
constexpr uint32_t kSolicitedFlag = 0x4000'0000;
constexpr uint32_t kOverrideFlag = 0x2000'0000;

bool single_station(const EthernetAddress& mac) noexcept {
  return (mac.bytes[0] & std::byte{1}) == std::byte{0} && mac != EthernetAddress{};
}

// False: an option without length, or beyond the end.
bool read_options(Bytes options, uint32_t wanted, NdpPacket& out) noexcept {
  while (!options.empty()) {
    if (options.size() < kOptionUnit) return false;
    const uint32_t length = std::to_integer<uint32_t>(options[1]) * kOptionUnit;
    if (length == 0 || length > options.size()) return false;
    if (std::to_integer<uint32_t>(options[0]) == wanted && length == kOptionUnit) {
      std::memcpy(out.mac.bytes.data(), options.data() + 2, 6);
      out.has_mac = true;
    }
    options = options.subspan(length);
  }
  return true;
}

}  // namespace

bool parse_ndp(const Icmp6View& view, NdpPacket& out) noexcept {
  const bool asks = view.type() == icmp6_type::neighbour_solicitation;
  if (!asks && view.type() != icmp6_type::neighbour_advertisement) return false;
  if (view.ip.hop_limit != kHopLimit || view.ip.fragment_header || view.message.size() < kFixedBytes)
    return false;
  if (!icmp6_checksum_ok(view)) return false;
  out.kind = asks ? NdpPacket::Kind::solicitation : NdpPacket::Kind::advertisement;
  const uint32_t flags = asks ? 0 : load_be32(view.message.data() + 4);
  out.solicited = (flags & kSolicitedFlag) != 0;
  out.overrides = (flags & kOverrideFlag) != 0;
  out.has_mac = false;
  out.mac = {};
  out.source = view.ip.source;
  out.destination = view.ip.destination;
  out.link = view.link;
  load_ipv6(view.message.data() + 8, out.target);
  if (!plausible_source(out.target)) return false;
  if (!read_options(view.message.subspan(kFixedBytes), asks ? kSourceLinkAddress : kTargetLinkAddress, out))
    return false;
  if (out.has_mac && !single_station(out.mac)) return false;
  if (!single_station(out.link.remote_mac)) return false;
  if (asks && out.source.is_unspecified())
    return out.destination == solicited_node(out.target) && !out.has_mac;
  if (!plausible_source(out.source)) return false;
  return asks || !out.destination.is_multicast() || !out.solicited;
}

uint32_t build_ndp(const NdpPacket& packet, MutableBytes out) noexcept {
  if (out.size() < kNdpFrameBytesMax) return 0;
  const uint32_t ip_offset = build_ethernet(packet.link, ether_type::ipv6, out);
  const uint32_t bytes = kFixedBytes + (packet.has_mac ? kOptionUnit : 0);
  std::byte* const ip = out.data() + ip_offset;
  build_ipv6(packet.source, packet.destination, ipv6_next::icmp, kHopLimit, bytes, ip);
  std::byte* const message = ip + kIpv6HeaderBytes;
  const bool asks = packet.kind == NdpPacket::Kind::solicitation;
  message[0] = std::byte{asks ? icmp6_type::neighbour_solicitation : icmp6_type::neighbour_advertisement};
  message[1] = std::byte{0};
  store_be16(message + 2, 0);
  store_be32(message + 4, (packet.solicited ? kSolicitedFlag : 0) | (packet.overrides ? kOverrideFlag : 0));
  store_ipv6(message + 8, packet.target);
  if (packet.has_mac) {
    message[kFixedBytes] = static_cast<std::byte>(asks ? kSourceLinkAddress : kTargetLinkAddress);
    message[kFixedBytes + 1] = std::byte{1};
    std::memcpy(message + kFixedBytes + 2, packet.mac.bytes.data(), 6);
  }
  put_icmp6_checksum(packet.source, packet.destination, {message, bytes});
  return ip_offset + kIpv6HeaderBytes + bytes;
}

bool ndp_reply_for(const NdpPacket& heard, EthernetAddress mac, const IpAddress& ip,
                   NdpPacket& reply) noexcept {
  if (heard.kind != NdpPacket::Kind::solicitation || heard.target != ip) return false;
  reply = ndp_announcement_of(mac, ip);
  reply.link.tagged = heard.link.tagged;
  reply.link.vlan_tci = heard.link.vlan_tci;
  // Who asks without a name of its own may hear it at the group of all only (RFC 4861 section 7.2.4).
  if (heard.source.is_unspecified()) return true;
  reply.solicited = true;
  reply.destination = heard.source;
  reply.link.remote_mac = heard.has_mac ? heard.mac : heard.link.remote_mac;
  return true;
}

NdpPacket ndp_solicitation_for(EthernetAddress mac, const IpAddress& ip,
                               const IpAddress& target_ip) noexcept {
  NdpPacket question;
  question.kind = NdpPacket::Kind::solicitation;
  question.has_mac = !ip.is_unspecified();
  question.mac = mac;
  question.source = ip;
  question.destination = solicited_node(target_ip);
  question.target = target_ip;
  question.link.remote_mac = multicast_mac(question.destination);
  question.link.local_mac = mac;
  return question;
}

NdpPacket ndp_announcement_of(EthernetAddress mac, const IpAddress& ip) noexcept {
  NdpPacket word;
  word.kind = NdpPacket::Kind::advertisement;
  word.overrides = true;
  word.has_mac = true;
  word.mac = mac;
  word.source = ip;
  word.destination = kAllNodes;
  word.target = ip;
  word.link.remote_mac = multicast_mac(kAllNodes);
  word.link.local_mac = mac;
  return word;
}

}  // namespace migrx
