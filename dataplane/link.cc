#include "dataplane/link.h"

#include "dataplane/wire/icmp.h"

namespace migrx {

bool Link::on_arp(const Frame& frame, ArpPacket& heard) noexcept {
  if (!parse_arp({frame.data, frame.data_len}, heard) || !on_our_vlan(heard.link)) return false;
  ArpPacket reply;
  if (arp_reply_for(heard, mac_, port_.address, reply)) {
    send(reply);
    counters_.add(PollCounter::arp_replies);
  }
  return true;
}

void Link::on_icmp(const Frame& frame) noexcept {
  TxFrame tx;
  if (!port_.queue->tx_alloc(tx)) return counters_.add(PollCounter::tx_dropped);
  const uint32_t length = frame.nb_segs != 1 ? 0
                                             : build_icmp_echo_reply({frame.data, frame.data_len},
                                                                     port_.address, {tx.data, tx.capacity});
  port_.queue->tx_commit(length);
  if (length == 0) return;
  ++tx_queued_;
  counters_.add(PollCounter::icmp_replies);
}

void Link::announce() noexcept {
  ArpPacket announcement = arp_request_for(mac_, port_.address, port_.address);
  if (port_.vlan != PollPort::kAnyVlan) {
    announcement.link.tagged = 1;
    announcement.link.vlan_tci = static_cast<uint16_t>(port_.vlan);
  }
  send(announcement);
}

void Link::send(const ArpPacket& packet) noexcept {
  TxFrame frame;
  if (!port_.queue->tx_alloc(frame)) return counters_.add(PollCounter::tx_dropped);
  port_.queue->tx_commit(build_arp(packet, {frame.data, frame.capacity}));
  ++tx_queued_;
}

void Link::transmit(const OutSegment& segment) noexcept {
  TxFrame frame;
  if (!port_.queue->tx_alloc(frame)) return counters_.add(PollCounter::tx_dropped);
  const uint32_t length = build_segment(segment, {frame.data, frame.capacity}, TxChecksum::full);
  port_.queue->tx_commit(length);
  if (length == 0) return counters_.add(PollCounter::tx_dropped);
  ++tx_queued_;
}

void Link::flush() noexcept {
  if (tx_queued_ == 0) return;
  const uint32_t sent = port_.queue->tx_flush();
  counters_.add(PollCounter::tx_frames, sent);
  if (sent < tx_queued_) counters_.add(PollCounter::tx_dropped, tx_queued_ - sent);
  tx_queued_ = 0;
}

}  // namespace migrx
