// One port as its poll core sees it: which frames are for us, and what is said below TCP (ARP, ICMP). TCP
// segments leave through it too.
#pragma once

#include <cstdint>
#include <cstring>

#include "dataplane/poll_counters.h"
#include "dataplane/port.h"
#include "dataplane/wire/address.h"
#include "dataplane/wire/arp.h"
#include "dataplane/wire/segment.h"

namespace migrx {

// What a poll core is told of a port. Two ports of a core must have different addresses.
struct PollPort {
  static constexpr int32_t kAnyVlan = -1;  // untagged, or any tag; answers bear the tag of the question
  PortQueue* queue = nullptr;              // not owned; outlives the core
  Ipv4Address address;
  int32_t vlan = kAnyVlan;  // 0..4094: only frames with that tag
};

// Owned and called by one poll core. Nothing allocates.
class Link {
 public:
  // The counters outlive the link.
  Link(const PollPort& port, PollCounters& counters, WireCounters& wire_counters) noexcept
      : port_(port), mac_(port.queue->mac()), counters_(counters), wire_counters_(wire_counters) {}

  [[nodiscard]] PortQueue& queue() const noexcept { return *port_.queue; }
  [[nodiscard]] EthernetAddress mac() const noexcept { return mac_; }
  [[nodiscard]] Ipv4Address address() const noexcept { return port_.address; }

  // A packet to `to` that came in a frame `link` is for this port alone; a refusal is counted. Broadcasts and
  // group addresses are not: TCP has no business with them (RFC 9293 section 3.9.2.3).
  [[nodiscard]] bool takes(const FrameAddress& link, Ipv4Address to) noexcept {
    if (!same(link.local_mac, mac_)) [[unlikely]] {
      counters_.add(PollCounter::other_mac);
      return false;
    }
    if (!on_our_vlan(link)) [[unlikely]]
      return false;
    if (to != port_.address) [[unlikely]] {
      wire_counters_.add(WireCounter::not_our_address);
      return false;
    }
    return true;
  }

  // An ARP frame: answered if it asks for our address. True: it is well-formed and of our VLAN, and `heard`
  // holds it.
  bool on_arp(const Frame& frame, ArpPacket& heard) noexcept;
  // An ICMP packet: an echo request for us is answered.
  void on_icmp(const Frame& frame) noexcept;

  // Tells everybody who has our address (RFC 5227 section 3).
  void announce() noexcept;
  void send(const ArpPacket& packet) noexcept;
  // Queues a segment; what finds no place is counted and lost.
  void transmit(const OutSegment& segment) noexcept;
  // Sends what is queued. Once per turn.
  void flush() noexcept;

 private:
  // Two loads each instead of a loop over six bytes.
  [[gnu::always_inline]] static bool same(const EthernetAddress& a, const EthernetAddress& b) noexcept {
    uint32_t a4, b4;
    uint16_t a2, b2;
    std::memcpy(&a4, a.bytes.data(), 4);
    std::memcpy(&b4, b.bytes.data(), 4);
    std::memcpy(&a2, a.bytes.data() + 4, 2);
    std::memcpy(&b2, b.bytes.data() + 4, 2);
    return a4 == b4 && a2 == b2;
  }
  [[nodiscard]] bool on_our_vlan(const FrameAddress& link) noexcept {
    constexpr uint16_t kVlanIdMask = 0x0fff;
    if (port_.vlan == PollPort::kAnyVlan) return true;
    if (link.tagged != 0 && (link.vlan_tci & kVlanIdMask) == port_.vlan) return true;
    counters_.add(PollCounter::other_vlan);
    return false;
  }

  const PollPort port_;
  const EthernetAddress mac_;
  PollCounters& counters_;
  WireCounters& wire_counters_;
  uint32_t tx_queued_ = 0;  // since the last flush
};

}  // namespace migrx
