// A poll core on a port made of memory, and peers that speak TCP to it by hand.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "dataplane/poll_core.h"
#include "dataplane/tcp/connection.h"
#include "dataplane/tenants.h"
#include "dataplane/wire/segment.h"
#include "tests/dataplane/memory_queue.h"

namespace migrx::testing {

inline constexpr EthernetAddress mac_of(uint8_t last) {
  return {{std::byte{0x02}, std::byte{0}, std::byte{0}, std::byte{0}, std::byte{0}, std::byte{last}}};
}
inline constexpr Ipv4Address kOurs{0x0a4d0002};    // 10.77.0.2
inline constexpr Ipv4Address kTheirs{0x0a4d0001};  // 10.77.0.1
inline constexpr IpAddress kOurs6{0xfd00'0000'0000'0000, 2};
inline constexpr IpAddress kTheirs6{0xfd00'0000'0000'0000, 1};
// Of the core's port `p`.
inline constexpr Ipv4Address address_of(uint32_t p) {
  return {kOurs.value + (p << 8)};
}
inline constexpr uint16_t kPort = 4444;

struct RigOptions {
  uint32_t cores = 1;
  uint32_t ports = 1;
  uint32_t buffers = 512;
  uint32_t buffer_bytes = 2048;
  uint32_t connections_max = 4;
  uint32_t handoff_slots = 63;
  uint16_t mss = 1460;
  int32_t vlan = PollPort::kAnyVlan;
  bool announce = false;
  uint8_t prefix_length = 0;
  std::optional<IpAddress> gateway{};
  std::vector<PortAddress> more_addresses{};  // of port 0
  AwaitedPorts* awaited = nullptr;
  // Makes a queue pair; empty: a MemoryQueue.
  std::function<std::unique_ptr<MemoryQueue>(MemoryPool&, EthernetAddress)> make_queue{};
};

class Rig {
 public:
  explicit Rig(const RigOptions& options = {}) : options_(options) {
    if (options.cores > 1)
      mesh = std::make_unique<PollMesh>(options.cores, options.connections_max * options.cores, 42);
    for (uint32_t i = 0; i < options.cores; ++i) {
      pools.push_back(std::make_unique<MemoryPool>(options.buffers, options.buffer_bytes));
      PollCoreConfig config;
      config.index = i;
      for (uint32_t p = 0; p < options.ports; ++p) {
        queues.push_back(options.make_queue ? options.make_queue(*pools[i], mac_of(2))
                                            : std::make_unique<MemoryQueue>(*pools[i], mac_of(2)));
        config.ports.push_back({queues.back().get(),
                                {PortAddress{address_of(p), options.prefix_length, options.gateway}},
                                options.vlan});
        if (p == 0)
          for (const PortAddress& more : options.more_addresses) config.ports[0].addresses.push_back(more);
      }
      config.connections_max = options.connections_max;
      config.handoff_slots = options.handoff_slots;
      config.tcp.mss = options.mss;
      config.tcp.buffer_bytes = options.buffer_bytes;
      config.tcp.room_behind = MemoryPool::room_behind;
      config.mesh = mesh.get();
      config.awaited = options.awaited;
      config.announce = options.announce;
      cores.push_back(std::make_unique<PollCore>(config));
      cores[i]->on_start();
      tenants.add(*cores[i]);
    }
    tenant = tenants.open({.port = kPort});
  }

  // Every core takes `turns` turns, one microsecond apart.
  void run(uint32_t turns = 4) {
    for (uint32_t turn = 0; turn < turns; ++turn) {
      now_ns += 1000;
      for (auto& core : cores) core->do_work(now_ns);
    }
  }
  void pass(uint64_t ns) {
    now_ns += ns;
    run();
  }
  void stop() {
    for (auto& core : cores) core->on_stop();
  }
  [[nodiscard]] uint32_t buffers_out(uint32_t core = 0) const {
    return pools[core]->total() - pools[core]->available();
  }
  [[nodiscard]] uint64_t count(PollCounter which, uint32_t core = 0) const {
    return cores[core]->counters().read(which);
  }
  [[nodiscard]] uint64_t count(WireCounter which, uint32_t core = 0) const {
    return cores[core]->wire_counters().read(which);
  }

  std::unique_ptr<PollMesh> mesh;
  std::vector<std::unique_ptr<MemoryPool>> pools;
  std::vector<std::unique_ptr<MemoryQueue>> queues;  // those of core 0 first
  std::vector<std::unique_ptr<PollCore>> cores;
  Tenants tenants;
  Tenant* tenant = nullptr;  // on kPort
  uint64_t now_ns = kNsPerSecond;

 private:
  RigOptions options_;
};

inline std::string text_of(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
inline Bytes bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}
// What a worker would see: reads, and releases, everything published.
inline std::string drain(Handoff& handoff, StreamEnd* end = nullptr) {
  std::string text;
  for (;;) {
    const std::span<const Slice> slices = handoff.readable();
    if (slices.empty()) return text;
    for (const Slice& slice : slices) {
      text += text_of({slice.data, slice.length});
      if (slice.end != StreamEnd::none && end != nullptr) *end = slice.end;
    }
    handoff.advance(static_cast<uint32_t>(slices.size()));
    handoff.release(static_cast<uint32_t>(slices.size()));
  }
}

// One connection as its source sees it. Sequence numbers begin near the wrap.
class Peer {
 public:
  Peer(Rig& rig, uint16_t port, uint32_t queue = 0) : rig_(rig), queue_(queue) {
    out_.tuple = {kOurs, kTheirs, kPort, port};  // remote is where it goes
    out_.link = {mac_of(2), mac_of(1), 0, 0};
    out_.window = 65535;
  }
  OutSegment& header() { return out_; }
  SeqNum next{0xffff'ff00};
  SeqNum heard_to;
  uint32_t queue_of() const { return queue_; }

  MemoryQueue::Packet frame(uint8_t flags, std::string_view payload = {}, uint8_t options = 0) {
    out_.seq = next;
    out_.ack = heard_to;
    out_.flags = flags;
    out_.options = options;
    out_.mss = 8960;
    out_.payload = bytes_of(payload);
    MemoryQueue::Packet packet(kHeaderBytesMax + payload.size());
    packet.resize(build_segment(out_, packet, TxChecksum::full));
    return packet;
  }
  void send(uint8_t flags, std::string_view payload = {}, uint8_t options = 0) {
    rig_.queues[queue_]->arrive(frame(flags, payload, options));
    advance(flags, payload.size());
  }
  void advance(uint8_t flags, std::size_t payload) {
    next += static_cast<uint32_t>(payload) + ((flags & (tcp_flag::syn | tcp_flag::fin)) != 0 ? 1 : 0);
  }
  void data(std::string_view payload) { send(tcp_flag::ack | tcp_flag::psh, payload); }

  // Segments for this connection sent since the last call, on any queue.
  std::vector<TcpSegment> hears() {
    std::vector<TcpSegment> heard;
    for (auto& queue : rig_.queues) {
      std::vector<MemoryQueue::Packet> others;
      for (MemoryQueue::Packet& packet : queue->sent) {
        TcpSegment segment;
        if (parse_segment(packet, static_cast<uint32_t>(packet.size()), segment) != WireCounter::segment_ok ||
            segment.tuple.remote_port != kPort || segment.tuple.local_port != out_.tuple.local_port) {
          others.push_back(std::move(packet));
          continue;
        }
        const Bytes whole{packet};
        EXPECT_TRUE(ip_checksum_ok(segment, whole));
        EXPECT_TRUE(tcp_checksum_ok(segment, std::span{&whole, 1}));
        EXPECT_EQ(segment.link.local_mac, mac_of(1));
        payload_heard += text_of(whole.subspan(segment.payload_offset, segment.payload_length));
        heard_to = segment.seq + segment.length();
        heard.push_back(segment);
      }
      queue->sent = std::move(others);
    }
    return heard;
  }
  std::string payload_heard;

  // SYN, SYN-ACK, ACK; the connection's Handoff, announced by `core`.
  Handoff* connect(uint32_t core = 0) {
    send(tcp_flag::syn, {}, tcp_option::mss);
    rig_.run();
    const std::vector<TcpSegment> answer = hears();
    EXPECT_EQ(answer.size(), 1U);
    if (answer.empty()) return nullptr;
    EXPECT_EQ(answer[0].flags, tcp_flag::syn | tcp_flag::ack);
    EXPECT_EQ(answer[0].ack, next);
    send(tcp_flag::ack);
    rig_.run();
    return rig_.cores[core]->take_accepted();
  }

 private:
  Rig& rig_;
  uint32_t queue_;
  OutSegment out_;
};

}  // namespace migrx::testing
