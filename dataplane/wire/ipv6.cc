#include "dataplane/wire/ipv6.h"

namespace migrx {
namespace {

// RFC 8200 section 4.2: the two top bits of an option's type say what becomes of the packet when the option
// is not known: 00 goes on, all others discard it.
constexpr uint32_t kMustUnderstand = 0xc0;
constexpr uint32_t kPad1 = 0;
constexpr uint32_t kRouterAlert = 5;

// `options`: the header after its two first bytes. False: damaged, or with an option that must be
// understood.
bool walk_options(Bytes options, bool& router_alert) noexcept {
  for (std::size_t at = 0; at < options.size();) {
    const uint32_t type = std::to_integer<uint32_t>(options[at]);
    if (type == kPad1) {
      ++at;
      continue;
    }
    if (options.size() - at < 2) return false;
    const uint32_t length = std::to_integer<uint32_t>(options[at + 1]);
    if (length > options.size() - at - 2 || (type & kMustUnderstand) != 0) return false;
    if (type == kRouterAlert && length == 2) router_alert = true;
    at += 2 + length;
  }
  return true;
}

}  // namespace

WireCounter parse_ipv6(Bytes packet, uint32_t available, Ipv6View& out) noexcept {
  if (packet.size() < kIpv6HeaderBytes)
    return available < kIpv6HeaderBytes ? WireCounter::frame_too_short : WireCounter::frame_headers_split;
  const std::byte* const p = packet.data();
  if (std::to_integer<uint32_t>(p[0]) >> 4 != 6) return WireCounter::ip_header_bad;
  const uint32_t payload = load_be16(p + 4);
  if (payload > available - kIpv6HeaderBytes) return WireCounter::ip_length_bad;
  out.hop_limit = std::to_integer<uint8_t>(p[7]);
  load_ipv6(p + 8, out.source);
  load_ipv6(p + 24, out.destination);
  out.fragment_header = out.router_alert = false;

  uint32_t next = std::to_integer<uint32_t>(p[6]);
  uint32_t walked = 0;
  for (uint32_t headers = 0;; ++headers) {
    const bool options = next == ipv6_next::hop_by_hop || next == ipv6_next::destination_options;
    if (!options && next != ipv6_next::routing && next != ipv6_next::fragment) [[likely]]
      break;
    // Hop-by-hop options stand first (RFC 8200 section 4.1).
    if (headers == kIpv6ExtensionsMax || (next == ipv6_next::hop_by_hop && headers > 0))
      return WireCounter::ip_extension_bad;
    if (payload - walked < 8) return WireCounter::ip_extension_bad;
    if (packet.size() < kIpv6HeaderBytes + walked + 8) return WireCounter::frame_headers_split;
    const std::byte* const h = p + kIpv6HeaderBytes + walked;
    const uint32_t length = next == ipv6_next::fragment ? 8 : (std::to_integer<uint32_t>(h[1]) + 1) * 8;
    if (length > payload - walked || walked + length > kIpv6ExtensionBytesMax)
      return WireCounter::ip_extension_bad;
    if (packet.size() < kIpv6HeaderBytes + walked + length) return WireCounter::frame_headers_split;
    if (options && !walk_options({h + 2, length - 2}, out.router_alert)) return WireCounter::ip_extension_bad;
    // RFC 8200 section 4.4: one that has no segments left is passed over. This host forwards nothing.
    if (next == ipv6_next::routing && h[3] != std::byte{0}) return WireCounter::ip_extension_bad;
    if (next == ipv6_next::fragment) {
      if ((load_be16(h + 2) & 0xfff9) != 0) return WireCounter::ip_fragment;
      out.fragment_header = true;
    }
    next = std::to_integer<uint32_t>(h[0]);
    walked += length;
  }
  out.protocol = static_cast<uint8_t>(next);
  out.header_length = static_cast<uint16_t>(kIpv6HeaderBytes + walked);
  out.payload_length = static_cast<uint16_t>(payload - walked);
  return WireCounter::segment_ok;
}

void build_ipv6(const IpAddress& source, const IpAddress& destination, uint8_t protocol, uint8_t hop_limit,
                uint32_t payload_length, std::byte* out) noexcept {
  store_be32(out, 0x6000'0000);
  store_be16(out + 4, static_cast<uint16_t>(payload_length));
  out[6] = std::byte{protocol};
  out[7] = std::byte{hop_limit};
  store_ipv6(out + 8, source);
  store_ipv6(out + 24, destination);
}

void add_ipv6_pseudo_header(ChecksumSum& sum, const IpAddress& source, const IpAddress& destination,
                            uint8_t protocol, uint32_t length) noexcept {
  for (const uint64_t half : {source.high, source.low, destination.high, destination.low}) {
    sum.add_be32(static_cast<uint32_t>(half >> 32));
    sum.add_be32(static_cast<uint32_t>(half));
  }
  sum.add_be32(length);
  sum.add_be32(protocol);
}

}  // namespace migrx
