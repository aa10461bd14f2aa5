#include "dataplane/wire/segment.h"

#include <algorithm>
#include <cstring>

#include "dataplane/wire/checksum.h"
#include "dataplane/wire/ethernet.h"
#include "dataplane/wire/ipv4.h"

namespace migrx {
namespace {

// Option kinds: RFC 9293 section 3.1, RFC 7323 sections 2.2 and 3.2, RFC 2018 sections 2 and 3.
enum class OptionKind : uint8_t {
  end = 0,
  no_operation = 1,
  mss = 2,
  window_scale = 3,
  sack_permitted = 4,
  sack = 5,
  timestamps = 8,
};

// NOP NOP Timestamps(10): how every common sender lays out the options of a data segment (RFC 7323 appendix
// A).
constexpr uint32_t kTimestampLayout = 0x0101'080a;

void read_sack(const std::byte* blocks, uint32_t bytes, TcpSegment& out) noexcept {
  for (uint32_t i = 0; i + 8 <= bytes && out.sack_count < kSackBlocksMax; i += 8) {
    out.sack[out.sack_count++] = {SeqNum{load_be32(blocks + i)}, SeqNum{load_be32(blocks + i + 4)}};
  }
}

// A wrong length ends the parsing: what follows cannot be found. An option of known kind and other length
// than its own is skipped.
void parse_options(const std::byte* p, uint32_t left, TcpSegment& out) noexcept {
  while (left > 0) {
    const auto kind = static_cast<OptionKind>(p[0]);
    if (kind == OptionKind::end) return;
    if (kind == OptionKind::no_operation) {
      ++p;
      --left;
      continue;
    }
    if (left < 2) return;
    const uint32_t length = std::to_integer<uint32_t>(p[1]);
    if (length < 2 || length > left) return;
    if (kind == OptionKind::mss && length == 4) {
      out.mss = load_be16(p + 2);
      out.options |= tcp_option::mss;
    } else if (kind == OptionKind::window_scale && length == 3) {
      out.window_scale = std::to_integer<uint8_t>(p[2]);
      out.options |= tcp_option::window_scale;
    } else if (kind == OptionKind::sack_permitted && length == 2) {
      out.options |= tcp_option::sack_permitted;
    } else if (kind == OptionKind::timestamps && length == 10) {
      out.ts_val = load_be32(p + 2);
      out.ts_ecr = load_be32(p + 6);
      out.options |= tcp_option::timestamps;
    } else if (kind == OptionKind::sack && length >= 10) {
      read_sack(p + 2, length - 2, out);
    }
    p += length;
    left -= length;
  }
}

// RFC 9293 section 3.1: the pseudo-header.
void add_pseudo_header(ChecksumSum& sum, const FourTuple& tuple, uint32_t tcp_length) noexcept {
  if (!tuple.is_ipv4())
    return add_ipv6_pseudo_header(sum, tuple.remote_ip, tuple.local_ip, ipv6_next::tcp, tcp_length);
  sum.add_be32(tuple.remote_ip.ipv4().value);
  sum.add_be32(tuple.local_ip.ipv4().value);
  sum.add_be16(ip_protocol::tcp);
  sum.add_be16(static_cast<uint16_t>(tcp_length));
}

void build_ipv4(const FourTuple& tuple, uint32_t payload_length, bool with_checksum, std::byte* ip) noexcept {
  store_be16(ip, 0x4500);
  store_be16(ip + 2, static_cast<uint16_t>(kIpv4HeaderBytes + payload_length));
  store_be16(ip + 4, 0);       // identification: of no use with DF (RFC 6864 section 4.1)
  store_be16(ip + 6, 0x4000);  // DF
  ip[8] = std::byte{64};
  ip[9] = std::byte{ip_protocol::tcp};
  store_be16(ip + 10, 0);
  store_be32(ip + 12, tuple.local_ip.ipv4().value);
  store_be32(ip + 16, tuple.remote_ip.ipv4().value);
  if (!with_checksum) return;
  ChecksumSum sum;
  sum.add({ip, kIpv4HeaderBytes});
  store_be16(ip + 10, sum.checksum());
}

// Returns the bytes of options, a multiple of 4.
uint32_t build_options(const OutSegment& segment, std::byte* const start) noexcept {
  std::byte* p = start;
  const auto put8 = [&p](uint32_t v) { *p++ = static_cast<std::byte>(v); };
  const auto put32 = [&p](uint32_t v) {
    store_be32(p, v);
    p += 4;
  };
  if ((segment.options & tcp_option::mss) != 0) put32(0x0204'0000U | segment.mss);
  if ((segment.options & tcp_option::timestamps) != 0) {
    put32((segment.options & tcp_option::sack_permitted) != 0 ? 0x0402'080aU : kTimestampLayout);
    put32(segment.ts_val);
    put32(segment.ts_ecr);
  } else if ((segment.options & tcp_option::sack_permitted) != 0) {
    put32(0x0101'0402U);
  }
  if ((segment.options & tcp_option::window_scale) != 0) put32(0x0103'0300U | segment.window_scale);
  const auto used = static_cast<uint32_t>(p - start);
  const uint32_t blocks = std::min<uint32_t>(segment.sack_count, (kTcpOptionBytesMax - used - 4) / 8);
  if (segment.sack_count > 0 && blocks > 0) {
    put8(1);
    put8(1);
    put8(static_cast<uint32_t>(OptionKind::sack));
    put8(2 + 8 * blocks);
    for (uint32_t i = 0; i < blocks; ++i) {
      put32(segment.sack[i].begin.value());
      put32(segment.sack[i].end.value());
    }
  }
  return static_cast<uint32_t>(p - start);
}

}  // namespace

WireCounter parse_segment(Bytes head, uint32_t frame_length, TcpSegment& out) noexcept {
  EthernetView ethernet;
  if (!parse_ethernet(head, ethernet)) return WireCounter::frame_too_short;
  if (frame_length < head.size()) [[unlikely]]
    head = head.first(frame_length);
  if (head.size() < ethernet.payload_offset) return WireCounter::frame_too_short;
  const uint32_t ip_offset = ethernet.payload_offset;
  uint32_t tcp_offset = 0;
  uint32_t tcp_length = 0;
  if (ethernet.type == ether_type::ipv4) [[likely]] {
    Ipv4View ip;
    const WireCounter fate = parse_ipv4(head.subspan(ip_offset), frame_length - ip_offset, ip);
    if (fate != WireCounter::segment_ok) [[unlikely]]
      return fate;
    if (ip.protocol != ip_protocol::tcp) [[unlikely]] {
      return ip.protocol == ip_protocol::icmp ? WireCounter::icmp : WireCounter::other_ip_protocol;
    }
    if (!plausible_source(ip.source)) return WireCounter::ip_header_bad;
    tcp_offset = ip_offset + ip.header_length;
    tcp_length = uint32_t{ip.total_length} - ip.header_length;
    out.tuple.remote_ip = ip.source;
    out.tuple.local_ip = ip.destination;
  } else if (ethernet.type == ether_type::ipv6) {
    Ipv6View ip;
    const WireCounter fate = parse_ipv6(head.subspan(ip_offset), frame_length - ip_offset, ip);
    if (fate != WireCounter::segment_ok) [[unlikely]]
      return fate;
    if (ip.protocol != ipv6_next::tcp) [[unlikely]] {
      return ip.protocol == ipv6_next::icmp ? WireCounter::icmp6 : WireCounter::other_ip_protocol;
    }
    if (!plausible_source(ip.source) || ip.destination.is_ipv4()) return WireCounter::ip_header_bad;
    tcp_offset = ip_offset + ip.header_length;
    tcp_length = ip.payload_length;
    out.tuple.remote_ip = ip.source;
    out.tuple.local_ip = ip.destination;
  } else {
    if (ethernet.type == ether_type::arp) return WireCounter::arp;
    const bool stacked = ethernet.type == ether_type::vlan || ethernet.type == ether_type::service_vlan;
    return stacked ? WireCounter::stacked_vlan : WireCounter::other_ethertype;
  }
  if (tcp_length < kTcpHeaderBytes) return WireCounter::tcp_header_bad;
  if (head.size() < tcp_offset + kTcpHeaderBytes) return WireCounter::frame_headers_split;
  const std::byte* tcp = head.data() + tcp_offset;
  const uint32_t header_length = (std::to_integer<uint32_t>(tcp[12]) >> 4) * 4;
  if (header_length < kTcpHeaderBytes || header_length > tcp_length) return WireCounter::tcp_header_bad;
  if (head.size() < tcp_offset + header_length) return WireCounter::frame_headers_split;

  out.tuple.remote_port = load_be16(tcp);
  out.tuple.local_port = load_be16(tcp + 2);
  if (out.tuple.remote_port == 0 || out.tuple.local_port == 0) return WireCounter::tcp_header_bad;
  out.seq = SeqNum{load_be32(tcp + 4)};
  out.ack = SeqNum{load_be32(tcp + 8)};
  out.flags = std::to_integer<uint8_t>(tcp[13]);
  out.window = load_be16(tcp + 14);
  out.payload_offset = static_cast<uint16_t>(tcp_offset + header_length);
  out.payload_length = tcp_length - header_length;
  out.ip_offset = static_cast<uint16_t>(ip_offset);
  out.tcp_offset = static_cast<uint16_t>(tcp_offset);
  out.tcp_length = static_cast<uint16_t>(tcp_length);
  out.link = ethernet.link;
  out.sack_count = 0;

  if (header_length == 32 && load_be32(tcp + 20) == kTimestampLayout) [[likely]] {
    out.options = tcp_option::timestamps;
    out.ts_val = load_be32(tcp + 24);
    out.ts_ecr = load_be32(tcp + 28);
  } else {
    out.options = 0;
    parse_options(tcp + kTcpHeaderBytes, header_length - kTcpHeaderBytes, out);
  }
  return WireCounter::segment_ok;
}

bool ip_checksum_ok(const TcpSegment& segment, Bytes head) noexcept {
  if (!segment.tuple.is_ipv4()) return true;
  ChecksumSum sum;
  sum.add(head.subspan(segment.ip_offset, uint32_t{segment.tcp_offset} - segment.ip_offset));
  return sum.folded() == 0xffff;
}

bool tcp_checksum_ok(const TcpSegment& segment, std::span<const Bytes> frame) noexcept {
  ChecksumSum sum;
  add_pseudo_header(sum, segment.tuple, segment.tcp_length);
  std::size_t skip = segment.tcp_offset;
  std::size_t left = segment.tcp_length;
  for (Bytes piece : frame) {
    if (skip >= piece.size()) {
      skip -= piece.size();
      continue;
    }
    piece = piece.subspan(skip);
    skip = 0;
    piece = piece.first(std::min(left, piece.size()));
    sum.add(piece);
    left -= piece.size();
    if (left == 0) break;
  }
  return left == 0 && sum.folded() == 0xffff;
}

uint32_t header_bytes(const OutSegment& segment) noexcept {
  std::array<std::byte, kTcpOptionBytesMax> options;
  return kEthernetHeaderBytes + (segment.link.tagged != 0 ? kVlanTagBytes : 0) +
         (segment.tuple.is_ipv4() ? kIpv4HeaderBytes : kIpv6HeaderBytes) + kTcpHeaderBytes +
         build_options(segment, options.data());
}

uint32_t build_segment(const OutSegment& segment, MutableBytes out, TxChecksum checksum) noexcept {
  if (segment.payload.size() > 65535 - kIpv4HeaderBytes - kTcpHeaderBytes - kTcpOptionBytesMax) return 0;
  if (out.size() < kHeaderBytesMax + segment.payload.size()) return 0;
  const bool ipv4 = segment.tuple.is_ipv4();
  const uint32_t ip_bytes = ipv4 ? kIpv4HeaderBytes : kIpv6HeaderBytes;
  const uint32_t ip_offset = build_ethernet(segment.link, ipv4 ? ether_type::ipv4 : ether_type::ipv6, out);
  std::byte* const ip = out.data() + ip_offset;
  std::byte* const tcp = ip + ip_bytes;
  const auto payload_length = static_cast<uint32_t>(segment.payload.size());
  const uint32_t header_length = kTcpHeaderBytes + build_options(segment, tcp + kTcpHeaderBytes);
  const uint32_t tcp_length = header_length + payload_length;
  if (ipv4)
    build_ipv4(segment.tuple, tcp_length, checksum != TxChecksum::both_by_port, ip);
  else
    build_ipv6(segment.tuple.local_ip, segment.tuple.remote_ip, ipv6_next::tcp, 64, tcp_length, ip);

  store_be16(tcp, segment.tuple.local_port);
  store_be16(tcp + 2, segment.tuple.remote_port);
  store_be32(tcp + 4, segment.seq.value());
  store_be32(tcp + 8, segment.ack.value());
  tcp[12] = static_cast<std::byte>(header_length / 4 << 4);
  tcp[13] = static_cast<std::byte>(segment.flags);
  store_be16(tcp + 14, segment.window);
  store_be32(tcp + 16, 0);  // checksum, urgent pointer
  std::byte* const payload = tcp + header_length;
  if (payload_length > 0 && segment.payload.data() != payload)
    std::memcpy(payload, segment.payload.data(), payload_length);

  ChecksumSum sum;
  add_pseudo_header(sum, segment.tuple, tcp_length);
  if (checksum == TxChecksum::full) {
    sum.add({tcp, tcp_length});
    store_be16(tcp + 16, sum.checksum());
  } else {
    store_be16(tcp + 16, __builtin_bswap16(sum.folded()));
  }
  return ip_offset + ip_bytes + tcp_length;
}

}  // namespace migrx
