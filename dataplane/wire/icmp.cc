#include "dataplane/wire/icmp.h"

#include <cstring>

#include "dataplane/wire/checksum.h"
#include "dataplane/wire/ethernet.h"
#include "dataplane/wire/ipv4.h"
#include "dataplane/wire/segment.h"

namespace migrx {
namespace {

constexpr std::byte kEchoReply{0};
constexpr std::byte kEchoRequest{8};
constexpr uint32_t kIcmpHeaderBytes = 8;

bool sum_ok(Bytes bytes) noexcept {
  ChecksumSum sum;
  sum.add(bytes);
  return sum.folded() == 0xffff;
}

}  // namespace

uint32_t build_icmp_echo_reply(Bytes frame, Ipv4Address local_ip, MutableBytes out) noexcept {
  EthernetView ethernet;
  if (!parse_ethernet(frame, ethernet) || ethernet.type != ether_type::ipv4) return 0;
  const Bytes packet = frame.subspan(ethernet.payload_offset);
  Ipv4View ip;
  if (parse_ipv4(packet, static_cast<uint32_t>(packet.size()), ip) != WireCounter::segment_ok) return 0;
  if (ip.protocol != ip_protocol::icmp || ip.destination != local_ip || !plausible_source(ip.source))
    return 0;
  if (!sum_ok(packet.first(ip.header_length))) return 0;
  const Bytes icmp = packet.subspan(ip.header_length, uint32_t{ip.total_length} - ip.header_length);
  if (icmp.size() < kIcmpHeaderBytes || icmp[0] != kEchoRequest || icmp[1] != std::byte{0}) return 0;
  if (!sum_ok(icmp)) return 0;

  // The answer carries no IP options: a recorded route of the request would be wrong on the way back.
  const std::size_t length =
      kEthernetHeaderBytes + (ethernet.link.tagged != 0 ? kVlanTagBytes : 0) + kIpv4HeaderBytes + icmp.size();
  if (out.size() < length || out.size() < kEthernetHeaderBytes + kVlanTagBytes) return 0;
  std::byte* const reply_ip = out.data() + build_ethernet(ethernet.link, ether_type::ipv4, out);
  store_be16(reply_ip, 0x4500);
  store_be16(reply_ip + 2, static_cast<uint16_t>(kIpv4HeaderBytes + icmp.size()));
  store_be32(reply_ip + 4, 0x4000);  // identification 0, DF
  reply_ip[8] = std::byte{64};
  reply_ip[9] = std::byte{ip_protocol::icmp};
  store_be16(reply_ip + 10, 0);
  store_be32(reply_ip + 12, local_ip.value);
  store_be32(reply_ip + 16, ip.source.value);
  ChecksumSum ip_sum;
  ip_sum.add({reply_ip, kIpv4HeaderBytes});
  store_be16(reply_ip + 10, ip_sum.checksum());

  std::byte* const reply = reply_ip + kIpv4HeaderBytes;
  std::memcpy(reply, icmp.data(), icmp.size());
  reply[0] = kEchoReply;
  store_be16(reply + 2, 0);
  ChecksumSum sum;
  sum.add({reply, icmp.size()});
  store_be16(reply + 2, sum.checksum());
  return static_cast<uint32_t>(length);
}

}  // namespace migrx
