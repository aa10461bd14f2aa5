// One poll core: takes frames from its queues, answers ARP, neighbour discovery and ping, runs TCP for its
// connections and hands their bytes to the loader. Everything a connection needs is here, so nothing is
// locked.
//
//   queue(s) ─rx─▶ parse ─▶ flow table ─▶ TcpConnection ─▶ Handoff ─▶ worker
//                    │          └ unknown ─▶ other core (PollMesh) | TcpListener | RST
//                    └ ARP, ICMP echo; neighbour discovery, ICMPv6
//   one turn: receive, adopt, reclaim and commands, output of touched connections, timers, tx flush, free
//
// With several poll cores a frame may arrive at a core that does not own its connection. That core forwards
// the frame through the PollMesh, and the owner adopts it. A connection is touched when this turn brought it
// a segment, a command or free buffers.
//
// Independent of DPDK: ports are PortQueue objects. Read port.h, dataplane/tcp/connection.h and handoff.h
// first.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "dataplane/awaited_ports.h"
#include "dataplane/connection_pool.h"
#include "dataplane/handoff/agent.h"
#include "dataplane/handoff/handoff.h"
#include "dataplane/link.h"
#include "dataplane/owner_table.h"
#include "dataplane/poll_counters.h"
#include "dataplane/port.h"
#include "dataplane/reset_modes.h"
#include "dataplane/tcp/config.h"
#include "dataplane/tcp/counters.h"
#include "dataplane/tcp/listener.h"
#include "dataplane/tenant.h"
#include "dataplane/wire/header_match.h"

namespace migrx {

struct PollCoreConfig {
  uint32_t index = 0;           // among the poll cores of the process
  std::vector<PollPort> ports;  // in the same order on every core
  // Connections this core can hold at the same time, those whose Handoff is still in use included. More SYNs
  // are refused. At most 4096.
  uint32_t connections_max = 17;
  // Packet buffers each of them may hold: slots of its Handoff, one less than a power of two
  // at best. tcp.buffer_quota, when set, may be less.
  // connections_max * handoff_slots buffers of the pool are spoken for.
  uint32_t handoff_slots = 1023;
  TcpConfig tcp;
  ListenerConfig listener;
  PollMesh* mesh = nullptr;         // not owned; nullptr: the only core
  AwaitedPorts* awaited = nullptr;  // not owned; nullptr: a SYN that nobody listens for gets RST
  // Announces its addresses when it starts and 2 s later (RFC 5227 section 3; Link::announce()), and when it
  // is asked to: one core per port should.
  bool announce = true;
  // Random; of the tables. Never bytes of the listener's secret: who finds out the one must not have the
  // other.
  uint64_t flow_seed = 0;
  // RSTs to segments that belong to no connection.
  uint32_t resets_per_second = 1000;
};

class PollCore final : public Agent {
 public:
  // Allocates everything: call it on a thread bound to the node of the core. Throws std::invalid_argument on
  // a configuration that cannot work.
  explicit PollCore(const PollCoreConfig& config);
  ~PollCore() override;
  PollCore(const PollCore&) = delete;
  PollCore& operator=(const PollCore&) = delete;

  // ---- The poll core's thread
  uint32_t do_work(uint64_t now_ns) noexcept override;
  void on_start() override;
  // Resets what is still open (the sources must not wait), then gives every buffer back.
  void on_stop() noexcept override;
  [[nodiscard]] const char* name() const noexcept override { return name_.c_str(); }

  // ---- The control thread
  // A new connection, once each: its Handoff, now ready for a worker. nullptr: none. The Handoff stays valid
  // until both detach() and retire() have been called on it; it belongs to this core all the while.
  [[nodiscard]] Handoff* take_accepted() noexcept;
  // Where the peer of such a connection is. Until it is retired.
  [[nodiscard]] const LostConnection& whereabouts(const Handoff& connection) const noexcept;
  // From now on this core resets the connections of a predecessor, so that their sources stop waiting
  // (dataplane/reset_mode.h), beside living connections. With refuses_all it resets its own connections too,
  // listens to nobody and answers everything with RST. False: ResetModes::kMax are under way. Allocates.
  bool request_reset_mode(const ResetModeConfig& config = {}) { return resets_.request(config); }
  // Reset mode was asked for, and every one is over.
  [[nodiscard]] bool reset_mode_over() const noexcept { return resets_.over(); }
  // From its next turn on it listens for a tenant, or no longer: SYNs and half-open handshakes get RST then,
  // connections that exist live on. At most Tenants::kMax tenants, each opened and closed once.
  void request(const TenantChange& change) noexcept {
    static_cast<void>(tenant_changes_.push(change));
    look_at_tenants();
  }
  // Something of a tenant has changed: it is to be opened or closed, or its silent peers are asked for.
  void look_at_tenants() noexcept {
    attention_asked_.fetch_add(1, std::memory_order_release);  // pairs with do_work()
  }
  // Announces its addresses anew: a link has come up, and switches beyond it may think otherwise.
  void request_announcement() noexcept { announce_requested_.store(true, std::memory_order_relaxed); }

  // ---- Any thread
  // Connections that TCP has not finished with.
  [[nodiscard]] uint32_t connections() const noexcept { return pool_.open_count(); }
  // Those, and those whose buffers or Handoff are still in use.
  [[nodiscard]] uint32_t connections_in_use() const noexcept { return pool_.used_count(); }
  [[nodiscard]] const PollCounters& counters() const noexcept { return counters_; }
  [[nodiscard]] const WireCounters& wire_counters() const noexcept { return wire_counters_; }
  [[nodiscard]] const TcpCounters& tcp_counters() const noexcept { return tcp_counters_; }
  [[nodiscard]] const PollCoreConfig& config() const noexcept { return config_; }

  // For tests and checkers, on the core's thread: connection `i` of config().connections_max; nullptr: free.
  [[nodiscard]] const TcpConnection* connection(uint32_t i) const noexcept;

 private:
  using Slot = ConnectionPool::Slot;

  uint32_t receive(uint32_t port_index, uint64_t now_ns) noexcept;
  uint32_t adopt_forwarded(uint64_t now_ns) noexcept;
  [[nodiscard]] bool take_predicted(const Frame& frame, uint32_t port_index, uint64_t now_ns) noexcept;
  void on_frame(const Frame& frame, uint32_t port_index, bool adopted, uint64_t now_ns) noexcept;
  void on_tcp(const Frame& frame, uint32_t port_index, bool adopted, uint64_t now_ns) noexcept;
  void on_unknown(uint32_t port_index, std::span<Slice> payload, uint64_t now_ns) noexcept;
  void on_arp(const Frame& frame, uint32_t port_index, uint64_t now_ns) noexcept;
  void on_icmp6(const Frame& frame, uint32_t port_index, uint64_t now_ns) noexcept;
  void on_neighbour(const NeighbourWord& word, uint32_t port_index) noexcept;
  void announce(uint64_t now_ns) noexcept;
  void take_tenant_changes() noexcept;
  void reset_half_open() noexcept;
  void tell_of_silent_peers() noexcept;
  [[nodiscard]] Tenant* tenant_on(uint16_t local_port) const noexcept;
  void give_place_back(Tenant& tenant) noexcept;
  void ask_for_silent_peer(const Slot& slot, uint64_t now_ns) noexcept;
  [[nodiscard]] bool forwarded(const Frame& frame, uint32_t port_index) noexcept;
  // The buffers of the frame, taken apart; empty: the frame was dropped.
  [[nodiscard]] std::span<Slice> take_apart(const Frame& frame) noexcept;
  [[nodiscard]] bool checksums_ok(const Frame& frame, std::span<const Slice> buffers) noexcept;
  // The slices that hold payload, cut to it; other buffers are dropped.
  [[nodiscard]] std::span<Slice> payload_of(std::span<Slice> buffers) noexcept;
  void deliver(uint32_t index, uint32_t port_index, std::span<Slice> payload, uint64_t now_ns) noexcept;
  void open_connection(const TcpHandshake& handshake, Tenant& tenant, uint32_t port_index,
                       std::span<Slice> payload, uint64_t now_ns) noexcept;
  void close_connection(uint32_t index) noexcept;
  uint32_t visit_some(uint32_t count, uint64_t now_ns) noexcept;
  uint32_t serve_touched(uint64_t now_ns) noexcept;
  uint32_t serve(uint32_t index, uint64_t now_ns) noexcept;
  void expire_timers(uint64_t now_ns) noexcept;
  void abort_all(uint64_t now_ns) noexcept;
  void step_reset_mode(uint64_t now_ns) noexcept;
  void on_lost(const Frame& frame, uint32_t port_index, uint64_t now_ns) noexcept;
  void send_probe(const ResetMode::Probe& probe, uint64_t now_ns) noexcept;
  void answer_with_reset(uint32_t port_index, uint64_t now_ns) noexcept;
  // Sends out_, unless it is a RST too many.
  void answer(uint32_t port_index, uint64_t now_ns) noexcept;
  [[nodiscard]] bool can_send() noexcept;  // by every port
  [[nodiscard]] Link& link_of(const IpAddress& local_ip) noexcept;
  void drop(void* buffer) noexcept;
  void drop_all(std::span<const Slice> slices) noexcept;
  void free_dropped() noexcept;

  const PollCoreConfig config_;
  const std::string name_;
  PollCounters counters_;
  WireCounters wire_counters_;
  TcpCounters tcp_counters_;
  std::vector<Link> links_;  // by port
  TcpListener listener_;
  ConnectionPool pool_;
  SpscRing<Handoff*> accepted_;  // to the control thread; has room for every slot, and none is in it twice

  // No connection's deadline lies before this; stale on the early side at worst, which costs one look.
  uint64_t next_deadline_ns_ = kNever;

  // Headers of the last segment with a connection, if they have the common layout, and whose they are.
  HeaderMatch predicted_headers_;
  uint32_t predicted_index_ = ConnectionPool::kNone;
  uint32_t predicted_port_ = 0;
  bool long_headers_ = false;  // the last segment's headers reached beyond HeaderMatch::kHeaderBytes

  ResetModes resets_;  // somebody lost is to be told
  std::atomic<bool> announce_requested_{false};
  SpscRing<TenantChange> tenant_changes_;     // control thread -> poll core
  std::vector<Tenant*> tenants_;              // it listens for; capacity Tenants::kMax, never grows
  std::vector<Tenant*> closing_;              // their half-open handshakes are being reset; likewise
  std::atomic<uint32_t> attention_asked_{0};  // times
  uint32_t attention_given_ = 0;
  uint64_t announce_ns_ = kNever;  // of the next announcement
  uint32_t announcements_left_ = 0;
  RateLimit reset_limit_;

  // Scratch of one turn.
  uint64_t segments_ok_ = 0;  // counted once per turn
  TcpSegment segment_;        // the one being looked at
  OutSegment out_;
  std::array<Frame, kBurst> frames_;
  std::array<Slice, kFrameSegmentsMax> slices_;
  static constexpr uint32_t kDroppedMax = 256;
  std::array<void*, kDroppedMax> dropped_;  // to be freed in bulk
  uint32_t dropped_count_ = 0;
};

}  // namespace migrx
