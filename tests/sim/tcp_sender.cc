#include "tests/sim/tcp_sender.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace migrx::sim {
namespace {

constexpr uint64_t kMs = 1'000'000;
constexpr uint64_t kRtoMax = 8'000 * kMs;  // shorter than RFC 6298's 60 s: virtual time is cheap, not free
constexpr uint16_t kWindow = 65535;        // we read whatever comes at once

}  // namespace

TcpSender::TcpSender(const TcpSenderOptions& options, Random random) : options_(options), random_(random) {}

void TcpSender::connect(uint64_t now_ns) {
  state_ = State::syn_sent;
  stirred_ = true;
  syn_sent_ns_ = now_ns;
  rto_at_ns_ = now_ns;  // the first SYN leaves with the next poll()
}

std::size_t TcpSender::room() const {
  if (close_requested_ || is_over()) return 0;
  return buffer_.size() < options_.buffer_bytes ? options_.buffer_bytes - buffer_.size() : 0;
}

std::size_t TcpSender::write(Bytes bytes) {
  const std::size_t n = std::min(bytes.size(), room());
  buffer_.insert(buffer_.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(n));
  stirred_ = stirred_ || n > 0;
  return n;
}

void TcpSender::abort() {
  if (is_over()) return;
  stirred_ = true;
  rst_due_ = state_ != State::closed;
  state_ = State::reset;
}

uint64_t TcpSender::in_flight() const {
  uint64_t bytes = 0;
  for (const Sent& run : flight_)
    if (!run.sacked && !run.lost) bytes += run.end - run.begin;
  return bytes;
}

uint32_t TcpSender::segment_bytes() const {
  const uint32_t options = timestamps_ ? 12 : 0;
  const uint32_t most = std::min(options_.segment_max, segment_cap_);
  return std::max(1U, std::min<uint32_t>(most, std::min(send_mss_, options_.mss) - options));
}

uint32_t TcpSender::ts_now(uint64_t now_ns) const {
  return static_cast<uint32_t>(now_ns / kMs) + options_.iss;
}

void TcpSender::emit(uint8_t flags, uint64_t offset, std::size_t length, uint64_t now_ns,
                     std::vector<Packet>& out) {
  OutSegment segment;
  // build_segment() writes tuple.local as the source.
  segment.tuple = options_.tuple;
  segment.link = options_.link;
  segment.seq = seq_of(offset);
  segment.ack = (flags & tcp_flag::ack) != 0 ? rcv_nxt_ : SeqNum{};
  segment.window = kWindow;
  segment.flags = flags;
  if (timestamps_) {
    segment.options |= tcp_option::timestamps;
    segment.ts_val = ts_now(now_ns);
    segment.ts_ecr = ts_recent_;
  }
  std::vector<std::byte> payload(length);
  if (length > 0)
    std::copy_n(buffer_.begin() + static_cast<std::ptrdiff_t>(offset - base_), length, payload.begin());
  segment.payload = payload;
  Packet packet(kHeaderBytesMax + length);
  packet.resize(build_segment(segment, packet, TxChecksum::full));
  out.push_back(std::move(packet));
  ack_due_ = false;
}

void TcpSender::emit_syn(uint64_t now_ns, std::vector<Packet>& out) {
  OutSegment segment;
  segment.tuple = options_.tuple;
  segment.link = options_.link;
  segment.seq = SeqNum{options_.iss};
  segment.window = kWindow;
  segment.flags = tcp_flag::syn;
  segment.options = tcp_option::mss;
  segment.mss = options_.mss;
  if (options_.timestamps) {
    segment.options |= tcp_option::timestamps;
    segment.ts_val = ts_now(now_ns);
  }
  if (options_.sack) segment.options |= tcp_option::sack_permitted;
  if (options_.window_scaling) segment.options |= tcp_option::window_scale;  // shift 0
  Packet packet(kHeaderBytesMax);
  packet.resize(build_segment(segment, packet, TxChecksum::full));
  out.push_back(std::move(packet));
  syn_ever_sent_ = true;
}

void TcpSender::emit_run(Sent& run, uint64_t now_ns, std::vector<Packet>& out) {
  const bool fin = fin_queued_ && run.end == base_ + buffer_.size() + 1;
  const std::size_t length = static_cast<std::size_t>(run.end - run.begin) - (fin ? 1 : 0);
  uint8_t flags = tcp_flag::ack;
  if (fin) flags |= tcp_flag::fin;
  if (run.end >= end()) flags |= tcp_flag::psh;
  emit(flags, run.begin, length, now_ns, out);
  run.at_ns = now_ns;
  run.lost = false;
  if (rto_at_ns_ == UINT64_MAX) rto_at_ns_ = now_ns + (rto_ns_ << std::min(backoff_, 6U));
}

bool TcpSender::send_new(uint64_t now_ns, std::vector<Packet>& out) {
  if (nxt_ >= end()) return false;
  const uint64_t allowed = right_edge_ > nxt_ ? right_edge_ - nxt_ : 0;
  const uint64_t congestion = options_.congestion_control ? cwnd_ : UINT64_MAX / 2;
  const uint64_t flying = in_flight();
  if (timed_out_ && flying > 0) return false;
  const uint64_t open = congestion > flying ? congestion - flying : 0;
  uint64_t n = std::min<uint64_t>(segment_bytes(), end() - nxt_);
  if (options_.uneven_segments && n > 2 && random_.chance(0.3)) n = random_.between(1, n);
  const bool only_fin = fin_queued_ && nxt_ + 1 == end();
  // One segment is always open when nothing is on its way: cwnd may stem from a smaller path MTU (seed 8660).
  if (only_fin ? flying > 0 && open == 0 : flying > 0 && open < std::min<uint64_t>(n, segment_bytes()))
    return false;
  // A FIN needs room in the window as well, but a closed window must not hold it back for ever: probes do
  // that.
  if (n > allowed) {
    // Silly window avoidance, RFC 9293 section 3.8.6.2.1: wait unless nothing is on its way.
    if (!flight_.empty() || allowed == 0) return false;
    n = allowed;
  }
  flight_.push_back({nxt_, nxt_ + n, now_ns});
  nxt_ += n;
  sent_to_ = std::max(sent_to_, nxt_);
  emit_run(flight_.back(), now_ns, out);
  return true;
}

void TcpSender::poll(uint64_t now_ns, std::vector<Packet>& out) {
  if (silent_ || state_ == State::closed) return;
  if (!std::exchange(stirred_, false) && now_ns < std::min(rto_at_ns_, probe_at_ns_)) return;
  if (rst_due_) {
    rst_due_ = false;
    emit(tcp_flag::rst | tcp_flag::ack, nxt_, 0, now_ns, out);
    return;
  }
  if (state_ == State::finished && ack_due_) emit(tcp_flag::ack, nxt_, 0, now_ns, out);
  if (is_over()) return;
  if (state_ == State::syn_sent) {
    if (now_ns >= rto_at_ns_) {
      emit_syn(now_ns, out);
      rto_at_ns_ = now_ns + (1'000 * kMs << std::min(backoff_++, 5U));
    }
    return;
  }
  if (close_requested_ && !fin_queued_) {
    fin_queued_ = true;
    state_ = State::fin_sent;
  }
  expire(now_ns, out);
  // Lost runs first: limited by the congestion window only.
  uint64_t flying = in_flight();
  for (Sent& run : flight_) {
    if (!run.lost) continue;
    if ((options_.congestion_control && flying >= cwnd_) || (timed_out_ && flying > 0)) break;
    flying += run.end - run.begin;
    run.again = true;
    ++retransmissions;
    emit_run(run, now_ns, out);
  }
  while (send_new(now_ns, out)) {
  }
  // Something to send, nothing on its way, no room: RFC 9293 section 3.8.6.1.
  const bool stuck = nxt_ < end() && flight_.empty() && right_edge_ <= nxt_;
  if (!stuck) {
    probe_at_ns_ = UINT64_MAX;
    probes_ = 0;
  } else if (probe_at_ns_ == UINT64_MAX) {
    probe_at_ns_ = now_ns + rto_ns_;
  }
  if (ack_due_) emit(tcp_flag::ack, nxt_, 0, now_ns, out);
  stirred_ = options_.uneven_segments && nxt_ < end();
}

void TcpSender::expire(uint64_t now_ns, std::vector<Packet>& out) {
  if (now_ns >= probe_at_ns_) {
    ++probes_;
    probe_at_ns_ = now_ns + std::min(rto_ns_ << std::min(probes_, 6U), kRtoMax);
    if (options_.probe_with_data && nxt_ < base_ + buffer_.size()) {
      // The next byte, beyond the window. Should it be taken, it is acknowledged as usual.
      flight_.push_back({nxt_, nxt_ + 1, now_ns});
      nxt_ += 1;
      sent_to_ = std::max(sent_to_, nxt_);
      emit_run(flight_.back(), now_ns, out);
    } else {
      // As some kernels do: a number already acknowledged, no byte.
      OutSegment segment;
      segment.tuple = options_.tuple;
      segment.link = options_.link;
      segment.seq = seq_of(una_) - 1U;
      segment.ack = rcv_nxt_;
      segment.window = kWindow;
      segment.flags = tcp_flag::ack;
      if (timestamps_) {
        segment.options |= tcp_option::timestamps;
        segment.ts_val = ts_now(now_ns);
        segment.ts_ecr = ts_recent_;
      }
      Packet packet(kHeaderBytesMax);
      packet.resize(build_segment(segment, packet, TxChecksum::full));
      out.push_back(std::move(packet));
    }
  }
  if (now_ns < rto_at_ns_) return;
  if (flight_.empty()) {
    rto_at_ns_ = UINT64_MAX;
    return;
  }
  // RFC 6298 section 5: everything not known to have arrived is taken for lost.
  ++backoff_;
  constexpr uint32_t kLeast = 500;  // with options and headers less than 576
  if (options_.detect_black_holes && backoff_ > 2) segment_cap_ = std::max(segment_bytes() / 2, kLeast);
  ssthresh_ = std::max<uint64_t>(in_flight() / 2, 2 * segment_bytes());
  cwnd_ = segment_bytes();
  cut_anew();  // SACKed runs as well: the receiver may have thrown them away (RFC 2018 section 8)
  recovering_ = false;
  timed_out_ = true;
  duplicate_acks_ = 0;
  rto_at_ns_ = now_ns + std::min(rto_ns_ << std::min(backoff_, 6U), kRtoMax);
}

// What is under way, cut anew into whole segments: odd little ones would fill a receiver that counts packets
// for ever (Linux collapses them when it repeats them, too). The receiver meets overlaps with other borders.
void TcpSender::cut_anew() {
  const uint64_t end = flight_.back().end;
  uint64_t at = flight_.front().begin;
  flight_.clear();
  for (; at < end; at = flight_.back().end)
    flight_.push_back({at, std::min(end, at + segment_bytes()), 0, false, true, true});
}

uint64_t TcpSender::next_ns() const {
  if (silent_ || is_over()) return rst_due_ || ack_due_ ? 0 : UINT64_MAX;
  return std::min(rto_at_ns_, probe_at_ns_);
}

void TcpSender::sample_rtt(uint64_t rtt_ns) {
  if (srtt_ns_ == 0) {
    srtt_ns_ = rtt_ns;
    rttvar_ns_ = rtt_ns / 2;
  } else {
    const uint64_t difference = srtt_ns_ > rtt_ns ? srtt_ns_ - rtt_ns : rtt_ns - srtt_ns_;
    rttvar_ns_ = (3 * rttvar_ns_ + difference) / 4;
    srtt_ns_ = (7 * srtt_ns_ + rtt_ns) / 8;
  }
  rto_ns_ = std::clamp(srtt_ns_ + 4 * rttvar_ns_, options_.rto_min_ns, kRtoMax);
}

void TcpSender::on_segment(const TcpSegment& segment, Bytes payload, uint64_t now_ns) {
  if (silent_ || state_ == State::closed || state_ == State::reset) return;
  stirred_ = true;
  if (state_ == State::syn_sent) {
    if (segment.has(tcp_flag::rst)) {
      if (segment.has(tcp_flag::ack) && segment.ack == seq_of(0)) state_ = State::reset;
      return;
    }
    if (!segment.has(tcp_flag::syn) || !segment.has(tcp_flag::ack) || segment.ack != seq_of(0)) return;
    state_ = State::established;
    rcv_nxt_ = segment.seq + 1U;
    send_mss_ = segment.has_option(tcp_option::mss) ? segment.mss : uint16_t{536};
    timestamps_ = options_.timestamps && segment.has_option(tcp_option::timestamps);
    sack_ = options_.sack && segment.has_option(tcp_option::sack_permitted);
    const bool scaling = options_.window_scaling && segment.has_option(tcp_option::window_scale);
    send_shift_ = scaling ? segment.window_scale : uint8_t{0};
    if (timestamps_) ts_recent_ = segment.ts_val;
    right_edge_ = segment.window;  // not scaled in a SYN
    wl1_ = segment.seq;
    wl2_ = segment.ack;
    cwnd_ = uint64_t{10} * segment_bytes();
    if (backoff_ <= 1) sample_rtt(now_ns - syn_sent_ns_);
    backoff_ = 0;
    rto_at_ns_ = UINT64_MAX;
    ack_due_ = true;
    return;
  }
  if (segment.has(tcp_flag::rst)) {
    if (segment.seq == rcv_nxt_)
      state_ = State::reset;
    else if (segment.seq - rcv_nxt_ > 0 && segment.seq - rcv_nxt_ < kWindow)
      ack_due_ = true;  // RFC 5961
    return;
  }
  if (segment.has(tcp_flag::syn)) {  // a repeated SYN-ACK: our ACK was lost
    ack_due_ = true;
    return;
  }
  if (!segment.has(tcp_flag::ack)) return;
  // RFC 7323 section 5.3.
  if (timestamps_ && segment.has_option(tcp_option::timestamps)) {
    if (static_cast<int32_t>(segment.ts_val - ts_recent_) < 0) {
      ack_due_ = true;
      return;
    }
    if (segment.seq <= rcv_nxt_) ts_recent_ = segment.ts_val;
  }
  take_ack(segment, now_ns);
  if (segment.length() == 0) {
    // A keepalive probe bears an old number and wants an answer.
    if (segment.seq < rcv_nxt_) ack_due_ = true;
    return;
  }
  ack_due_ = true;
  if (segment.seq > rcv_nxt_ || segment.seq + segment.length() <= rcv_nxt_) return;
  const uint32_t skip = bytes_between(segment.seq, rcv_nxt_);
  if (deaf_ && skip < payload.size()) return abort();
  if (skip < payload.size()) {
    const Bytes fresh = payload.subspan(skip);
    received.insert(received.end(), fresh.begin(), fresh.end());
  }
  rcv_nxt_ = segment.seq + segment.length();
  if (segment.has(tcp_flag::fin)) peer_fin_ = true;
}

void TcpSender::take_sack(const TcpSegment& segment) {
  for (uint32_t i = 0; i < segment.sack_count; ++i) {
    const SackBlock& block = segment.sack[i];
    const int32_t begin = block.begin - seq_of(una_);
    const int32_t stop = block.end - seq_of(una_);
    if (begin < 0 || stop <= begin) continue;  // D-SACK, or old
    for (Sent& run : flight_) {
      if (run.begin >= una_ + static_cast<uint32_t>(begin) && run.end <= una_ + static_cast<uint32_t>(stop)) {
        run.sacked = true;
        run.lost = false;
      }
    }
  }
}

void TcpSender::enter_recovery() {
  if (recovering_) return;
  recovering_ = true;
  recover_ = nxt_;
  ssthresh_ = std::max<uint64_t>(in_flight() / 2, 2 * segment_bytes());
  cwnd_ = ssthresh_;
}

void TcpSender::take_ack(const TcpSegment& segment, uint64_t now_ns) {
  const int32_t advance = segment.ack - seq_of(una_);
  if (advance < 0) return;
  if (una_ + static_cast<uint32_t>(advance) > sent_to_) return;  // watch() has complained
  const uint64_t acked = una_ + static_cast<uint32_t>(advance);
  const bool window_changed = acked + (uint64_t{segment.window} << send_shift_) != right_edge_;
  // RFC 9293 section 3.10.7.4: SND.WL1, SND.WL2.
  if (wl1_ < segment.seq || (wl1_ == segment.seq && wl2_ <= segment.ack)) {
    right_edge_ = acked + (uint64_t{segment.window} << send_shift_);
    wl1_ = segment.seq;
    wl2_ = segment.ack;
  }
  if (acked > una_) {
    while (!flight_.empty() && flight_.front().end <= acked) {
      if (!flight_.front().again && acked >= flight_.front().end)
        sample_rtt(now_ns - flight_.front().at_ns + 1);
      flight_.pop_front();
    }
    if (!flight_.empty() && flight_.front().begin < acked) flight_.front().begin = acked;
    const uint64_t newly = acked - una_;
    una_ = acked;
    if (nxt_ < una_) nxt_ = una_;
    const uint64_t gone = std::min<uint64_t>(una_ - base_, buffer_.size());
    buffer_.erase(buffer_.begin(), buffer_.begin() + static_cast<std::ptrdiff_t>(gone));
    base_ += gone;
    duplicate_acks_ = 0;
    backoff_ = 0;
    timed_out_ = false;
    rto_at_ns_ = flight_.empty() ? UINT64_MAX : now_ns + rto_ns_;
    if (recovering_ && una_ >= recover_) recovering_ = false;
    if (recovering_ && !sack_ && !flight_.empty()) flight_.front().lost = true;  // NewReno, RFC 6582
    cwnd_ += cwnd_ < ssthresh_ ? newly : std::max<uint64_t>(1, newly * segment_bytes() / cwnd_);
    if (fin_queued_ && una_ == end()) state_ = State::finished;
  } else if (segment.length() == 0 && !flight_.empty() && (!window_changed || segment.sack_count > 0)) {
    ++duplicate_acks_;
  }
  if (sack_) {
    take_sack(segment);
    uint64_t above = 0;
    for (auto run = flight_.rbegin(); run != flight_.rend(); ++run) {
      if (run->sacked) above += run->end - run->begin;
      // RFC 6675's DupThresh in bytes; what was sent again in this recovery waits for the timer.
      else if (above > uint64_t{2} * segment_bytes() && !run->again && !run->lost) {
        run->lost = true;
        enter_recovery();
      }
    }
  }
  if (duplicate_acks_ == 3 && !recovering_ && !flight_.empty()) {
    enter_recovery();
    for (Sent& run : flight_) {
      if (run.sacked) continue;
      run.lost = true;
      break;
    }
  }
}

std::string TcpSender::describe() const {
  constexpr const char* kStates[] = {"closed", "SYN sent", "established", "FIN sent", "finished", "reset"};
  std::string out = kStates[static_cast<std::size_t>(state_)];
  if (silent_) out += " (vanished)";
  out += " una " + std::to_string(una_) + " nxt " + std::to_string(nxt_) + " end " + std::to_string(end()) +
         " edge " + std::to_string(right_edge_) + " runs " + std::to_string(flight_.size()) + " flying " +
         std::to_string(in_flight()) + " cwnd " + std::to_string(cwnd_);
  if (rto_at_ns_ != UINT64_MAX) out += " rto at " + std::to_string(rto_at_ns_ / kMs) + " ms";
  if (probe_at_ns_ != UINT64_MAX) out += " probe at " + std::to_string(probe_at_ns_ / kMs) + " ms";
  return out;
}

void TcpSender::watch(const TcpSegment& segment) {
  if (segment.has(tcp_flag::rst)) return;
  if (!segment.has(tcp_flag::ack)) {
    complain("the receiver sent a segment without ACK");
    return;
  }
  if (!syn_ever_sent_) complain("the receiver answered before it was called");
  if (segment.has(tcp_flag::syn)) return;
  const int32_t beyond = segment.ack - seq_of(sent_to_);
  if (beyond > 0)
    complain("the receiver acknowledged " + std::to_string(beyond) + " bytes that were never sent");
  const SeqNum edge = segment.ack + (uint32_t{segment.window} << send_shift_);
  if (watched_) {
    if (segment.ack < watched_ack_) complain("the receiver's acknowledgment went back");
    // RFC 7323 section 2.4: rounding to the scale may take back less than one unit.
    if (watched_edge_ - edge >= 1 << send_shift_)
      complain("the right edge of the window moved back by " + std::to_string(watched_edge_ - edge));
  }
  for (uint32_t i = 0; i < segment.sack_count; ++i) {
    const SackBlock& block = segment.sack[i];
    if (!(block.begin < block.end) || block.end > seq_of(sent_to_))
      complain("SACK of bytes that were never sent");
    // RFC 2883: only the first block may lie below the acknowledgment, or inside the second.
    if (i > 0 && block.begin <= segment.ack) complain("a SACK block that is not a hole's edge");
  }
  watched_ = true;
  watched_ack_ = segment.ack;
  watched_edge_ = edge;
}

}  // namespace migrx::sim
