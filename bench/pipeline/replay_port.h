// A port whose wire is a source of its own: the frames of one main and N multifd connections of one
// migration, made in memory as they are asked for.
//
// It is a TCP peer as far as these wires need one: handshake, sequence numbers, timestamps, and it sends no
// byte beyond the window that the receiver's ACKs announce. On request every Nth segment is lost, and comes
// again one round trip after the receiver's SACK told of the hole; there is no congestion control. Payload is
// not copied: a buffer holds bytes of its own, no other's, and making a frame writes the headers (one line,
// two of IPv6) and what is the stream's own (packet headers, page stamps), and nothing else: lines that the
// receiver read last are dear, and a device would not make this core pay for them. What a buffer's earlier
// uses left in it is sent again; which buffer bore which segment is noted (uses()), so that replay_check.h
// can tell afterwards what was sent. Frames are made some way ahead of the receiver, as a device fills its
// descriptors, and then sent away from the first levels of cache. What that costs is measured apart
// (source_cycles), for at a real port the device does it.
#pragma once

#include <array>
#include <memory>
#include <span>
#include <vector>

#include "bench/pipeline/guest_plan.h"
#include "bench/pipeline/memory.h"
#include "dataplane/port.h"
#include "dataplane/wire/segment.h"

namespace migrx::bench {

struct ReplayOptions {
  uint32_t mtu = 1500;
  bool ipv6 = false;
  uint32_t buffers = 16384;
  // Segments of one connection that come one behind the other before it is the next one's turn: what a
  // sender's segmentation offload makes of its writes.
  uint32_t run = 16;
  bool checksum_good = true;  // else the port says nothing about TCP's, and frames carry a right one
  // What was written of a frame is sent away from the first two levels of cache, as if a device had written
  // it.
  bool demote = true;
  // Frames given by one rx_burst at most.
  uint32_t burst = kBurst;
  // Consecutive segments of one connection are given as one frame, a chain of their buffers with the headers
  // of the first, up to so many bytes of payload: what a device's receive coalescing (LRO) makes of them. 0:
  // each by itself. Only with checksum_good: no device coalesces what it has not verified.
  uint32_t coalesce_bytes = 0;
  // Every Nth segment of the multifd channels is lost once; 0: none.
  uint32_t drop_every = 0;
  // No handshake: connections are ESTABLISHED from the start, for driving parts of a receiver by themselves.
  bool established = false;
  uint32_t first_window = 65535;  // what the receiver has promised by then, bytes
  // The window does not count: nobody there to open it.
  bool boundless = false;
};

class ReplayPort final : public PortQueue {
 public:
  ReplayPort(const ReplayOptions& options, const GuestPlan& plan);
  ~ReplayPort() override;

  // Payload of a full segment: MTU without headers of 20 + 32 bytes, or 40 + 32.
  [[nodiscard]] uint32_t segment_bytes() const noexcept { return segment_bytes_; }
  [[nodiscard]] static uint32_t segment_bytes_of(uint32_t mtu, bool ipv6) noexcept {
    return mtu + kEthernetHeaderBytes - header_bytes_of(ipv6);
  }
  // Room of one packet buffer of a port of that MTU.
  [[nodiscard]] static uint32_t buffer_bytes_of(uint32_t mtu) noexcept;
  // From one buffer to the next.
  [[nodiscard]] static uint32_t stride_of(uint32_t mtu) noexcept;
  // Segments in the order in which they were made: which connection's, in which buffer.
  struct Use {
    uint32_t connection : 8;  // channels() is main
    uint32_t buffer : 24;
  };
  static_assert(sizeof(Use) == 4);
  [[nodiscard]] std::span<const Use> uses() const noexcept { return {uses_.data(), use_count_}; }
  // What stood in the payload of buffer i before its first use: words that no other buffer holds, so that a
  // line of another buffer, or of another place in this one, never looks right.
  void fill_fresh(uint32_t i, MutableBytes payload) const noexcept;

  // The payload of packet buffer i, for measuring what copying alone takes.
  [[nodiscard]] Bytes payload(uint32_t i) const noexcept {
    return {memory_.data() + std::size_t{i} * stride_of(options_.mtu) + kHeadroom + header_bytes_,
            segment_bytes_};
  }

  // Main's stream whole, and the first segment of each channel, have been sent; the rest waits for
  // open_gate().
  [[nodiscard]] bool at_gate() const noexcept;
  void open_gate() noexcept { gate_open_ = true; }
  // Every byte has been sent and acknowledged, and so have the FINs.
  [[nodiscard]] bool all_acknowledged() const noexcept;

  struct Counters {
    uint64_t segments = 0;  // with payload
    uint64_t frame_bytes = 0;
    uint64_t wire_bytes = 0;  // with preamble, frame check sequence and gap: 24 bytes each
    uint64_t acks = 0;        // received by the source
    uint64_t no_buffer = 0;   // the pool was empty when a frame was due: the receiver broke its promise
    uint64_t frames = 0;      // given to the receiver; of coalesced segments, one
    uint64_t resets = 0;      // RSTs received
    uint64_t lost = 0;        // segments that were dropped on the way
    uint64_t resent = 0;      // of these, sent again
    uint64_t timeouts = 0;    // of these, without having been asked for by a SACK
    uint64_t source_cycles = 0;
    uint64_t busy_source_cycles = 0;  // of rx bursts in which frames were made, and of ACKs
  };
  [[nodiscard]] const Counters& counters() const noexcept { return counters_; }
  void reset_counters() noexcept { counters_ = {}; }
  // Cycles since construction or reset that were the source's; read it around do_work().
  [[nodiscard]] uint64_t source_cycles() const noexcept { return counters_.source_cycles; }

  // ---- PortQueue
  uint32_t rx_burst(std::span<Frame> out) noexcept override;
  uint32_t unchain(const Frame& frame, std::span<Slice> out) noexcept override;
  void free_bulk(std::span<void* const> buffers) noexcept override;
  bool adopt(const Frame& foreign, Frame& own) noexcept override;
  bool tx_alloc(TxFrame& out) noexcept override;
  void tx_commit(uint32_t length) noexcept override;
  uint32_t tx_flush() noexcept override;
  [[nodiscard]] EthernetAddress mac() const noexcept override;
  [[nodiscard]] uint32_t buffer_bytes() const noexcept override { return buffer_bytes_of(options_.mtu); }
  [[nodiscard]] uint32_t buffers_total() const noexcept override { return options_.buffers; }
  [[nodiscard]] uint32_t buffers_available() const noexcept override {
    return static_cast<uint32_t>(free_tail_ - free_head_);
  }

  // For receivers that take part without a handshake (ReplayOptions::established). Connection i of
  // connections(): its tuple as the receiver sees it, and the number of its first byte.
  [[nodiscard]] uint32_t connections() const noexcept { return static_cast<uint32_t>(connections_.size()); }
  [[nodiscard]] FourTuple tuple_of(uint32_t i) const noexcept {
    return {source(), receiver(), connections_[i].port, kListenPort};
  }
  [[nodiscard]] SeqNum first_byte_of(uint32_t i) const noexcept;
  // The receiver's, whose window scale the source takes for agreed.
  static constexpr SeqNum kReceiverIss{5'000};
  [[nodiscard]] static uint8_t receiver_shift() noexcept;

  // 10.77.0.2 and 10.77.0.1, or fd00:77::2 and fd00:77::1.
  [[nodiscard]] IpAddress receiver() const noexcept { return address_of(2); }
  [[nodiscard]] IpAddress source() const noexcept { return address_of(1); }
  static constexpr uint16_t kListenPort = 4444;

 private:
  // In front of each buffer's frame, where DPDK has its rte_mbuf and headroom.
  static constexpr uint32_t kHeadroom = 256;
  static constexpr uint32_t kLine = 64;
  static constexpr uint32_t kTimestampBytes = 12;
  // All headers.
  static constexpr uint32_t kIpv4Bytes =
      kEthernetHeaderBytes + kIpv4HeaderBytes + kTcpHeaderBytes + kTimestampBytes;
  static constexpr uint32_t kIpv6Bytes = kIpv4Bytes - kIpv4HeaderBytes + kIpv6HeaderBytes;
  [[nodiscard]] static constexpr uint32_t header_bytes_of(bool ipv6) noexcept {
    return ipv6 ? kIpv6Bytes : kIpv4Bytes;
  }
  // Of these, what is not written for each segment: the lower half of TSecr, which is always 0. This source
  // echoes its peer's clock in steps of a minute, and nobody measures anything by it. With IPv4 the rest is
  // one line.
  static constexpr uint32_t kUnwritten = 2;
  static_assert(kIpv4Bytes - kUnwritten == kLine);
  static constexpr uint32_t kEchoMask = 0xffff'0000;
  // The frames of SYN and FIN begin a line earlier, so that they end before the payload.
  static constexpr uint32_t kControlEarlier = 64;

  struct Connection {
    enum class State : uint8_t { closed, syn_sent, established, fin_sent };
    State state = State::closed;
    bool fin_acked = false;
    uint8_t shift = 0;     // of the receiver's window
    uint32_t next = 0;     // sequence number to send
    uint32_t acked = 0;    // last acknowledgment
    uint32_t edge = 0;     // right edge of the window
    uint32_t ts_echo = 0;  // newest TSval of the receiver
    uint64_t sent = 0;     // payload bytes
    uint64_t bytes = 0;    // of the whole stream
    uint16_t port = 0;
    std::array<std::byte, kIpv6Bytes> header{};  // of its next data segment, but for what changes
    std::unique_ptr<ChannelScript> script;       // null: main
  };

  // A frame, and what was written into its payload.
  struct Made {
    Frame frame;
    uint32_t pieces = 0;
    std::array<ChannelScript::Piece, ChannelScript::kPiecesMax> piece;
  };
  // A segment that was dropped; its buffer stays with the source.
  struct Lost {
    Frame frame;
    uint32_t connection = 0;
    uint32_t seq = 0;
    uint32_t since_ms = 0;
    uint64_t due = 0;  // number of the frame before which it comes again; 0: nobody has asked yet
  };
  // From a SACK to the segment that it asks for, in frames: 100 GbE and 30 microseconds.
  static constexpr uint64_t kRoundTripFrames = 256;
  // Of the source's clock: when nothing behind the hole can be sent, nobody asks.
  static constexpr uint32_t kTimeoutMs = 20;

  [[nodiscard]] IpAddress address_of(uint8_t host) const noexcept {
    return options_.ipv6 ? IpAddress{0xfd00'0077'0000'0000, host}
                         : IpAddress{Ipv4Address{0x0a4d'0000U + host}};
  }
  [[nodiscard]] std::byte* data_of(uint32_t buffer) const noexcept {
    return memory_.data() + std::size_t{buffer} * stride_ + kHeadroom;
  }
  // kNoBuffer: none is free.
  [[nodiscard]] uint32_t take() noexcept;
  [[nodiscard]] bool dropped(const Connection& connection, uint32_t index, const Frame& frame);
  void send_again(bool idle) noexcept;
  void note_sack(uint32_t index, const std::byte* data, uint32_t length) noexcept;
  void store_length(std::byte* data, uint32_t frame_bytes) const noexcept;
  [[nodiscard]] bool is_tcp(const std::byte* data) const noexcept;
  void sum_up(std::byte* data, uint32_t length) noexcept;
  void coalesce(Frame& frame) noexcept;
  [[nodiscard]] uint32_t index_of(const void* buffer) const noexcept {
    const auto offset = static_cast<uint64_t>(static_cast<const std::byte*>(buffer) - memory_.data());
    return static_cast<uint32_t>(offset / 64) / (stride_ / 64);
  }
  void look_ahead() noexcept;
  uint32_t make_frames() noexcept;
  void demote_made() noexcept;
  [[nodiscard]] bool sendable(const Connection& connection) const noexcept;
  void present(Connection& connection, uint32_t index, uint32_t buffer, Made& out) noexcept;
  void finish_frame(std::byte* data, uint32_t length, Frame& out) noexcept;
  [[nodiscard]] bool control_frame(Connection& connection, Made& out) noexcept;
  void make_header(Connection& connection) noexcept;
  void on_answer(const std::byte* data, uint32_t length) noexcept;
  [[nodiscard]] OutSegment outgoing(const Connection& connection) const noexcept;

  const ReplayOptions options_;
  const uint32_t segment_bytes_;
  // Where TCP and the payload begin in a data frame.
  const uint32_t header_bytes_ = header_bytes_of(options_.ipv6);
  const uint32_t tcp_at_ = header_bytes_ - kTcpHeaderBytes - kTimestampBytes;
  std::vector<std::byte> main_stream_;
  HugeRegion memory_;
  std::vector<Connection> connections_;  // the last one is main
  const uint32_t stride_;                // bytes from one buffer to the next
  std::vector<uint32_t> free_;           // first in, first out: every buffer is used before one is used again
  uint64_t free_head_ = 0;
  uint64_t free_tail_ = 0;
  uint64_t free_mask_ = 0;
  uint32_t turn_ = 0;      // connection whose turn it is
  uint32_t run_left_ = 0;  // segments it may still send
  uint32_t settled_ = 0;   // connections without a SYN or FIN to be sent
  bool gate_open_ = false;
  // Made and not yet given: [ready_head_, ready_tail_). Those before demoted_ have been sent away.
  static constexpr uint32_t kReady = 128;
  static constexpr uint32_t kReadyToCoalesce = 2048;  // a burst of chains, and what is made meanwhile
  const uint32_t ready_max_;                          // a power of two
  std::vector<Made> ready_;
  const uint32_t chain_max_;  // segments in one frame
  // What a device's descriptors would say of a chain.
  struct Link {
    uint32_t next = 0;
    uint32_t bytes = 0;  // of payload in this buffer
  };
  std::vector<Link> links_;  // by buffer
  uint32_t ready_head_ = 0;
  uint32_t ready_tail_ = 0;
  uint32_t demoted_ = 0;
  std::vector<Use> uses_;
  std::size_t use_count_ = 0;
  std::vector<Lost> lost_;
  uint64_t made_ = 0;       // frames, since the gate was opened
  uint64_t droppable_ = 0;  // segments that might have been dropped
  uint32_t now_ms_ = 1;
  uint64_t bursts_ = 0;

  static constexpr uint32_t kTxFrames = 1024;
  static constexpr uint32_t kTxBytes = 256;
  std::vector<std::array<std::byte, kTxBytes>> tx_;
  std::array<uint32_t, kTxFrames> tx_length_{};
  uint32_t tx_first_ = 0;  // a ring: a frame may be filled for longer than until the next flush
  uint32_t tx_count_ = 0;
  Counters counters_;
};

}  // namespace migrx::bench
