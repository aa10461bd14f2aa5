#include "dataplane/link.h"

#include <algorithm>

#include "dataplane/wire/ethernet.h"
#include "dataplane/wire/ipv4.h"
#include "dataplane/wire/mld.h"

namespace migrx {
namespace {

constexpr uint64_t kDefendNs = 10 * kNsPerSecond;  // DEFEND_INTERVAL of RFC 5227
constexpr uint64_t kAskNs = kNsPerSecond / 2;
// Some virtual ports receive jumbo frames but send none, and one that is refused would hold up the others: a
// longer reply is sent in fragments.
constexpr uint32_t kReplyMtu = 1500;

std::vector<IpAddress> groups_of(const PollPort& port) {
  std::vector<IpAddress> groups;
  for (const PortAddress& address : port.addresses) {
    const IpAddress group = solicited_node(address.ip);
    if (!address.ip.is_ipv4() && std::find(groups.begin(), groups.end(), group) == groups.end())
      groups.push_back(group);
  }
  return groups;
}

}  // namespace

Link::Link(PollPort port, PollCounters& counters, WireCounters& wire_counters)
    : port_(std::move(port)),
      mac_(port_.queue->mac()),
      first_(port_.addresses.front().ip),
      groups_(groups_of(port_)),
      counters_(counters),
      wire_counters_(wire_counters),
      icmp_limit_(kEchoRepliesPerSecond),
      report_limit_(kListenerReportsPerSecond) {}

FrameAddress Link::own_link() const noexcept {
  FrameAddress link;
  link.local_mac = mac_;
  if (port_.vlan != PollPort::kAnyVlan) {
    link.tagged = 1;
    link.vlan_tci = static_cast<uint16_t>(port_.vlan);
  }
  return link;
}

void Link::on_conflict(uint64_t now_ns) noexcept {
  counters_.add(PollCounter::address_conflicts);
  if (defended_ns_ != 0 && now_ns - defended_ns_ < kDefendNs) return;
  defended_ns_ = now_ns;
  announce();
}

bool Link::on_arp(const Frame& frame, ArpPacket& heard, uint64_t now_ns) noexcept {
  if (!parse_arp({frame.data, frame.data_len}, heard) || !on_our_vlan(heard.link)) return false;
  ArpPacket reply;
  const IpAddress wanted = heard.target_ip;
  if (has(wanted) && arp_reply_for(heard, mac_, heard.target_ip, reply) && send(reply))
    counters_.add(PollCounter::arp_replies);
  const bool group = (heard.sender_mac.bytes[0] & std::byte{1}) != std::byte{0};
  if (group || heard.sender_mac == EthernetAddress{}) return false;
  // A peer may have our MAC address: the kernel's end of a net_tap interface has its port's.
  if (has(heard.sender_ip)) {
    if (heard.sender_mac != mac_) on_conflict(now_ns);
    return false;
  }
  return true;
}

void Link::on_icmp(const Frame& frame, uint64_t now_ns) noexcept {
  if (frame.nb_segs != 1) return;
  const Bytes bytes{frame.data, frame.data_len};
  EthernetView ethernet;
  Ipv4View ip;
  if (!parse_ethernet(bytes, ethernet)) return;
  const Bytes packet = bytes.subspan(ethernet.payload_offset);
  if (parse_ipv4(packet, static_cast<uint32_t>(packet.size()), ip) != WireCounter::segment_ok) return;
  if (!takes(ethernet.link, ip.destination)) return;
  // Before the sum is formed, which costs as much as the answer.
  if (!icmp_limit_.take(now_ns)) return counters_.add(PollCounter::icmp_limited);
  if (!echo_.take(bytes, ip.destination)) return;
  const auto identification = static_cast<uint16_t>(++identification_);
  for (;;) {
    if (!ready()) return counters_.add(PollCounter::tx_dropped);
    const uint32_t length = echo_.next(kReplyMtu, identification, {filling_.data, filling_.capacity});
    if (length == 0) break;
    commit(length);
  }
  counters_.add(PollCounter::icmp_replies);
}

bool Link::on_icmp6(const Frame& frame, NdpPacket& heard, uint64_t now_ns) noexcept {
  if (frame.nb_segs != 1) return false;
  Icmp6View view;
  if (!parse_icmp6({frame.data, frame.data_len}, view)) return false;
  switch (view.type()) {
    case icmp6_type::echo_request:
      on_echo6(view, now_ns);
      return false;
    case icmp6_type::packet_too_big:
      if (takes(view.link, view.ip.destination)) counters_.add(PollCounter::packets_too_big);
      return false;
    case icmp6_type::listener_query:
      if (on_our_vlan(view.link) && is_mld_query(view, groups_) && report_limit_.take(now_ns))
        report_groups();
      return false;
    default:
      break;
  }
  // Questions come to a group, or to us alone where somebody makes sure that we are still there.
  const bool for_us =
      same(view.link.local_mac, mac_) ||
      (view.ip.destination.is_multicast() && same(view.link.local_mac, multicast_mac(view.ip.destination)));
  if (!for_us || !on_our_vlan(view.link) || !parse_ndp(view, heard)) return false;
  NdpPacket reply;
  if (has(heard.target) && ndp_reply_for(heard, mac_, heard.target, reply) && send(reply))
    counters_.add(PollCounter::neighbour_replies);
  // As with ARP, a peer may have our MAC address.
  const bool claims = heard.kind == NdpPacket::Kind::advertisement || heard.source.is_unspecified();
  if ((claims && has(heard.target)) || has(heard.source)) {
    if (heard.link.remote_mac != mac_) on_conflict(now_ns);
    return false;
  }
  return true;
}

void Link::on_echo6(const Icmp6View& view, uint64_t now_ns) noexcept {
  if (!takes(view.link, view.ip.destination)) return;
  if (!icmp_limit_.take(now_ns)) return counters_.add(PollCounter::icmp_limited);
  if (!echo6_.take(view, view.ip.destination)) return;
  const uint32_t identification = ++identification_;
  for (;;) {
    if (!ready()) return counters_.add(PollCounter::tx_dropped);
    const uint32_t length = echo6_.next(kIpv6MtuMin, identification, {filling_.data, filling_.capacity});
    if (length == 0) break;
    commit(length);
  }
  counters_.add(PollCounter::icmp_replies);
}

std::optional<NeighbourWord> Link::word_of(const NdpPacket& heard) noexcept {
  if (heard.kind == NdpPacket::Kind::solicitation) {
    if (heard.source.is_unspecified() || !heard.has_mac) return std::nullopt;
    return NeighbourWord{heard.source, heard.mac};
  }
  // An answer to a question of ours bears the address of its sender's frame where it bears no other (RFC 4861
  // section 4.4 lets it); one that nobody asked for must say what it overrides.
  if (!heard.overrides || (!heard.has_mac && !heard.solicited)) return std::nullopt;
  return NeighbourWord{heard.target, heard.has_mac ? heard.mac : heard.link.remote_mac};
}

void Link::announce() noexcept {
  const FrameAddress link = own_link();
  report_groups();
  for (const PortAddress& address : port_.addresses) {
    if (address.ip.is_ipv4()) {
      ArpPacket announcement = arp_request_for(mac_, address.ip.ipv4(), address.ip.ipv4());
      announcement.link.tagged = link.tagged;
      announcement.link.vlan_tci = link.vlan_tci;
      static_cast<void>(send(announcement));
    } else {
      NdpPacket announcement = ndp_announcement_of(mac_, address.ip);
      announcement.link.tagged = link.tagged;
      announcement.link.vlan_tci = link.vlan_tci;
      static_cast<void>(send(announcement));
    }
  }
}

void Link::report_groups() noexcept {
  if (groups_.empty()) return;
  if (!ready()) return counters_.add(PollCounter::tx_dropped);
  // Without a link-local address of our own the report is nobody's: it is for switches.
  commit(build_mld_report(IpAddress{}, groups_, own_link(), {filling_.data, filling_.capacity}));
}

void Link::ask(const IpAddress& from, const IpAddress& ip, const FrameAddress& link,
               uint64_t now_ns) noexcept {
  if (asked_ns_ != 0 && now_ns - asked_ns_ < kAskNs) return;
  if (!ask_now(from, ip, link)) return;
  asked_ns_ = now_ns;
  counters_.add(PollCounter::neighbours_asked);
}

bool Link::ask_now(const IpAddress& from, const IpAddress& ip, const FrameAddress& link) noexcept {
  if (from.is_ipv4() != ip.is_ipv4()) return false;
  if (ip.is_ipv4()) {
    ArpPacket question = arp_request_for(mac_, from.ipv4(), ip.ipv4());
    question.link.tagged = link.tagged;
    question.link.vlan_tci = link.vlan_tci;
    return send(question);
  }
  NdpPacket question = ndp_solicitation_for(mac_, from, ip);
  question.link.tagged = link.tagged;
  question.link.vlan_tci = link.vlan_tci;
  return send(question);
}

bool Link::make_ready() noexcept {
  if (port_.queue->tx_alloc(filling_)) return true;
  push();  // some ports have buffers again only after they have sent
  if (port_.queue->tx_alloc(filling_)) return true;
  filling_ = {};
  refused_ = true;
  counters_.add(PollCounter::tx_full);
  return false;
}

void Link::commit(uint32_t length) noexcept {
  port_.queue->tx_commit(length);
  filling_ = {};
  if (length > 0) ++tx_queued_;
}

bool Link::send(const ArpPacket& packet) noexcept {
  if (!ready()) {
    counters_.add(PollCounter::tx_dropped);
    return false;
  }
  commit(build_arp(packet, {filling_.data, filling_.capacity}));
  return true;
}

bool Link::send(const NdpPacket& packet) noexcept {
  if (!ready()) {
    counters_.add(PollCounter::tx_dropped);
    return false;
  }
  commit(build_ndp(packet, {filling_.data, filling_.capacity}));
  return true;
}

bool Link::transmit(const OutSegment& segment) noexcept {
  const uint32_t length =
      ready() ? build_segment(segment, {filling_.data, filling_.capacity}, TxChecksum::full) : 0;
  if (length == 0) {
    counters_.add(PollCounter::tx_dropped);
    return false;
  }
  commit(length);
  return true;
}

void Link::push() noexcept {
  if (tx_queued_ == 0) return;
  const uint32_t sent = port_.queue->tx_push();
  counters_.add(PollCounter::tx_frames, sent);
  tx_queued_ -= sent;
  if (sent > 0) stuck_ns_ = kNever;
  hopeless_ = hopeless_ && sent == 0;
}

void Link::flush_stuck(uint64_t now_ns) noexcept {
  refused_ = false;
  push();
  // A port that has a buffer again, and nothing to send, is as good as one that sends.
  if (tx_queued_ == 0 && ready()) {
    refused_ = false;
    hopeless_ = false;
    stuck_ns_ = kNever;
    return;
  }
  if (stuck_ns_ == kNever) stuck_ns_ = now_ns;
  if (now_ns < stuck_ns_ + kStuckNs) return;
  hopeless_ = true;
  drop_output();
}

void Link::drop_output() noexcept {
  if (filling_.data != nullptr) port_.queue->tx_commit(0);
  filling_ = {};
  if (tx_queued_ == 0) return;
  const uint32_t sent = port_.queue->tx_flush();
  counters_.add(PollCounter::tx_frames, sent);
  counters_.add(PollCounter::tx_dropped, tx_queued_ - sent);
  tx_queued_ = 0;
}

}  // namespace migrx
