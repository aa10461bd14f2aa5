// One established TCP connection, sans-IO: segments, slices, commands and time go in; slices for the loader
// and segments to send come out. Receive-dominated: bulk in, a few control bytes out. The handshake is
// listener.h's.
//
//                  ESTABLISHED ──FIN──▶ CLOSE-WAIT ──close()──▶ LAST-ACK ──ACK──▶ closed
//                       │close()
//                       ▼
//   closed ◀─ time ─ FIN-WAIT-1 ──ACK──▶ FIN-WAIT-2 ──FIN──▶ TIME-WAIT ── 2 MSL ──▶ closed
//                       └────FIN──▶ CLOSING ──ACK──▶ TIME-WAIT
//   any ── RST, abort(), a silent peer ──▶ closed
//
// Read first: config.h, handoff.h, reassembly.h. RFC 9293 section 3.10.7.4 is followed step by step in
// on_segment().
//
// How the poll core calls it, per burst:
//   1. on_segment() for each segment; slices whose `buffer` is still set afterwards are the caller's to free.
//   2. reclaim() for connections that hold buffers, freeing what it gives; take_commands() now and then.
//   3. poll_output() until false, for each connection touched by 1 or 2 or whose next_deadline_ns() has come:
//      poll_output() publishes the slices to the loader and emits at most one ACK without data.
//   4. finished(): take it out of the flow table; recyclable(): the Handoff may be reset and used again.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "dataplane/handoff/handoff.h"
#include "dataplane/tcp/config.h"
#include "dataplane/tcp/counters.h"
#include "dataplane/tcp/reassembly.h"
#include "dataplane/tcp/send_queue.h"
#include "dataplane/tcp/tail_buffer.h"
#include "dataplane/wire/header_match.h"
#include "dataplane/wire/segment.h"

namespace migrx {

enum class TcpState : uint8_t {
  closed,
  established,
  fin_wait_1,
  fin_wait_2,
  close_wait,
  closing,
  last_ack,
  time_wait,
};
[[nodiscard]] std::string_view tcp_state_name(TcpState state) noexcept;

// quota: packet buffers that this connection may hold. Tail buffer: one in which small segments are joined.
// A segment that continues the stream exactly as expected takes a short path (header prediction).
//
// Invariants:
//   handoff.held() + reassembly nodes + the tail buffer, if any, <= quota <= slots: whatever is kept has a
//   slot waiting for it. The right edge of the window (rcv_adv_) never moves back; on the wire it is rounded
//   down to the window scale, so what the peer sees may retract by less than one scale unit, which RFC 7323
//   section 2.4 allows for. A byte below rcv_nxt_ has been pushed into the Handoff, or is in the tail buffer;
//   it is acknowledged only after that. Everything up to rcv_adv_ fits: (rcv_adv_ - rcv_nxt_) <= free buffers
//   * what a full segment brings into each + the tail's room. Not so if the port's buffers may not be
//   written, or the sender cuts anew what it repeats, so that segments come whose front is old: a tail has
//   only the room behind those. What finds no place is dropped unacknowledged and counted.
//
// Small segments occupy a whole buffer and slot each, and the window promises bytes. While there are spare
// buffers they are pushed as they are, without a copy. When pushing one would leave less than was promised,
// it becomes the tail buffer, and the next ones are copied behind it; it is pushed when it is full, when the
// loader has released enough, or when the loader has nothing else. What was promised and not kept would cost
// the sender a retransmission time-out, or several, and a channel parked at a barrier has promised all it
// has.
//
// Owned and called by one poll core. Nothing allocates after construction.
class TcpConnection {
 public:
  // config, handoff and counters outlive the connection.
  TcpConnection(const TcpConfig& config, Handoff& handoff, TcpCounters& counters);
  TcpConnection(const TcpConnection&) = delete;
  TcpConnection& operator=(const TcpConnection&) = delete;

  // Begins in ESTABLISHED. Precondition: state() == closed, and the Handoff is fresh or reset.
  void open(const TcpHandshake& handshake, uint64_t now_ns) noexcept;

  // payload: segment.payload_length bytes in order, one slice per packet buffer, each owning one reference.
  // Slices that are kept get buffer = nullptr. Returns the segment's fate, already counted. time_wait_reuse:
  // remove this connection and give the segment to the listener. connection_closed: answer with reset_for().
  TcpCounter on_segment(const TcpSegment& segment, std::span<Slice> payload, uint64_t now_ns) noexcept;

  // The same for a segment that HeaderMatch knows: ACK or ACK|PSH, with timestamps, from the addresses that
  // the segment before came from, undamaged, in one packet buffer. True: taken, the buffer too. False:
  // nothing has changed, on_segment() must see it.
  [[nodiscard]] bool on_in_order(const TcpInOrder& segment, const std::byte* payload, void* buffer,
                                 uint64_t now_ns) noexcept;

  // Emits what is due, timers included; call until false.
  [[nodiscard]] bool poll_output(uint64_t now_ns, OutSegment& out) noexcept;
  // When poll_output() must be called even if nothing happens; kNever: not needed.
  [[nodiscard]] uint64_t next_deadline_ns() const noexcept;

  // Buffers the loader has finished with, and out-of-order ones that were given up: the caller frees them.
  // Returns how many are in `freed`; call again while it is full. When the window reopens, poll_output() says
  // so.
  [[nodiscard]] uint32_t reclaim(std::span<void*> freed) noexcept;

  // Makes what has come visible to the loader. poll_output() does that first; it is for when nothing can be
  // sent.
  void publish() noexcept;
  // The peer is at that MAC address now. False: it was there.
  bool move_link(const EthernetAddress& remote_mac) noexcept {
    if (link_.remote_mac == remote_mac) return false;
    link_.remote_mac = remote_mac;
    return true;
  }
  [[nodiscard]] const FrameAddress& link() const noexcept { return link_; }
  // What was sent to the peer should have been answered long ago: it may have moved.
  [[nodiscard]] bool unanswered(uint64_t now_ns) const noexcept {
    return (probes_sent_ > 0 && heard_ns_ < probe_ns_) ||
           (snd_una_ != snd_max_ && now_ns - unacked_since_ns_ >= kNsPerSecond);
  }

  // Takes what the control thread has asked for through the Handoff.
  void take_commands(uint64_t now_ns) noexcept;
  // False: no room, or the sending direction is closed.
  [[nodiscard]] bool send(Bytes bytes) noexcept;
  // FIN after what was sent; half close: the peer may go on.
  void close(uint64_t now_ns) noexcept;
  // RST, and the end of the stream for the loader.
  void abort() noexcept;

  [[nodiscard]] TcpState state() const noexcept { return state_; }
  [[nodiscard]] const FourTuple& tuple() const noexcept { return tuple_; }
  [[nodiscard]] Handoff& handoff() const noexcept { return handoff_; }
  // Nothing is left to be received or sent.
  [[nodiscard]] bool finished() const noexcept { return state_ == TcpState::closed && !rst_pending_; }
  // No buffer is held either, and neither the loader nor the control thread will look again: Handoff::reset()
  // may be called.
  [[nodiscard]] bool recyclable() const noexcept {
    return finished() && handoff_.reusable() && reassembly_.discarded() == 0;
  }
  // For tests and checkers.
  [[nodiscard]] SeqNum rcv_nxt() const noexcept { return rcv_nxt_; }
  [[nodiscard]] SeqNum right_edge() const noexcept { return rcv_adv_; }
  [[nodiscard]] uint32_t quota() const noexcept { return quota_; }
  [[nodiscard]] uint32_t free_buffers() const noexcept {
    const uint32_t used = held() + reassembly_.node_count();
    return used < quota_ ? quota_ - used : 0;
  }
  [[nodiscard]] uint32_t bytes_unacknowledged() const noexcept { return bytes_between(snd_una_, snd_max_); }

 private:
  enum class AckNeed : uint8_t { none, delayed, burst_end };
  // In-window data that a segment offers: [begin, end) and whether its FIN stands at `end`.
  struct Offer {
    SeqNum begin;
    SeqNum end;
    bool fin = false;
  };

  // The numbered steps of RFC 9293 section 3.10.7.4; `true`: the segment lives on, else `fate` is its end.
  [[nodiscard]] bool predicted(const TcpInOrder& segment, bool timestamps, std::size_t slices) const noexcept;
  void note_predicted(const TcpInOrder& segment, uint64_t now_ns) noexcept;
  TcpCounter on_segment_in_full(const TcpSegment& segment, std::span<Slice> payload,
                                uint64_t now_ns) noexcept;
  [[nodiscard]] bool check_timestamp(const TcpSegment& segment, uint64_t now_ns, TcpCounter& fate) noexcept;
  [[nodiscard]] bool check_sequence(const TcpSegment& segment, uint64_t now_ns, TcpCounter& fate) noexcept;
  [[nodiscard]] bool check_rst(const TcpSegment& segment, uint64_t now_ns, TcpCounter& fate) noexcept;
  [[nodiscard]] bool check_ack(const TcpSegment& segment, uint64_t now_ns, TcpCounter& fate) noexcept;
  void take_ack(const TcpSegment& segment, uint64_t now_ns) noexcept;
  void take_new_ack(const TcpSegment& segment, uint64_t now_ns) noexcept;
  TcpCounter take_text(const TcpSegment& segment, std::span<Slice> payload, uint64_t now_ns) noexcept;
  TcpCounter take_slice(SeqNum seq, Slice& slice) noexcept;
  [[nodiscard]] bool note_fin(const TcpSegment& segment) noexcept;
  // In-order bytes to the loader, or into the tail buffer. A buffer that is kept: slice.buffer = nullptr.
  // Precondition: a free buffer, or room for all of it in the tail.
  void deliver(Slice& slice) noexcept;
  // With `buffers` fewer, what the window promises beyond `next` still fits.
  [[nodiscard, gnu::noinline]] bool promise_kept(SeqNum next, uint32_t buffers) const noexcept;
  void push_tail() noexcept { handoff_.push(tail_.take()); }
  // Buffers of bytes in order.
  [[nodiscard]] uint32_t held() const noexcept { return handoff_.held() + (tail_.empty() ? 0U : 1U); }
  void take_fin(uint64_t now_ns) noexcept;

  void ack_now() noexcept { ack_need_ = AckNeed::burst_end; }
  void ack_later(uint32_t bytes, bool pushed, uint64_t now_ns) noexcept;
  void challenge(uint64_t now_ns) noexcept;
  void report_duplicate(SackBlock range) noexcept;
  void become_closed(StreamEnd end) noexcept;
  void enter_time_wait(uint64_t now_ns) noexcept;
  void refresh_predictable() noexcept;
  void note_segment_size(uint32_t bytes) noexcept;
  [[nodiscard]] bool receiving() const noexcept {
    return state_ == TcpState::established || state_ == TcpState::fin_wait_1 ||
           state_ == TcpState::fin_wait_2;
  }

  void note_shown(const TcpSegment& segment) noexcept;
  [[nodiscard]] bool credible(const TcpSegment& segment) const noexcept;

  // connection_output.cc
  [[nodiscard]] SeqNum right_edge_wanted() const noexcept;
  [[nodiscard]] bool window_update_due() const noexcept;
  [[nodiscard]] bool sending() const noexcept;
  void fill_header(OutSegment& out, uint8_t flags, SeqNum seq, uint64_t now_ns) noexcept;
  void fill_window(OutSegment& out) noexcept;
  void fill_sack(OutSegment& out) noexcept;
  [[nodiscard]] bool emit_rst(uint64_t now_ns, OutSegment& out) noexcept;
  [[nodiscard]] bool emit_data(uint64_t now_ns, OutSegment& out) noexcept;
  [[nodiscard]] bool emit_ack(uint64_t now_ns, OutSegment& out) noexcept;
  [[nodiscard]] bool expire_timers(uint64_t now_ns, OutSegment& out) noexcept;
  [[nodiscard]] bool expire_retransmission(uint64_t now_ns, OutSegment& out) noexcept;
  [[nodiscard]] bool expire_keepalive(uint64_t now_ns, OutSegment& out) noexcept;
  [[nodiscard]] bool give_up(uint64_t now_ns, OutSegment& out) noexcept;
  [[nodiscard]] uint64_t keepalive_deadline_ns() const noexcept;
  // One past the last byte queued, FIN included.
  [[nodiscard]] SeqNum send_end() const noexcept {
    return snd_una_ + (send_queue_.size() + (close_requested_ && !fin_acked_ ? 1U : 0U));
  }

  // ---- Read and written for every in-order segment: three cache lines ----
  alignas(kCacheLineBytes) TcpState state_ = TcpState::closed;
  AckNeed ack_need_ = AckNeed::none;
  bool timestamps_ = false;
  // Header prediction may apply: ESTABLISHED, nothing out of order, no tail, no FIN seen, a reader present.
  bool predictable_ = false;
  bool unpublished_ = false;
  uint8_t send_shift_ = 0;
  uint8_t receive_shift_ = 0;
  uint8_t quick_acks_ = 0;  // segments still to be acknowledged without delay
  SeqNum rcv_nxt_;
  SeqNum rcv_adv_;        // right edge of the window, as promised
  SeqNum last_ack_sent_;  // RFC 7323 section 4.3
  SeqNum snd_una_;
  uint32_t snd_wnd_ = 0;
  SeqNum snd_wl1_;
  SeqNum snd_wl2_;
  uint32_t ts_recent_ = 0;
  uint32_t unacked_bytes_ = 0;    // received in order since the last ACK
  uint32_t segment_bytes_ = 536;  // the largest payload seen: what the peer's full segments are
  uint32_t quota_ = 0;
  uint32_t burst_predicted_ = 0;  // not yet counted: counters are written once per burst
  uint64_t burst_bytes_ = 0;
  uint64_t heard_ns_ = 0;  // when the last acceptable segment came
  uint64_t ack_deadline_ns_ = kNever;
  Handoff& handoff_;
  FrameAddress link_;
  TcpCounters& counters_;
  const TcpConfig& config_;
  FourTuple tuple_;

  // ---- Receiving, other than in order ----
  uint32_t segment_buffers_ = 1;   // buffers per segment of segment_bytes_
  uint32_t window_max_ = 65535;    // what the window field can say
  uint32_t window_whole_ = 65535;  // the window when nothing is held
  SeqNum fin_seq_;
  bool fin_seen_ = false;  // a FIN has arrived, perhaps beyond a hole
  bool stream_ended_ = false;
  bool sack_ = false;
  bool zero_announced_ = false;
  bool duplicate_pending_ = false;
  SackBlock duplicate_;  // to be reported by D-SACK
  // Without SACK: duplicate ACKs owed, one for each segment that came beyond the hole at duplicate_ack_.
  uint8_t duplicate_acks_due_ = 0;
  SeqNum duplicate_ack_;
  uint32_t challenges_left_ = 0;
  uint64_t challenge_start_ns_ = 0;
  Reassembly reassembly_;

  // ---- Sending ----
  SeqNum snd_nxt_;
  SeqNum snd_max_;  // the highest SND.NXT ever: a time-out sets SND.NXT back
  uint32_t snd_wnd_max_ = 0;
  uint32_t send_mss_ = 536;  // options subtracted
  uint32_t cwnd_ = 0;
  uint32_t ts_offset_ = 0;
  uint32_t duplicate_acks_ = 0;
  bool close_requested_ = false;
  bool fin_acked_ = false;
  bool rst_pending_ = false;
  bool command_waits_ = false;
  bool probe_window_ = false;  // send one byte whatever the window says
  bool probe_due_ = false;     // the control thread asks for a sign of life
  bool rtt_timing_ = false;    // without timestamps one segment at a time is timed
  SeqNum rtt_seq_;
  uint64_t rtt_start_ns_ = 0;
  uint64_t rto_deadline_ns_ = kNever;    // also the persist timer
  uint64_t unacked_since_ns_ = 0;        // how long SND.UNA has stood still with something to send
  uint64_t state_deadline_ns_ = kNever;  // TIME-WAIT, FIN-WAIT-2
  uint64_t probe_ns_ = 0;                // when the last keepalive probe went out
  uint32_t probes_sent_ = 0;
  RttEstimator rtt_;
  SendQueue send_queue_;
  ConnectionCommand command_;  // taken from the ring, waiting for room in the queue

  // Receiving small segments. Not empty: unpublished_ is true and predictable_ is not.
  TailBuffer tail_;
};

}  // namespace migrx
