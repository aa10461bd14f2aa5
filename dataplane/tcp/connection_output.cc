// Output: what is due, when, and the window it announces. Input is in connection.cc.
#include <algorithm>
#include <utility>

#include "dataplane/tcp/connection.h"

namespace migrx {

void TcpConnection::publish() noexcept {
  if (!unpublished_) return;
  unpublished_ = false;
  if (!predictable_ && !tail_.empty()) [[unlikely]] {
    // A loader that has nothing else gets it whatever was promised: it may be what everybody waits for.
    if (handoff_.held() == 0 || promise_kept(rcv_nxt_, 1)) {
      push_tail();
      refresh_predictable();
    } else {
      unpublished_ = true;  // looked at again with each visit
    }
  }
  handoff_.publish();
  handoff_.bytes_received.add(burst_bytes_);
  handoff_.heard_ns.set(heard_ns_);
  handoff_.segments.add(burst_predicted_);
  counters_.add(TcpCounter::in_order, burst_predicted_);
  burst_bytes_ = 0;
  burst_predicted_ = 0;
}

bool TcpConnection::poll_output(uint64_t now_ns, OutSegment& out) noexcept {
  publish();  // before any acknowledgment of it
  if (rst_pending_) return emit_rst(now_ns, out);
  if (state_ == TcpState::closed) return false;
  if (expire_timers(now_ns, out)) return true;
  if (state_ == TcpState::closed) {
    publish();  // the end marker of a connection whose time was over
    return false;
  }
  return emit_data(now_ns, out) || emit_ack(now_ns, out);
}

uint64_t TcpConnection::next_deadline_ns() const noexcept {
  if (rst_pending_) return 0;
  if (state_ == TcpState::closed) return kNever;
  uint64_t deadline = std::min({rto_deadline_ns_, state_deadline_ns_, keepalive_deadline_ns()});
  if (ack_need_ == AckNeed::burst_end) deadline = 0;
  if (ack_need_ == AckNeed::delayed) deadline = std::min(deadline, ack_deadline_ns_);
  return deadline;
}

// ---- The window

// Bytes that surely fit: free places times what a full segment brings per place. Places taken by out-of-order
// data count as free, for their bytes lie inside the window.
SeqNum TcpConnection::right_edge_wanted() const noexcept {
  const uint32_t taken = held() + buffers_spare(quota_);
  uint32_t segments = taken < quota_ ? quota_ - taken : 0;
  if (segment_buffers_ > 1) segments /= segment_buffers_;
  const uint64_t bytes = uint64_t{segments} * segment_bytes_;
  return rcv_nxt_ + static_cast<uint32_t>(std::min<uint64_t>(bytes, window_max_));
}

// Silly window syndrome avoidance, RFC 9293 section 3.8.6.2.2: the right edge moves in steps of a segment, or
// half of the buffer if that is less; and it never moves back.
void TcpConnection::fill_window(OutSegment& out) noexcept {
  const int32_t step = static_cast<int32_t>(std::min(segment_bytes_, std::max(window_whole_ / 2, 1U)));
  const SeqNum wanted = right_edge_wanted();
  if (wanted - rcv_adv_ >= step) rcv_adv_ = wanted;
  const uint32_t window = bytes_between(rcv_nxt_, rcv_adv_);
  out.window = static_cast<uint16_t>(std::min(window >> receive_shift_, 65535U));
  const bool zero = out.window == 0;
  if (zero && !zero_announced_) {
    counters_.add(TcpCounter::zero_windows_sent);
    handoff_.zero_window.add();
  }
  zero_announced_ = zero;
}

// An ACK for the window's sake alone: when the peer has little left to send into and two segments, or half of
// the buffer, have become free. A wide-open window says nothing: the next ACK will.
bool TcpConnection::window_update_due() const noexcept {
  if (!receiving() || fin_seen_) return false;
  const int32_t left = rcv_adv_ - rcv_nxt_;
  const int32_t half = static_cast<int32_t>(window_whole_ / 2);
  if (left > half) return false;
  const int32_t grown = right_edge_wanted() - rcv_adv_;
  if (grown <= 0) return false;
  const auto segment = static_cast<int32_t>(segment_bytes_);
  if (left < segment) return grown >= std::min(segment, std::max(half, 1));
  return grown >= 2 * segment || grown >= half;
}

// ---- Segments

void TcpConnection::fill_header(OutSegment& out, uint8_t flags, SeqNum seq, uint64_t now_ns) noexcept {
  out.tuple = tuple_;
  out.link = link_;
  out.seq = seq;
  out.ack = rcv_nxt_;
  out.flags = flags;
  out.options = 0;
  out.sack_count = 0;
  out.payload = {};
  if (timestamps_) {
    out.options = tcp_option::timestamps;
    out.ts_val = timestamp_at(now_ns, ts_offset_);
    out.ts_ecr = ts_recent_;
  }
  fill_window(out);
  last_ack_sent_ = rcv_nxt_;
  ack_need_ = AckNeed::none;
  ack_deadline_ns_ = kNever;
  unacked_bytes_ = 0;
}

// RFC 2018 section 4; a duplicate goes first, RFC 2883 section 4.
void TcpConnection::fill_sack(OutSegment& out) noexcept {
  if (!sack_) return;
  const uint32_t room = timestamps_ ? kSackBlocksMax - 1 : kSackBlocksMax;
  if (duplicate_pending_) {
    out.sack[out.sack_count++] = duplicate_;
    duplicate_pending_ = false;
    counters_.add(TcpCounter::dsacks_sent);
  }
  if (reassembly_.empty()) return;
  out.sack_count = static_cast<uint8_t>(out.sack_count + reassembly_.sack_blocks(std::span{out.sack}.subspan(
                                                             out.sack_count, room - out.sack_count)));
}

bool TcpConnection::emit_rst(uint64_t now_ns, OutSegment& out) noexcept {
  rst_pending_ = false;
  fill_header(out, tcp_flag::rst | tcp_flag::ack, snd_max_, now_ns);
  counters_.add(TcpCounter::resets_sent);
  return true;
}

bool TcpConnection::sending() const noexcept {
  switch (state_) {
    case TcpState::established:
    case TcpState::close_wait:
    case TcpState::fin_wait_1:
    case TcpState::closing:
    case TcpState::last_ack:
      return true;
    case TcpState::closed:
    case TcpState::fin_wait_2:
    case TcpState::time_wait:
      return false;
  }
  return false;
}

bool TcpConnection::emit_data(uint64_t now_ns, OutSegment& out) noexcept {
  if (!sending() || snd_nxt_ == send_end()) return false;
  const uint32_t offset = bytes_between(snd_una_, snd_nxt_);
  const uint32_t queued = send_queue_.size();
  const uint32_t waiting = offset < queued ? queued - offset : 0;
  const uint32_t limit = std::min(snd_wnd_, cwnd_);
  uint32_t usable = limit > offset ? limit - offset : 0;
  if (probe_window_) usable = std::max(usable, 1U);
  probe_window_ = false;
  const uint32_t length = std::min({waiting, usable, send_mss_});
  // The FIN takes a place of the window too.
  const bool fin = close_requested_ && !fin_acked_ && length == waiting && usable > length;
  // Sender's side of SWS avoidance, RFC 9293 section 3.8.6.2.1, without Nagle's rule: a whole segment, all
  // there is, or half of the largest window.
  const bool worth = fin || length == send_mss_ ||
                     (length > 0 && (length == waiting || usable >= snd_wnd_max_ / 2)) ||
                     (length > 0 && limit <= 1);
  if (!worth) {
    // Nothing is in flight that would make the peer speak: the persist timer does (RFC 9293 section 3.8.6.1).
    if (rto_deadline_ns_ == kNever) {
      unacked_since_ns_ = now_ns;
      rto_deadline_ns_ = now_ns + rtt_.rto_ns();
    }
    return false;
  }

  uint8_t flags = tcp_flag::ack;
  if (length > 0 && length == waiting) flags |= tcp_flag::psh;
  if (fin) flags |= tcp_flag::fin;
  fill_header(out, flags, snd_nxt_, now_ns);
  fill_sack(out);
  out.payload = send_queue_.peek(offset, length);
  const bool again = snd_nxt_ < snd_max_;
  if (snd_una_ == snd_max_) unacked_since_ns_ = now_ns;
  snd_nxt_ += length + (fin ? 1U : 0U);
  if (again) {
    counters_.add(TcpCounter::retransmissions);
  } else if (!rtt_timing_) {
    rtt_timing_ = true;
    rtt_seq_ = snd_nxt_;
    rtt_start_ns_ = now_ns;
  }
  snd_max_ = later(snd_max_, snd_nxt_);
  if (rto_deadline_ns_ == kNever) rto_deadline_ns_ = now_ns + rtt_.rto_ns();  // RFC 6298 section 5 (5.1)
  return true;
}

bool TcpConnection::emit_ack(uint64_t now_ns, OutSegment& out) noexcept {
  if (duplicate_acks_due_ > 0 && duplicate_ack_ != rcv_nxt_) duplicate_acks_due_ = 0;  // the hole is filled
  const bool due = ack_need_ == AckNeed::burst_end || duplicate_acks_due_ > 0 ||
                   (ack_need_ == AckNeed::delayed && ack_deadline_ns_ <= now_ns);
  if (!due) {
    if (!window_update_due()) return false;
    counters_.add(TcpCounter::window_updates_sent);
  }
  // An ACK of something new is no duplicate.
  if (duplicate_acks_due_ > 0 && last_ack_sent_ == rcv_nxt_) --duplicate_acks_due_;
  fill_header(out, tcp_flag::ack, snd_max_, now_ns);
  if (duplicate_acks_due_ > 0) ack_need_ = AckNeed::burst_end;
  fill_sack(out);
  counters_.add(TcpCounter::acks_sent);
  handoff_.acks_sent.add();
  return true;
}

// ---- Timers

bool TcpConnection::expire_timers(uint64_t now_ns, OutSegment& out) noexcept {
  if (state_deadline_ns_ <= now_ns) {
    if (state_ == TcpState::time_wait) {
      become_closed(StreamEnd::fin);
      return false;
    }
    if (state_ == TcpState::fin_wait_2 && handoff_.detached()) return give_up(now_ns, out);
    state_deadline_ns_ = now_ns + config_.fin_wait_2_ns;  // somebody still reads
  }
  if (rto_deadline_ns_ <= now_ns) return expire_retransmission(now_ns, out);
  if (keepalive_deadline_ns() <= now_ns) return expire_keepalive(now_ns, out);
  return false;
}

// RFC 6298 section 5 (5.4) to (5.6), and the persist timer.
bool TcpConnection::expire_retransmission(uint64_t now_ns, OutSegment& out) noexcept {
  // RFC 9293 section 3.8.6.1: a closed window may last for ever as long as the peer answers.
  const bool answered = snd_wnd_ == 0 && now_ns - heard_ns_ < config_.give_up_ns;
  if (now_ns - unacked_since_ns_ >= config_.give_up_ns && !answered) return give_up(now_ns, out);
  rtt_.back_off(config_);
  rto_deadline_ns_ = now_ns + rtt_.rto_ns();
  rtt_timing_ = false;
  duplicate_acks_ = 0;
  cwnd_ = send_mss_;  // RFC 5681 section 3.1
  snd_nxt_ = snd_una_;
  probe_window_ = true;
  return emit_data(now_ns, out);
}

uint64_t TcpConnection::keepalive_deadline_ns() const noexcept {
  // While something is in flight the retransmission timer watches the peer.
  if (config_.keepalive_idle_ns == 0 || snd_una_ != snd_max_ || state_ == TcpState::time_wait) return kNever;
  if (probe_due_) return 0;
  const bool unanswered = probes_sent_ > 0 && heard_ns_ < probe_ns_;
  const uint64_t idle_over_ns = heard_ns_ + config_.keepalive_idle_ns;
  if (!unanswered) return idle_over_ns;
  // A probe that was asked for puts none off.
  const uint64_t next_ns = std::max(probe_ns_ + config_.keepalive_interval_ns, idle_over_ns);
  return config_.give_up_ns == kNever ? next_ns : std::min(next_ns, heard_ns_ + config_.give_up_ns);
}

// RFC 9293 section 3.8.4: a segment from below SND.NXT, which the peer must answer.
bool TcpConnection::expire_keepalive(uint64_t now_ns, OutSegment& out) noexcept {
  const bool asked = std::exchange(probe_due_, false);
  if (heard_ns_ >= probe_ns_) probes_sent_ = 0;
  if (probes_sent_ > 0 && now_ns - heard_ns_ >= config_.give_up_ns) return give_up(now_ns, out);
  ++probes_sent_;
  probe_ns_ = now_ns;
  fill_header(out, tcp_flag::ack, snd_max_ - 1, now_ns);
  counters_.add(TcpCounter::keepalives_sent);
  // The control thread asks because nothing comes. Perhaps our last ACK was lost, which opened the window:
  // nothing else repeats it, the peer's own timers have backed off meanwhile, and it takes no window from a
  // segment as old as the probe.
  if (asked) ack_now();
  return true;
}

bool TcpConnection::give_up(uint64_t now_ns, OutSegment& out) noexcept {
  counters_.add(TcpCounter::timed_out);
  become_closed(StreamEnd::timed_out);
  publish();
  return emit_rst(now_ns, out);  // the peer may be alive behind a path that was broken
}

}  // namespace migrx
