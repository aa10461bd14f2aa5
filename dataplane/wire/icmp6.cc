#include "dataplane/wire/icmp6.h"

#include "dataplane/wire/checksum.h"
#include "dataplane/wire/ethernet.h"
#include "dataplane/wire/segment.h"

namespace migrx {
namespace {

constexpr uint32_t kMessageBytesMin = 8;
constexpr uint32_t kFragmentHeaderBytes = 8;
constexpr uint32_t kFragment6Unit = 8;  // RFC 8200 section 4.5

}  // namespace

bool parse_icmp6(Bytes frame, Icmp6View& out) noexcept {
  EthernetView ethernet;
  if (!parse_ethernet(frame, ethernet) || ethernet.type != ether_type::ipv6) return false;
  const Bytes packet = frame.subspan(ethernet.payload_offset);
  if (parse_ipv6(packet, static_cast<uint32_t>(packet.size()), out.ip) != WireCounter::segment_ok)
    return false;
  if (out.ip.protocol != ipv6_next::icmp || out.ip.payload_length < kMessageBytesMin) return false;
  out.link = ethernet.link;
  out.message = packet.subspan(out.ip.header_length, out.ip.payload_length);
  return out.message[1] == std::byte{0};
}

bool icmp6_checksum_ok(const Icmp6View& view) noexcept {
  ChecksumSum sum;
  add_ipv6_pseudo_header(sum, view.ip.source, view.ip.destination, ipv6_next::icmp,
                         static_cast<uint32_t>(view.message.size()));
  sum.add(view.message);
  return sum.folded() == 0xffff;
}

void put_icmp6_checksum(const IpAddress& source, const IpAddress& destination,
                        MutableBytes message) noexcept {
  ChecksumSum sum;
  add_ipv6_pseudo_header(sum, source, destination, ipv6_next::icmp, static_cast<uint32_t>(message.size()));
  sum.add(message);
  store_be16(message.data() + 2, sum.checksum());
}

bool Icmp6EchoReply::take(const Icmp6View& request, const IpAddress& local_ip) noexcept {
  message_ = {};
  written_ = 0;
  if (request.type() != icmp6_type::echo_request || request.ip.destination != local_ip ||
      !plausible_source(request.ip.source) || !icmp6_checksum_ok(request))
    return false;
  link_ = request.link;
  local_ip_ = local_ip;
  remote_ip_ = request.ip.source;
  message_ = request.message;
  ChecksumSum sum;
  add_ipv6_pseudo_header(sum, local_ip_, remote_ip_, ipv6_next::icmp, static_cast<uint32_t>(message_.size()));
  sum.add_be16(uint16_t{icmp6_type::echo_reply} << 8);
  sum.add(message_.subspan(4));
  checksum_ = sum.checksum();
  return true;
}

uint32_t Icmp6EchoReply::next(uint32_t mtu, uint32_t identification, MutableBytes out) noexcept {
  const uint32_t left = static_cast<uint32_t>(message_.size()) - written_;
  if (left == 0 || mtu < kIpv6MtuMin) return 0;
  const bool whole = written_ == 0 && left <= mtu - kIpv6HeaderBytes;
  const uint32_t header = kIpv6HeaderBytes + (whole ? 0 : kFragmentHeaderBytes);
  const bool last = left <= mtu - header;
  const uint32_t bytes = last ? left : (mtu - header) / kFragment6Unit * kFragment6Unit;
  if (out.size() < kEthernetHeaderBytes + kVlanTagBytes + header + bytes) return 0;
  const uint32_t ip_offset = build_ethernet(link_, ether_type::ipv6, out);
  std::byte* const ip = out.data() + ip_offset;
  build_ipv6(local_ip_, remote_ip_, whole ? ipv6_next::icmp : ipv6_next::fragment, 64,
             header - kIpv6HeaderBytes + bytes, ip);
  if (!whole) {
    std::byte* const fragment = ip + kIpv6HeaderBytes;
    store_be16(fragment, uint16_t{ipv6_next::icmp} << 8);
    store_be16(fragment + 2, static_cast<uint16_t>(written_ | (last ? 0U : 1U)));
    store_be32(fragment + 4, identification);
  }
  std::byte* const reply = ip + header;
  std::memcpy(reply, message_.data() + written_, bytes);
  if (written_ == 0) {
    reply[0] = std::byte{icmp6_type::echo_reply};
    store_be16(reply + 2, checksum_);
  }
  written_ += bytes;
  return ip_offset + header + bytes;
}

}  // namespace migrx
