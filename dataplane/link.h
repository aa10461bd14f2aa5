// One port as its poll core sees it: which frames are for us, and what is said below TCP (ARP and ICMP;
// neighbour discovery, multicast listener discovery and ICMPv6). TCP segments leave through it too.
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "dataplane/poll_counters.h"
#include "dataplane/port.h"
#include "dataplane/rate_limit.h"
#include "dataplane/wire/address.h"
#include "dataplane/wire/arp.h"
#include "dataplane/wire/icmp.h"
#include "dataplane/wire/icmp6.h"
#include "dataplane/wire/ndp.h"
#include "dataplane/wire/segment.h"

namespace migrx {

// One address of a port.
struct PortAddress {
  IpAddress ip;
  uint8_t prefix_length = 0;           // of the subnet; 0: everybody is a neighbour
  std::optional<IpAddress> gateway{};  // of the same family: who forwards to everybody else

  // Whose MAC address frames to `remote` bear.
  [[nodiscard]] IpAddress next_hop(const IpAddress& remote) const noexcept {
    const bool near = remote.is_link_local() || IpNetwork{ip, prefix_length}.contains(remote);
    return !gateway || near ? remote : *gateway;
  }
};

// What a poll core is told of a port. Two ports of a core must not have an address in common.
struct PollPort {
  static constexpr int32_t kAnyVlan = -1;  // untagged, or any tag; answers bear the tag of the question
  static constexpr std::size_t kAddressesMax = 8;
  PortQueue* queue = nullptr;          // not owned; outlives the core
  std::vector<PortAddress> addresses;  // 1 to kAddressesMax, of either family
  int32_t vlan = kAnyVlan;             // 0..4094: only frames with that tag
};

// What a neighbour said of where an address is, by ARP or by neighbour discovery.
struct NeighbourWord {
  IpAddress ip;
  EthernetAddress mac;
};

// Owned and called by one poll core. Nothing allocates after construction.
class Link {
 public:
  // The counters outlive the link.
  Link(PollPort port, PollCounters& counters, WireCounters& wire_counters);
  static constexpr uint32_t kEchoRepliesPerSecond = 1000;
  static constexpr uint32_t kListenerReportsPerSecond = 10;

  [[nodiscard]] PortQueue& queue() const noexcept { return *port_.queue; }
  [[nodiscard]] EthernetAddress mac() const noexcept { return mac_; }
  [[nodiscard]] bool has(const IpAddress& ip) const noexcept {
    if (ip == first_) [[likely]]
      return true;
    return find(ip) != nullptr;
  }
  // local: one of our addresses.
  [[nodiscard]] IpAddress next_hop(const IpAddress& local, const IpAddress& remote) const noexcept {
    const PortAddress* const address = find(local);
    return address != nullptr ? address->next_hop(remote) : remote;
  }

  // A packet to `to` that came in a frame `link` is for this port alone; a refusal is counted. Broadcasts and
  // group addresses are not: TCP has no business with them (RFC 9293 section 3.9.2.3).
  [[nodiscard]] bool takes(const FrameAddress& link, const IpAddress& to) noexcept {
    if (!takes(link)) [[unlikely]]
      return false;
    if (!has(to)) [[unlikely]] {
      wire_counters_.add(WireCounter::not_our_address);
      return false;
    }
    return true;
  }

  // The same for one to whichever address.
  [[nodiscard]] bool takes(const FrameAddress& link) noexcept {
    if (!same(link.local_mac, mac_)) [[unlikely]] {
      counters_.add(PollCounter::other_mac);
      return false;
    }
    return on_our_vlan(link);
  }

  // An ARP frame: answered if it asks for our address. Another host that says it has our address is counted
  // and contradicted, at most every 10 s (RFC 5227 section 2.4 (b)). True: it is well-formed, of our VLAN and
  // by a single other station, and `heard` holds it.
  bool on_arp(const Frame& frame, ArpPacket& heard, uint64_t now_ns) noexcept;
  // An ICMP packet: an echo request for us is answered.
  void on_icmp(const Frame& frame, uint64_t now_ns) noexcept;
  // An ICMPv6 packet: echo requests, solicitations and listener queries for us are answered; packet-too-big
  // asks for nothing, since nothing that we send is larger than any link must carry. Another host that has
  // our address is met as with ARP (RFC 4862 section 5.4.4, RFC 4861 section 7.2.6). True: it is neighbour
  // discovery, and `heard` holds it.
  bool on_icmp6(const Frame& frame, NdpPacket& heard, uint64_t now_ns) noexcept;
  // What such a packet says of where its sender is; nothing: it says nothing that may be believed. An
  // advertisement that does not override leaves everything as it is (RFC 4861 section 7.2.5).
  [[nodiscard]] static std::optional<NeighbourWord> word_of(const NdpPacket& heard) noexcept;

  // Tells everybody who has our addresses (RFC 5227 section 3, RFC 4861 section 7.2.6), and the switches
  // which groups we listen to.
  void announce() noexcept;
  // Asks where `ip` is, in the name of our address `from`; at most twice per second. `link`: the tag to ask
  // with.
  void ask(const IpAddress& from, const IpAddress& ip, const FrameAddress& link, uint64_t now_ns) noexcept;
  // The same, whenever: from an address that need not be ours.
  bool ask_now(const IpAddress& from, const IpAddress& ip, const FrameAddress& link) noexcept;

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
  bool send(const NdpPacket& packet) noexcept;
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
  [[nodiscard]] const PortAddress* find(const IpAddress& ip) const noexcept {
    for (const PortAddress& address : port_.addresses)
      if (address.ip == ip) return &address;
    return nullptr;
  }
  void on_conflict(uint64_t now_ns) noexcept;
  void on_echo6(const Icmp6View& view, uint64_t now_ns) noexcept;
  void report_groups() noexcept;
  [[nodiscard]] FrameAddress own_link() const noexcept;
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
  const IpAddress first_;          // of our addresses
  std::vector<IpAddress> groups_;  // of solicitations for them
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
  RateLimit report_limit_;
  uint32_t identification_ = 0;  // of the last reply
  IcmpEchoReply echo_;           // the one being answered
  Icmp6EchoReply echo6_;
};

}  // namespace migrx
