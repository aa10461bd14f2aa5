// A TCP endpoint that opens connections and sends bulk data: what `migrx generate` is made of. Sans-IO like
// TcpConnection, its counterpart: segments and time in, segments and times out. It does not hold the stream:
// it says which bytes a segment shall carry, and the caller writes them straight into the frame, the first
// time and again.
//
// Handshake, options and windows by RFC 9293 and 7323; congestion control by RFC 5681 (NewReno), loss
// recovery with SACK by RFC 6675 with RACK's order of transmissions and tail loss probe (RFC 8985), timers by
// RFC 6298. Departures: the smallest RTO is 200 ms, as in common kernels; a slow-start step counts every byte
// acknowledged, since a receiver that answers once per burst would otherwise be sent little (RFC 3465 has a
// limit of two segments); the window is not reduced after an idle time (RFC 5681 section 4.1): a migration's
// pauses are barriers, not changes of the path.
#pragma once

#include <cstdint>

#include "dataplane/tcp/config.h"
#include "dataplane/tcp/flight.h"
#include "dataplane/wire/segment.h"

namespace migrx {

struct TcpSenderConfig {
  uint16_t mss = 1460;  // of this side's link: announced, and the most that is sent, options included
  bool timestamps = true;
  bool sack = true;
  bool window_scaling = true;
  bool congestion_control = true;  // false: whatever the peer's window allows
  uint32_t initial_window_segments = 10;
  uint32_t segments_max = 4096;  // in flight
  uint64_t rto_initial_ns = kNsPerSecond;
  uint64_t rto_min_ns = 200 * kNsPerMs;
  uint64_t rto_max_ns = 60 * kNsPerSecond;
  uint64_t give_up_ns = 100 * kNsPerSecond;  // without progress, R2 of RFC 9293 section 3.8.3
  uint32_t challenge_acks_per_second = 10;   // RFC 5961 section 7
};

struct TcpSenderCounters {
  uint64_t segments = 0;  // with payload, repetitions included
  uint64_t resent_segments = 0;
  uint64_t resent_bytes = 0;
  uint64_t fast_recoveries = 0;
  uint64_t timeouts = 0;  // of the retransmission timer
  uint64_t tail_probes = 0;
  uint64_t window_probes = 0;
  uint64_t acks_heard = 0;
  uint64_t window_closed = 0;  // times there was something to send and no window
  uint64_t cwnd_limited = 0;   // times the congestion window held it back
};

class TcpSender {
 public:
  enum class State : uint8_t {
    closed,
    syn_sent,
    established,  // also after our FIN until it is acknowledged
    finished,     // all of the stream and the FIN are acknowledged
    reset,        // by the peer, or by abort()
    timed_out,
  };

  // tuple.local and link.local_mac: this side. iss: a random number. ts_offset likewise. Allocates the
  // flight.
  TcpSender(const TcpSenderConfig& config, const FourTuple& tuple, const FrameAddress& link, SeqNum iss,
            uint32_t ts_offset);

  void connect(uint64_t now_ns) noexcept;
  // The stream is known up to `offset`, which never goes back. The caller can produce any byte from
  // acknowledged() to there.
  void set_stream_end(uint64_t offset) noexcept { stream_end_ = offset; }
  // FIN after the stream, whose end stays as it is from now on.
  void close() noexcept { close_requested_ = true; }
  // RST with the next segment.
  void abort() noexcept;

  // A segment for this connection; checksums are right. Returns the payload bytes that are new and next in
  // order, a part of `payload`, to be consumed before the next call. Segments beyond a hole are not kept.
  Bytes on_segment(const TcpSegment& segment, Bytes payload, uint64_t now_ns) noexcept;
  // Whatever is due at now_ns; call it when deadline_ns() has come, or always.
  void on_time(uint64_t now_ns) noexcept;
  // The next segment to be sent, until false. `chunk`: the stream bytes it carries, which the caller puts
  // behind the headers (out.payload is empty).
  bool next_segment(uint64_t now_ns, OutSegment& out, StreamRange& chunk) noexcept;
  // kNever: nothing is waited for but the peer.
  [[nodiscard]] uint64_t deadline_ns() const noexcept;

  [[nodiscard]] State state() const noexcept { return state_; }
  [[nodiscard]] bool over() const noexcept { return state_ >= State::finished; }
  [[nodiscard]] bool peer_closed() const noexcept { return peer_fin_; }
  [[nodiscard]] const FourTuple& tuple() const noexcept { return tuple_; }
  // Offsets in the stream: all before has arrived; all before has been sent at least once.
  [[nodiscard]] uint64_t acknowledged() const noexcept { return una_ < stream_end_ ? una_ : stream_end_; }
  [[nodiscard]] uint64_t sent() const noexcept { return nxt_; }
  [[nodiscard]] uint64_t cwnd() const noexcept { return cwnd_; }
  [[nodiscard]] uint64_t in_flight() const noexcept { return flight_.bytes(); }
  [[nodiscard]] uint64_t srtt_ns() const noexcept { return srtt_ns_; }
  [[nodiscard]] uint64_t rtt_min_ns() const noexcept { return rtt_min_ns_; }
  [[nodiscard]] uint64_t rto_ns() const noexcept { return rto_ns_; }
  // Payload bytes of a full segment.
  [[nodiscard]] uint32_t segment_bytes() const noexcept { return segment_bytes_; }
  [[nodiscard]] const TcpSenderCounters& counters() const noexcept { return counters_; }

 private:
  [[nodiscard]] SeqNum seq_of(uint64_t offset) const noexcept {
    return iss_ + 1U + static_cast<uint32_t>(offset);
  }
  // One past the last offset there is to send, the FIN included.
  [[nodiscard]] uint64_t send_end() const noexcept { return stream_end_ + (close_requested_ ? 1U : 0U); }
  [[nodiscard]] bool window_shut() const noexcept {
    return nxt_ < send_end() && flight_.empty() && right_edge_ <= nxt_;
  }
  [[nodiscard]] bool may_resend() const noexcept;
  void fill(OutSegment& out, uint8_t flags, uint64_t offset, uint64_t now_ns) noexcept;
  void fill_segment(OutSegment& out, StreamRange& chunk, const SentSegment& segment,
                    uint64_t now_ns) noexcept;
  bool next_new(uint64_t now_ns, OutSegment& out, StreamRange& chunk) noexcept;
  void on_syn_sent(const TcpSegment& segment, uint64_t now_ns) noexcept;
  [[nodiscard]] bool acceptable(const TcpSegment& segment, uint64_t now_ns) noexcept;
  void take_ack(const TcpSegment& segment, uint64_t now_ns) noexcept;
  void grow(uint64_t delivered) noexcept;
  void reduce() noexcept;
  void sample_rtt(uint64_t rtt_ns) noexcept;
  void arm_timers(uint64_t now_ns) noexcept;
  void arm_tail_probe(uint64_t now_ns) noexcept;
  void challenge(uint64_t now_ns) noexcept;
  [[nodiscard]] uint64_t backed_off(uint64_t ns) const noexcept;

  const TcpSenderConfig config_;
  const FourTuple tuple_;
  const FrameAddress link_;
  const SeqNum iss_;
  const uint32_t ts_offset_;
  Flight flight_;
  State state_ = State::closed;
  bool close_requested_ = false;
  bool fin_sent_ = false;
  bool peer_fin_ = false;
  bool syn_due_ = false;
  bool rst_due_ = false;
  bool ack_due_ = false;
  bool window_probe_due_ = false;
  bool tail_probe_due_ = false;

  uint64_t stream_end_ = 0;
  uint64_t una_ = 0;
  uint64_t nxt_ = 0;
  uint64_t right_edge_ = 0;  // one past the offsets the peer's window allows
  SeqNum rcv_nxt_;
  SeqNum wl1_;
  SeqNum wl2_;
  uint32_t ts_recent_ = 0;
  uint32_t segment_bytes_ = 536;
  uint8_t send_shift_ = 0;
  bool timestamps_ = false;
  bool sack_ = false;

  uint64_t cwnd_ = 0;
  uint64_t ssthresh_ = UINT64_MAX;
  uint64_t grown_ = 0;  // bytes acknowledged in congestion avoidance, not yet turned into cwnd
  uint64_t recover_ = 0;
  bool recovering_ = false;
  bool resend_now_ = false;  // the first repetition of a recovery does not wait for cwnd (RFC 6675 section 5)
  bool limited_ = false;     // cwnd held something back since it last grew
  uint32_t duplicate_acks_ = 0;

  uint64_t srtt_ns_ = 0;
  uint64_t rttvar_ns_ = 0;
  uint64_t rtt_min_ns_ = kNever;
  uint64_t rto_ns_;
  uint32_t backoff_ = 0;
  uint64_t rto_at_ns_ = kNever;
  uint64_t window_probe_at_ns_ = kNever;
  uint64_t tail_probe_at_ns_ = kNever;
  bool tail_probed_ = false;  // once per flight
  uint64_t progress_ns_ = 0;  // when the peer last did something for us
  uint64_t syn_sent_ns_ = 0;
  uint64_t challenge_second_ = 0;
  uint32_t challenges_ = 0;
  TcpSenderCounters counters_;
};

}  // namespace migrx
