#include "dataplane/wire/mld.h"

#include <algorithm>

#include "dataplane/wire/ethernet.h"

namespace migrx {
namespace {

constexpr IpAddress kAllMldv2Routers{0xff02'0000'0000'0000, 0x16};
constexpr uint32_t kQueryBytes = 24;      // to the group's end, in both versions
constexpr uint32_t kChangeToExclude = 4;  // with no sources: everything is wanted
constexpr uint32_t kHopByHopBytes = 8;
constexpr uint32_t kReportHeaderBytes = 8;
constexpr uint32_t kRecordBytes = 20;

}  // namespace

bool is_mld_query(const Icmp6View& view, std::span<const IpAddress> groups) noexcept {
  // RFC 3810 section 5.1.14: anything else comes from elsewhere.
  if (view.type() != icmp6_type::listener_query || view.message.size() < kQueryBytes) return false;
  if (view.ip.hop_limit != 1 || !view.ip.source.is_link_local() || !view.ip.router_alert) return false;
  if (!icmp6_checksum_ok(view)) return false;
  IpAddress group;
  load_ipv6(view.message.data() + 8, group);
  return group.is_unspecified() || std::find(groups.begin(), groups.end(), group) != groups.end();
}

uint32_t build_mld_report(const IpAddress& source, std::span<const IpAddress> groups,
                          const FrameAddress& link, MutableBytes out) noexcept {
  groups = groups.first(std::min<std::size_t>(groups.size(), kMldGroupsMax));
  if (out.size() < kMldFrameBytesMax) return 0;
  FrameAddress to = link;
  to.remote_mac = multicast_mac(kAllMldv2Routers);
  const uint32_t ip_offset = build_ethernet(to, ether_type::ipv6, out);
  const auto bytes = static_cast<uint32_t>(kReportHeaderBytes + groups.size() * kRecordBytes);
  std::byte* const ip = out.data() + ip_offset;
  build_ipv6(source, kAllMldv2Routers, ipv6_next::hop_by_hop, 1, kHopByHopBytes + bytes, ip);
  // Router Alert of value 0, and two bytes of padding.
  store_be64(ip + kIpv6HeaderBytes, uint64_t{ipv6_next::icmp} << 56 | 0x0000'0502'0000'0100U);
  std::byte* const message = ip + kIpv6HeaderBytes + kHopByHopBytes;
  store_be32(message, uint32_t{icmp6_type::listener_report} << 24);
  store_be32(message + 4, static_cast<uint32_t>(groups.size()));
  for (std::size_t i = 0; i < groups.size(); ++i) {
    std::byte* const record = message + kReportHeaderBytes + i * kRecordBytes;
    store_be32(record, kChangeToExclude << 24);
    store_ipv6(record + 4, groups[i]);
  }
  put_icmp6_checksum(source, kAllMldv2Routers, {message, bytes});
  return ip_offset + kIpv6HeaderBytes + kHopByHopBytes + bytes;
}

}  // namespace migrx
