#include "dataplane/link.h"

#include <algorithm>

#include "dataplane/wire/ethernet.h"
#include "dataplane/wire/ipv4.h"

namespace migrx {
namespace {

constexpr uint64_t kDefendNs = 10 * kNsPerSecond;  // DEFEND_INTERVAL of RFC 5227
constexpr uint64_t kAskNs = kNsPerSecond / 2;
// Some virtual ports receive jumbo frames but send none, and one that is refused would hold up the others: a
// longer reply is sent in fragments.
constexpr uint32_t kReplyMtu = 1500;

}  // namespace

bool Link::on_arp(const Frame& frame, ArpPacket& heard, uint64_t now_ns) noexcept {
  if (!parse_arp({frame.data, frame.data_len}, heard) || !on_our_vlan(heard.link)) return false;
  ArpPacket reply;
  if (arp_reply_for(heard, mac_, port_.address, reply) && send(reply))
    counters_.add(PollCounter::arp_replies);
  const bool group = (heard.sender_mac.bytes[0] & std::byte{1}) != std::byte{0};
  if (group || heard.sender_mac == EthernetAddress{}) return false;
  // A peer may have our MAC address: the kernel's end of a net_tap interface has its port's.
  if (heard.sender_ip == port_.address) {
    if (heard.sender_mac == mac_) return false;
    counters_.add(PollCounter::address_conflicts);
    if (defended_ns_ == 0 || now_ns - defended_ns_ >= kDefendNs) {
      defended_ns_ = now_ns;
      announce();
    }
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
  if (!echo_.take(bytes, port_.address)) return;
  const uint16_t identification = ++identification_;
  for (;;) {
    if (!ready()) return counters_.add(PollCounter::tx_dropped);
    const uint32_t length = echo_.next(kReplyMtu, identification, {filling_.data, filling_.capacity});
    if (length == 0) break;
    commit(length);
  }
  counters_.add(PollCounter::icmp_replies);
}

void Link::announce() noexcept {
  ArpPacket announcement = arp_request_for(mac_, port_.address, port_.address);
  if (port_.vlan != PollPort::kAnyVlan) {
    announcement.link.tagged = 1;
    announcement.link.vlan_tci = static_cast<uint16_t>(port_.vlan);
  }
  static_cast<void>(send(announcement));
}

void Link::ask(Ipv4Address ip, const FrameAddress& link, uint64_t now_ns) noexcept {
  if (asked_ns_ != 0 && now_ns - asked_ns_ < kAskNs) return;
  ArpPacket question = arp_request_for(mac_, port_.address, ip);
  question.link.tagged = link.tagged;
  question.link.vlan_tci = link.vlan_tci;
  if (!send(question)) return;
  asked_ns_ = now_ns;
  counters_.add(PollCounter::neighbours_asked);
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
