// One port as its poll core sees it: which frames are for us, and what is said below TCP (ARP, ICMP). TCP
// segments leave through it too.
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>

#include "dataplane/poll_counters.h"
#include "dataplane/port.h"
#include "dataplane/rate_limit.h"
#include "dataplane/wire/address.h"
#include "dataplane/wire/arp.h"
#include "dataplane/wire/icmp.h"
#include "dataplane/wire/segment.h"

namespace migrx {

// What a poll core is told of a port. Two ports of a core must have different addresses.
struct PollPort {
  static constexpr int32_t kAnyVlan = -1;  // untagged, or any tag; answers bear the tag of the question
  PortQueue* queue = nullptr;              // not owned; outlives the core
  Ipv4Address address;
  int32_t vlan = kAnyVlan;               // 0..4094: only frames with that tag
  uint8_t prefix_length = 0;             // of the subnet; 0: everybody is a neighbour
  std::optional<Ipv4Address> gateway{};  // who forwards to everybody else

  // Whose MAC address frames to `remote` bear.
  [[nodiscard]] Ipv4Address next_hop(Ipv4Address remote) const noexcept {
    return !gateway || Ipv4Network{address, prefix_length}.contains(remote) ? remote : *gateway;
  }
};

// Owned and called by one poll core. Nothing allocates.
class Link {
 public:
  // The counters outlive the link.
  Link(const PollPort& port, PollCounters& counters, WireCounters& wire_counters) noexcept
      : port_(port),
        mac_(port.queue->mac()),
        counters_(counters),
        wire_counters_(wire_counters),
        icmp_limit_(kEchoRepliesPerSecond) {}
  static constexpr uint32_t kEchoRepliesPerSecond = 1000;

  [[nodiscard]] PortQueue& queue() const noexcept { return *port_.queue; }
  [[nodiscard]] EthernetAddress mac() const noexcept { return mac_; }
  [[nodiscard]] Ipv4Address address() const noexcept { return port_.address; }
  [[nodiscard]] Ipv4Address next_hop(Ipv4Address remote) const noexcept { return port_.next_hop(remote); }

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

  // An ARP frame: answered if it asks for our address. Another host that says it has our address is counted
  // and contradicted, at most every 10 s (RFC 5227 section 2.4 (b)). True: it is well-formed, of our VLAN and
  // by a single other station, and `heard` holds it.
  bool on_arp(const Frame& frame, ArpPacket& heard, uint64_t now_ns) noexcept;
  // An ICMP packet: an echo request for us is answered.
  void on_icmp(const Frame& frame, uint64_t now_ns) noexcept;

  // Tells everybody who has our address (RFC 5227 section 3).
  void announce() noexcept;
  // Asks where `ip` is; at most twice per second. `link`: the tag to ask with.
  void ask(Ipv4Address ip, const FrameAddress& link, uint64_t now_ns) noexcept;

  // There is a buffer and a place for one more frame. Before a machine is asked for its output: what it gives
  // it counts as sent.
  [[nodiscard]] bool ready() noexcept {
    if (filling_.data != nullptr) [[likely]]
      return true;
    return make_ready();
  }
  // The same, or the port has taken nothing for so long that machines are to go on as if it had: what they
  // give is then lost and counted.
  [[nodiscard]] bool ready_or_hopeless() noexcept { return ready() || hopeless_; }
  // Queue a packet. False: no room; counted, and lost unless the caller has it still.
  bool send(const ArpPacket& packet) noexcept;
  bool transmit(const OutSegment& segment) noexcept;
  // Sends what is queued, as far as the port takes it; the rest stays queued, in order. A port that takes
  // nothing for kStuckNs loses it all: what is old is of no use, and machines must not stand still with it.
  // Once per turn.
  void flush(uint64_t now_ns) noexcept {
    push();
    if (tx_queued_ > 0 || refused_) [[unlikely]]
      flush_stuck(now_ns);
  }
  [[nodiscard]] bool flushed() const noexcept { return tx_queued_ == 0; }
  // Gives up what is queued and the buffer at hand: the end.
  void drop_output() noexcept;
  static constexpr uint64_t kStuckNs = 200 * kNsPerMs;

 private:
  [[nodiscard]] bool make_ready() noexcept;
  void commit(uint32_t length) noexcept;
  void push() noexcept;
  void flush_stuck(uint64_t now_ns) noexcept;
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
  TxFrame filling_;             // data == nullptr: none at hand
  uint32_t tx_queued_ = 0;      // frames the port has not taken
  uint64_t stuck_ns_ = kNever;  // since when it takes none
  bool refused_ = false;        // no buffer, or no room, since the last flush
  bool hopeless_ = false;       // stuck for kStuckNs, and nothing has left since
  uint64_t defended_ns_ = 0;    // 0: never
  uint64_t asked_ns_ = 0;       // 0: never
  RateLimit icmp_limit_;
  uint16_t identification_ = 0;  // of the last reply
  IcmpEchoReply echo_;           // the one being answered
};

}  // namespace migrx
