// A small honest TCP sender: handshake, sliding window, SACK scoreboard, fast retransmission, RTO, probes of
// a closed window, FIN. Written from the RFCs and independent of dataplane/tcp; it shares only the packet
// formats (dataplane/wire), which have tests of their own.
//
// It is also a witness: watch() sees every segment of the receiver as it leaves, in order, and violation()
// says when one breaks a rule that holds whatever the network does.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "dataplane/wire/segment.h"
#include "tests/sim/link.h"

namespace migrx::sim {

struct TcpSenderOptions {
  FourTuple tuple;  // local: this sender; remote: the receiver
  FrameAddress link;
  uint32_t iss = 0;
  uint16_t mss = 1460;                // of the sender's own MTU
  uint32_t segment_max = UINT32_MAX;  // payload bytes: small ones drain a pool of packet buffers
  bool timestamps = true;
  bool sack = true;
  bool window_scaling = true;
  bool congestion_control = true;    // false: whatever the window allows, except behind a time-out
  bool probe_with_data = true;       // a probe of a closed window carries the next byte; false: an old number
  bool uneven_segments = false;      // writes are cut at odd places
  bool detect_black_holes = false;   // repeated time-outs: perhaps the path's MTU has shrunk (RFC 4821)
  uint32_t buffer_bytes = 64 << 10;  // room for what is written and not acknowledged
  uint64_t rto_min_ns = 200'000'000;
};

class TcpSender {
 public:
  enum class State : uint8_t { closed, syn_sent, established, fin_sent, finished, reset };

  TcpSender(const TcpSenderOptions& options, Random random);

  void connect(uint64_t now_ns);
  // Takes as many bytes as there is room for; returns how many.
  std::size_t write(Bytes bytes);
  [[nodiscard]] std::size_t room() const;
  void close() { close_requested_ = stirred_ = true; }
  // close() of a program that will not read either: what comes now is answered with RST, as Linux does.
  void hang_up() { close_requested_ = deaf_ = stirred_ = true; }
  // RST now.
  void abort();
  // Segments may be as large as they were before time-outs made them smaller.
  void path_grew() {
    segment_cap_ = UINT32_MAX;
    stirred_ = true;
  }
  // The machine loses power: nothing is sent or answered any more.
  void vanish() { silent_ = true; }

  void on_segment(const TcpSegment& segment, Bytes payload, uint64_t now_ns);
  // Whatever is due; appends frames to `out`.
  void poll(uint64_t now_ns, std::vector<Packet>& out);
  [[nodiscard]] uint64_t next_ns() const;

  // The receiver emits this segment for our connection.
  void watch(const TcpSegment& segment);

  [[nodiscard]] State state() const { return state_; }
  [[nodiscard]] bool is_over() const {
    return state_ == State::finished || state_ == State::reset || silent_;
  }
  [[nodiscard]] bool all_acknowledged() const { return una_ >= end(); }
  [[nodiscard]] uint64_t acknowledged() const { return una_; }
  // The receiver has no room for a segment that begins there: it probes a closed window.
  [[nodiscard]] bool beyond_window(SeqNum seq) const { return !(seq < seq_of(right_edge_)); }
  [[nodiscard]] bool peer_closed() const { return peer_fin_; }
  [[nodiscard]] const FourTuple& tuple() const { return options_.tuple; }
  [[nodiscard]] const std::string& violation() const { return violation_; }
  // Where it stands, for people.
  [[nodiscard]] std::string describe() const;
  std::vector<std::byte> received;  // return path bytes, in order
  uint64_t retransmissions = 0;

 private:
  // A run of bytes as last sent; offsets count from the first byte of the stream.
  struct Sent {
    uint64_t begin;
    uint64_t end;  // FIN counts one
    uint64_t at_ns;
    bool sacked = false;
    bool lost = false;
    bool again = false;  // sent more than once: no RTT sample (Karn)
  };

  [[nodiscard]] uint64_t end() const { return base_ + buffer_.size() + (fin_queued_ ? 1 : 0); }
  [[nodiscard]] SeqNum seq_of(uint64_t offset) const {
    return SeqNum{options_.iss + 1 + static_cast<uint32_t>(offset)};
  }
  [[nodiscard]] uint64_t in_flight() const;
  [[nodiscard]] uint32_t segment_bytes() const;
  [[nodiscard]] uint32_t ts_now(uint64_t now_ns) const;
  void emit(uint8_t flags, uint64_t offset, std::size_t length, uint64_t now_ns, std::vector<Packet>& out);
  void emit_syn(uint64_t now_ns, std::vector<Packet>& out);
  void emit_run(Sent& run, uint64_t now_ns, std::vector<Packet>& out);
  bool send_new(uint64_t now_ns, std::vector<Packet>& out);
  void take_ack(const TcpSegment& segment, uint64_t now_ns);
  void take_sack(const TcpSegment& segment);
  void enter_recovery();
  void expire(uint64_t now_ns, std::vector<Packet>& out);
  void cut_anew();
  void sample_rtt(uint64_t rtt_ns);
  void complain(const std::string& what) {
    if (violation_.empty()) violation_ = what;
  }

  const TcpSenderOptions options_;
  Random random_;
  State state_ = State::closed;
  bool silent_ = false;
  bool close_requested_ = false;
  bool deaf_ = false;
  bool fin_queued_ = false;
  bool ack_due_ = false;
  bool rst_due_ = false;
  bool stirred_ = false;  // something has happened since the last poll(), or chance may decide otherwise now

  std::deque<std::byte> buffer_;  // bytes from base_ on: una_ or below
  uint64_t base_ = 0;
  uint64_t una_ = 0;
  uint64_t nxt_ = 0;
  uint64_t right_edge_ = 0;  // offset one past the window
  std::deque<Sent> flight_;  // [una_, nxt_), in order

  uint16_t send_mss_ = 536;
  uint32_t segment_cap_ = UINT32_MAX;  // by black-hole detection
  bool timestamps_ = false;
  bool sack_ = false;
  uint8_t send_shift_ = 0;  // of windows we hear
  SeqNum rcv_nxt_;
  SeqNum wl1_;
  SeqNum wl2_;
  uint32_t ts_recent_ = 0;
  bool peer_fin_ = false;

  uint64_t cwnd_ = 0;
  uint64_t ssthresh_ = UINT64_MAX;
  uint32_t duplicate_acks_ = 0;
  uint64_t recover_ = 0;  // in recovery until una_ passes this
  bool recovering_ = false;
  // RFC 6298 section 5.4: behind a time-out the earliest segment goes alone, without congestion control as
  // well.
  bool timed_out_ = false;
  uint64_t srtt_ns_ = 0;
  uint64_t rttvar_ns_ = 0;
  uint64_t rto_ns_ = 1'000'000'000;
  uint32_t backoff_ = 0;
  uint64_t rto_at_ns_ = UINT64_MAX;
  uint64_t probe_at_ns_ = UINT64_MAX;
  uint32_t probes_ = 0;
  uint64_t syn_sent_ns_ = 0;

  // What watch() has seen: of the receiver's segments in the order they left.
  bool watched_ = false;
  SeqNum watched_ack_;
  SeqNum watched_edge_;
  uint64_t sent_to_ = 0;  // highest offset that ever left, FIN included
  bool syn_ever_sent_ = false;
  std::string violation_;
};

}  // namespace migrx::sim
