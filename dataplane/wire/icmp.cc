#include "dataplane/wire/icmp.h"

#include <algorithm>
#include <array>
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
constexpr uint32_t kFragmentUnit = 8;  // RFC 791 section 3.1: offsets count 8 octets
constexpr uint16_t kDontFragment = 0x4000;
constexpr uint16_t kMoreFragments = 0x2000;

bool sum_ok(Bytes bytes) noexcept {
  ChecksumSum sum;
  sum.add(bytes);
  return sum.folded() == 0xffff;
}

}  // namespace

bool IcmpEchoReply::take(Bytes frame, Ipv4Address local_ip) noexcept {
  icmp_ = {};
  written_ = 0;
  EthernetView ethernet;
  if (!parse_ethernet(frame, ethernet) || ethernet.type != ether_type::ipv4) return false;
  const Bytes packet = frame.subspan(ethernet.payload_offset);
  Ipv4View ip;
  if (parse_ipv4(packet, static_cast<uint32_t>(packet.size()), ip) != WireCounter::segment_ok) return false;
  if (ip.protocol != ip_protocol::icmp || ip.destination != local_ip || !plausible_source(ip.source))
    return false;
  if (!sum_ok(packet.first(ip.header_length))) return false;
  const Bytes icmp = packet.subspan(ip.header_length, uint32_t{ip.total_length} - ip.header_length);
  if (icmp.size() < kIcmpHeaderBytes || icmp[0] != kEchoRequest || icmp[1] != std::byte{0}) return false;
  if (!sum_ok(icmp)) return false;
  link_ = ethernet.link;
  local_ip_ = local_ip;
  remote_ip_ = ip.source;
  icmp_ = icmp;
  // The reply's type, code and checksum are 0 while it is summed up; all the rest is as in the request.
  ChecksumSum sum;
  sum.add(icmp.subspan(4));
  checksum_ = sum.checksum();
  return true;
}

uint32_t IcmpEchoReply::next(uint32_t mtu, uint16_t identification, MutableBytes out) noexcept {
  const uint32_t left = static_cast<uint32_t>(icmp_.size()) - written_;
  if (left == 0 || mtu < kIpv4HeaderBytes + kFragmentUnit) return 0;
  const uint32_t room = mtu - kIpv4HeaderBytes;
  const bool last = left <= room;
  const uint32_t bytes = last ? left : room / kFragmentUnit * kFragmentUnit;
  const std::size_t length =
      kEthernetHeaderBytes + (link_.tagged != 0 ? kVlanTagBytes : 0) + kIpv4HeaderBytes + bytes;
  if (out.size() < length || out.size() < kEthernetHeaderBytes + kVlanTagBytes) return 0;
  // The answer carries no IP options: a recorded route of the request would be wrong on the way back.
  std::byte* const ip = out.data() + build_ethernet(link_, ether_type::ipv4, out);
  const bool whole = last && written_ == 0;
  const uint32_t fragment = whole ? kDontFragment : (written_ / kFragmentUnit | (last ? 0 : kMoreFragments));
  store_be16(ip, 0x4500);
  store_be16(ip + 2, static_cast<uint16_t>(kIpv4HeaderBytes + bytes));
  store_be16(ip + 4, whole ? uint16_t{0} : identification);
  store_be16(ip + 6, static_cast<uint16_t>(fragment));
  ip[8] = std::byte{64};
  ip[9] = std::byte{ip_protocol::icmp};
  store_be16(ip + 10, 0);
  store_be32(ip + 12, local_ip_.value);
  store_be32(ip + 16, remote_ip_.value);
  ChecksumSum ip_sum;
  ip_sum.add({ip, kIpv4HeaderBytes});
  store_be16(ip + 10, ip_sum.checksum());

  std::byte* const reply = ip + kIpv4HeaderBytes;
  std::memcpy(reply, icmp_.data() + written_, bytes);
  if (written_ == 0) {
    reply[0] = kEchoReply;
    store_be16(reply + 2, checksum_);
  }
  written_ += bytes;
  return static_cast<uint32_t>(length);
}

}  // namespace migrx
