#include "dataplane/tcp/sender.h"

#include <algorithm>

namespace migrx {
namespace {

// What we announce: everything that comes is consumed at once, and it is little.
constexpr uint16_t kReceiveWindow = 65535;
constexpr uint32_t kTimestampBytes = 12;
// The peer may hold back the acknowledgment of a single segment that long (RFC 8985 section 7.2).
constexpr uint64_t kAckDelayNs = 40 * kNsPerMs;
constexpr uint64_t kReorderMinNs = 100'000;
constexpr uint64_t kTailProbeMinNs = 2 * kNsPerMs;

}  // namespace

TcpSender::TcpSender(const TcpSenderConfig& config, const FourTuple& tuple, const FrameAddress& link,
                     SeqNum iss, uint32_t ts_offset)
    : config_(config),
      tuple_(tuple),
      link_(link),
      iss_(iss),
      ts_offset_(ts_offset),
      flight_(config.segments_max),
      rto_ns_(config.rto_initial_ns) {}

void TcpSender::connect(uint64_t now_ns) noexcept {
  state_ = State::syn_sent;
  syn_due_ = true;
  syn_sent_ns_ = progress_ns_ = now_ns;
}

void TcpSender::abort() noexcept {
  if (over()) return;
  rst_due_ = state_ == State::established;
  state_ = State::reset;
}

uint64_t TcpSender::backed_off(uint64_t ns) const noexcept {
  return std::min(ns << std::min(backoff_, 10U), config_.rto_max_ns);
}

uint64_t TcpSender::deadline_ns() const noexcept {
  if (syn_due_ || rst_due_ || ack_due_) return 0;
  if (over()) return kNever;
  return std::min({rto_at_ns_, window_probe_at_ns_, tail_probe_at_ns_});
}

void TcpSender::challenge(uint64_t now_ns) noexcept {
  const uint64_t second = now_ns / kNsPerSecond;
  if (second != challenge_second_) {
    challenge_second_ = second;
    challenges_ = 0;
  }
  if (challenges_++ < config_.challenge_acks_per_second) ack_due_ = true;
}

// ---- Output

void TcpSender::fill(OutSegment& out, uint8_t flags, uint64_t offset, uint64_t now_ns) noexcept {
  out.tuple = tuple_;
  out.link = link_;
  out.seq = seq_of(offset);
  out.ack = rcv_nxt_;
  out.window = kReceiveWindow;
  out.flags = flags;
  out.options = timestamps_ ? tcp_option::timestamps : uint8_t{0};
  out.sack_count = 0;
  out.ts_val = timestamp_at(now_ns, ts_offset_);
  out.ts_ecr = ts_recent_;
  out.payload = {};
  ack_due_ = false;
}

void TcpSender::fill_segment(OutSegment& out, StreamRange& chunk, const SentSegment& segment,
                             uint64_t now_ns) noexcept {
  uint8_t flags = tcp_flag::ack;
  if (segment.fin) flags |= tcp_flag::fin;
  if (segment.end() >= stream_end_) flags |= tcp_flag::psh;
  fill(out, flags, segment.begin, now_ns);
  chunk = {segment.begin, segment.fin ? segment.begin : segment.end()};
  counters_.segments += 1;
  if (segment.resent) {
    counters_.resent_segments += 1;
    counters_.resent_bytes += segment.length;
  }
  if (rto_at_ns_ == kNever) rto_at_ns_ = now_ns + backed_off(rto_ns_);
}

bool TcpSender::next_new(uint64_t now_ns, OutSegment& out, StreamRange& chunk) noexcept {
  if (nxt_ >= send_end() || flight_.full()) return false;
  const bool fin = nxt_ == stream_end_;
  uint64_t length = fin ? 1 : std::min<uint64_t>(segment_bytes_, stream_end_ - nxt_);
  const uint64_t window = right_edge_ > nxt_ ? right_edge_ - nxt_ : 0;
  if (length > window) {
    // Silly window avoidance, RFC 9293 section 3.8.6.2.1: a small segment only when nothing is on its way.
    if (window == 0 || !flight_.empty()) {
      if (flight_.empty()) ++counters_.window_closed;
      return false;
    }
    length = window;
  }
  // The FIN is a segment of its own and may leave beyond the congestion window; it fills no queue.
  if (config_.congestion_control && !fin && flight_.bytes() + length > cwnd_ && !flight_.empty()) {
    if (!limited_) ++counters_.cwnd_limited;
    limited_ = true;
    return false;
  }
  flight_.push(nxt_, static_cast<uint32_t>(length), fin, now_ns);
  SentSegment segment;
  segment.begin = nxt_;
  segment.length = static_cast<uint32_t>(length);
  segment.fin = fin;
  nxt_ += length;
  if (fin) fin_sent_ = true;
  fill_segment(out, chunk, segment, now_ns);
  return true;
}

bool TcpSender::may_resend() const noexcept {
  // Without SACK nothing tells how much has left the path: RFC 6582 repeats one segment per partial answer.
  return resend_now_ || !sack_ || !config_.congestion_control || flight_.bytes() == 0 ||
         flight_.bytes() + segment_bytes_ <= cwnd_;
}

bool TcpSender::next_segment(uint64_t now_ns, OutSegment& out, StreamRange& chunk) noexcept {
  chunk = {};
  if (syn_due_) {
    syn_due_ = false;
    fill(out, tcp_flag::syn, 0, now_ns);
    out.seq = iss_;
    out.ack = {};
    out.ts_ecr = 0;
    out.options = tcp_option::mss;
    out.mss = config_.mss;
    if (config_.timestamps) out.options |= tcp_option::timestamps;
    if (config_.sack) out.options |= tcp_option::sack_permitted;
    if (config_.window_scaling) out.options |= tcp_option::window_scale;
    out.window_scale = 0;
    rto_at_ns_ = now_ns + backed_off(rto_ns_);
    return true;
  }
  if (rst_due_) {
    rst_due_ = false;
    fill(out, tcp_flag::rst | tcp_flag::ack, nxt_, now_ns);
    return true;
  }
  if (state_ == State::established) {
    if (flight_.any_lost() && may_resend()) {
      resend_now_ = false;
      fill_segment(out, chunk, flight_.resend_lost(now_ns), now_ns);
      return true;
    }
    if (!flight_.any_lost() && next_new(now_ns, out, chunk)) {
      arm_tail_probe(now_ns);
      return true;
    }
    if (tail_probe_due_) {
      tail_probe_due_ = false;
      SentSegment last;
      if (flight_.resend_last(now_ns, last)) {
        ++counters_.tail_probes;
        fill_segment(out, chunk, last, now_ns);
        return true;
      }
    }
    if (window_probe_due_) {
      // An old number: nobody can take it, so it is answered with the present window.
      window_probe_due_ = false;
      ++counters_.window_probes;
      fill(out, tcp_flag::ack, una_, now_ns);
      out.seq = seq_of(una_) - 1U;
      return true;
    }
    if (window_shut()) {
      if (window_probe_at_ns_ == kNever) window_probe_at_ns_ = now_ns + backed_off(rto_ns_);
    } else {
      window_probe_at_ns_ = kNever;
    }
  }
  if (ack_due_ && (state_ == State::established || state_ == State::finished)) {
    fill(out, tcp_flag::ack, nxt_, now_ns);
    return true;
  }
  ack_due_ = false;
  return false;
}

// ---- Timers

void TcpSender::arm_timers(uint64_t now_ns) noexcept {
  rto_at_ns_ = flight_.empty() ? kNever : now_ns + backed_off(rto_ns_);
  arm_tail_probe(now_ns);
}

void TcpSender::arm_tail_probe(uint64_t now_ns) noexcept {
  tail_probe_at_ns_ = kNever;
  if (flight_.empty() || tail_probed_ || recovering_ || srtt_ns_ == 0 || !sack_) return;
  // RFC 8985 section 7.2: twice the round trip, and the peer's delay when it may hold back its answer.
  const uint64_t delay = flight_.segments() == 1 ? kAckDelayNs : 0;
  const uint64_t probe = now_ns + std::max(2 * srtt_ns_, kTailProbeMinNs) + delay;
  if (probe < rto_at_ns_) tail_probe_at_ns_ = probe;
}

void TcpSender::on_time(uint64_t now_ns) noexcept {
  if (over()) return;
  if (now_ns >= tail_probe_at_ns_) {
    tail_probe_at_ns_ = kNever;
    tail_probed_ = true;
    tail_probe_due_ = !flight_.empty();
  }
  if (now_ns >= window_probe_at_ns_) {
    // A peer that answers probes may keep its window closed for ever (RFC 9293 section 3.8.6.1).
    if (now_ns - progress_ns_ > config_.give_up_ns) {
      state_ = State::timed_out;
      return;
    }
    ++backoff_;
    window_probe_at_ns_ = now_ns + backed_off(rto_ns_);
    window_probe_due_ = true;
  }
  if (now_ns < rto_at_ns_) return;
  if (now_ns - progress_ns_ > config_.give_up_ns) {
    state_ = State::timed_out;
    return;
  }
  ++backoff_;
  rto_at_ns_ = now_ns + backed_off(rto_ns_);
  if (state_ == State::syn_sent) {
    syn_due_ = true;
    return;
  }
  if (flight_.empty()) {
    rto_at_ns_ = kNever;
    return;
  }
  ++counters_.timeouts;
  // RFC 5681 section 3.1: the threshold is set once per loss, the window is one segment.
  if (backoff_ == 1) ssthresh_ = std::max<uint64_t>(flight_.bytes() / 2, 2 * uint64_t{segment_bytes_});
  cwnd_ = segment_bytes_;
  recover_ = nxt_;
  recovering_ = false;
  duplicate_acks_ = 0;
  tail_probe_at_ns_ = kNever;
  flight_.lose_all();
}

// ---- Input

void TcpSender::on_syn_sent(const TcpSegment& segment, uint64_t now_ns) noexcept {
  // RFC 9293 section 3.10.7.3. A SYN without ACK would be a simultaneous open: no listener does that.
  if (!segment.has(tcp_flag::ack) || segment.ack != seq_of(0)) return;
  if (segment.has(tcp_flag::rst)) {
    state_ = State::reset;
    return;
  }
  if (!segment.has(tcp_flag::syn)) return;
  state_ = State::established;
  rcv_nxt_ = segment.seq + 1U;
  const uint32_t peer_mss =
      segment.has_option(tcp_option::mss) ? std::max<uint16_t>(segment.mss, 64) : uint16_t{536};
  timestamps_ = config_.timestamps && segment.has_option(tcp_option::timestamps);
  sack_ = config_.sack && segment.has_option(tcp_option::sack_permitted);
  segment_bytes_ = std::min<uint32_t>(peer_mss, config_.mss) - (timestamps_ ? kTimestampBytes : 0);
  if (config_.window_scaling && segment.has_option(tcp_option::window_scale))
    send_shift_ = std::min<uint8_t>(segment.window_scale, 14);
  if (timestamps_) ts_recent_ = segment.ts_val;
  right_edge_ = segment.window;  // never scaled in a SYN
  wl1_ = segment.seq;
  wl2_ = segment.ack;
  cwnd_ = uint64_t{config_.initial_window_segments} * segment_bytes_;
  if (backoff_ == 0) sample_rtt(std::max<uint64_t>(now_ns - syn_sent_ns_, 1));
  backoff_ = 0;
  rto_at_ns_ = kNever;
  progress_ns_ = now_ns;
  ack_due_ = true;
}

bool TcpSender::acceptable(const TcpSegment& segment, uint64_t now_ns) noexcept {
  // RFC 9293 section 3.10.7.4 with RFC 5961: only the exact number resets; SYN and strays are asked back.
  const int32_t ahead = segment.seq - rcv_nxt_;
  if (segment.has(tcp_flag::rst)) {
    if (ahead == 0)
      state_ = State::reset;
    else if (ahead > 0 && ahead < kReceiveWindow)
      challenge(now_ns);
    return false;
  }
  if (segment.has(tcp_flag::syn)) {
    challenge(now_ns);
    return false;
  }
  if (!segment.has(tcp_flag::ack)) return false;
  if (timestamps_ && segment.has_option(tcp_option::timestamps)) {
    if (static_cast<int32_t>(segment.ts_val - ts_recent_) < 0) {
      challenge(now_ns);
      return false;
    }
    if (ahead <= 0) ts_recent_ = segment.ts_val;
  }
  const uint32_t length = segment.length();
  if (ahead >= kReceiveWindow || (ahead < 0 && static_cast<uint32_t>(-ahead) >= length + (length == 0))) {
    // Old or far away; a keepalive probe is among them. What came before rcv_nxt_ is answered.
    challenge(now_ns);
    return false;
  }
  const int32_t newer = segment.ack - seq_of(nxt_);
  if (newer > 0) {
    challenge(now_ns);
    return false;
  }
  return true;
}

Bytes TcpSender::on_segment(const TcpSegment& segment, Bytes payload, uint64_t now_ns) noexcept {
  switch (state_) {
    case State::syn_sent:
      on_syn_sent(segment, now_ns);
      return {};
    case State::established:
    case State::finished:
      break;
    case State::closed:
    case State::reset:
    case State::timed_out:
      return {};
  }
  if (!acceptable(segment, now_ns)) return {};
  if (state_ == State::established) take_ack(segment, now_ns);
  if (segment.length() == 0) return {};
  ack_due_ = true;
  if (peer_fin_ || segment.seq > rcv_nxt_) return {};  // beyond a hole: the peer sends it again
  const uint32_t skip = bytes_between(segment.seq, rcv_nxt_);
  const Bytes fresh = skip < payload.size() ? payload.subspan(skip) : Bytes{};
  rcv_nxt_ = segment.seq + segment.length();
  if (segment.has(tcp_flag::fin)) peer_fin_ = true;
  return fresh;
}

void TcpSender::take_ack(const TcpSegment& segment, uint64_t now_ns) noexcept {
  ++counters_.acks_heard;
  const int32_t advance = segment.ack - seq_of(una_);
  if (advance < 0) return;
  const uint64_t acked = una_ + static_cast<uint32_t>(advance);  // <= nxt_, see acceptable()
  const uint64_t edge = acked + (uint64_t{segment.window} << send_shift_);
  bool window_changed = false;
  if (wl1_ < segment.seq || (wl1_ == segment.seq && wl2_ <= segment.ack)) {
    window_changed = edge != right_edge_;
    right_edge_ = edge;
    wl1_ = segment.seq;
    wl2_ = segment.ack;
    if (edge > nxt_ && window_probe_at_ns_ != kNever) {
      window_probe_at_ns_ = kNever;
      window_probe_due_ = false;
      backoff_ = 0;
    }
    // An answered probe shows that the peer lives, however long it keeps the window closed.
    if (window_probe_at_ns_ != kNever) progress_ns_ = now_ns;
  }

  Flight::Delivery delivered;
  const bool had_flight = !flight_.empty();
  if (acked > una_) {
    delivered = flight_.acknowledge(acked, now_ns);
    una_ = acked;
    duplicate_acks_ = 0;
    backoff_ = 0;
    tail_probed_ = tail_probe_due_ = false;
    progress_ns_ = now_ns;
    if (fin_sent_ && una_ == stream_end_ + 1) {
      state_ = State::finished;
      rto_at_ns_ = tail_probe_at_ns_ = window_probe_at_ns_ = kNever;
      return;
    }
  } else if (had_flight && segment.length() == 0 && (!window_changed || segment.sack_count > 0)) {
    ++duplicate_acks_;
  }
  if (sack_) {
    for (uint32_t i = 0; i < segment.sack_count; ++i) {
      const int32_t begin = segment.sack[i].begin - seq_of(una_);
      const int32_t end = segment.sack[i].end - seq_of(una_);
      // Below una_: a duplicate's report (RFC 2883). Beyond nxt_: nonsense.
      if (begin < 0 || end <= begin || static_cast<uint64_t>(end) > nxt_ - una_) continue;
      const Flight::Delivery more =
          flight_.sack({una_ + static_cast<uint32_t>(begin), una_ + static_cast<uint32_t>(end)}, now_ns);
      delivered.bytes += more.bytes;
      if (more.rtt_ns != 0) delivered.rtt_ns = more.rtt_ns;
    }
  }
  if (delivered.rtt_ns != 0) sample_rtt(delivered.rtt_ns);

  const bool was_recovering = recovering_;
  if (recovering_ && una_ >= recover_) recovering_ = false;
  bool lost = false;
  if (sack_) {
    lost = flight_.detect_losses(std::max(srtt_ns_ / 4, kReorderMinNs));
  } else if (recovering_ ? delivered.bytes > 0 : duplicate_acks_ == 3) {
    flight_.lose_first();  // a partial acknowledgment names the next hole (RFC 6582 section 3.2)
    lost = true;
  }
  if (lost && !recovering_ && una_ >= recover_) reduce();
  if (!recovering_ && !was_recovering && delivered.bytes > 0) grow(delivered.bytes);
  if (delivered.bytes > 0) arm_timers(now_ns);
}

void TcpSender::grow(uint64_t delivered) noexcept {
  if (!limited_) return;  // what was not used tells nothing about the path (RFC 7661)
  limited_ = false;
  constexpr uint64_t kCwndMax = 1ULL << 30;
  if (cwnd_ < ssthresh_) {
    cwnd_ += delivered;
  } else {
    grown_ += delivered;
    const uint64_t windows = grown_ / cwnd_;
    grown_ -= windows * cwnd_;
    cwnd_ += windows * segment_bytes_;
  }
  cwnd_ = std::min(cwnd_, kCwndMax);
}

void TcpSender::reduce() noexcept {
  ++counters_.fast_recoveries;
  recovering_ = resend_now_ = true;
  recover_ = nxt_;
  // What is not acknowledged, lost or not: FlightSize of RFC 5681 section 3.1.
  ssthresh_ = std::max<uint64_t>((nxt_ - una_) / 2, 2 * uint64_t{segment_bytes_});
  cwnd_ = std::min(cwnd_, ssthresh_);
  grown_ = 0;
}

void TcpSender::sample_rtt(uint64_t rtt_ns) noexcept {
  rtt_min_ns_ = std::min(rtt_min_ns_, rtt_ns);
  // RFC 6298 section 2.
  if (srtt_ns_ == 0) {
    srtt_ns_ = rtt_ns;
    rttvar_ns_ = rtt_ns / 2;
  } else {
    const uint64_t difference = srtt_ns_ > rtt_ns ? srtt_ns_ - rtt_ns : rtt_ns - srtt_ns_;
    rttvar_ns_ = (3 * rttvar_ns_ + difference) / 4;
    srtt_ns_ = (7 * srtt_ns_ + rtt_ns) / 8;
  }
  rto_ns_ = std::clamp(srtt_ns_ + 4 * rttvar_ns_, config_.rto_min_ns, config_.rto_max_ns);
}

}  // namespace migrx
