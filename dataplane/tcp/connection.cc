// Input: RFC 9293 section 3.10.7.4, commands, and the state they leave behind. Output is in
// connection_output.cc.
#include "dataplane/tcp/connection.h"

#include <algorithm>
#include <utility>

namespace migrx {
namespace {

// Holes that are remembered at the same time: at 5 % loss a window of 4 MiB has about 150.
constexpr uint32_t kRunsMax = 256;
// RFC 7323 section 5.5: a timestamp older than 24 days says nothing any more.
constexpr uint64_t kTimestampAgeMaxNs = 24ULL * 86'400 * kNsPerSecond;
constexpr uint32_t kTimestampOptionBytes = 12;
constexpr uint32_t kDuplicateAcksMax = 3;  // RFC 5681 section 3.2

uint32_t quota_of(const TcpConfig& config, const Handoff& handoff) noexcept {
  return config.buffer_quota == 0 ? handoff.capacity() : std::min(config.buffer_quota, handoff.capacity());
}

}  // namespace

std::string_view tcp_state_name(TcpState state) noexcept {
  switch (state) {
    case TcpState::closed:
      return "CLOSED";
    case TcpState::established:
      return "ESTABLISHED";
    case TcpState::fin_wait_1:
      return "FIN-WAIT-1";
    case TcpState::fin_wait_2:
      return "FIN-WAIT-2";
    case TcpState::close_wait:
      return "CLOSE-WAIT";
    case TcpState::closing:
      return "CLOSING";
    case TcpState::last_ack:
      return "LAST-ACK";
    case TcpState::time_wait:
      return "TIME-WAIT";
  }
  return "?";
}

TcpConnection::TcpConnection(const TcpConfig& config, Handoff& handoff, TcpCounters& counters)
    : quota_(quota_of(config, handoff)),
      handoff_(handoff),
      counters_(counters),
      config_(config),
      reassembly_(quota_of(config, handoff), kRunsMax) {}

void TcpConnection::open(const TcpHandshake& handshake, uint64_t now_ns) noexcept {
  state_ = TcpState::established;
  tuple_ = handshake.tuple;
  link_ = handshake.link;
  timestamps_ = handshake.timestamps;
  sack_ = handshake.sack;
  duplicate_acks_due_ = 0;
  send_shift_ = handshake.send_shift;
  receive_shift_ = handshake.receive_shift;

  rcv_nxt_ = last_ack_sent_ = handshake.irs + 1;
  rcv_adv_ = rcv_nxt_ + handshake.receive_window;
  ts_recent_ = handshake.ts_recent;
  ts_offset_ = handshake.ts_offset;
  ack_need_ = AckNeed::none;
  unpublished_ = fin_seen_ = stream_ended_ = zero_announced_ = duplicate_pending_ = false;
  quick_acks_ = config_.quick_acks;
  unacked_bytes_ = burst_predicted_ = 0;
  burst_bytes_ = 0;
  heard_ns_ = now_ns;
  handoff_.heard_ns.set(now_ns);
  ack_deadline_ns_ = rto_deadline_ns_ = state_deadline_ns_ = kNever;
  challenges_left_ = config_.challenge_acks_per_second;
  challenge_start_ns_ = now_ns;
  window_max_ = std::min(window_for_path(config_, handshake.rtt_ns), 65535U << receive_shift_);
  const uint32_t option_bytes = timestamps_ ? kTimestampOptionBytes : 0;
  segment_bytes_ = 1;
  note_segment_size(std::max(std::min(config_.mss, handshake.send_mss), uint16_t{64}) - option_bytes);

  snd_una_ = snd_nxt_ = snd_max_ = handshake.iss + 1;
  snd_wl1_ = handshake.irs;
  snd_wl2_ = snd_una_;
  snd_wnd_ = snd_wnd_max_ = handshake.send_window;
  send_mss_ = std::max<uint32_t>(handshake.send_mss, 64) - option_bytes;
  cwnd_ = std::min(10 * send_mss_, SendQueue::kCapacity);  // RFC 6928; more can never be queued
  duplicate_acks_ = probes_sent_ = 0;
  close_requested_ = fin_acked_ = rst_pending_ = command_waits_ = probe_window_ = probe_due_ = rtt_timing_ =
      false;
  send_queue_.clear();
  rtt_.reset(config_);
  if (handshake.rtt_ns != 0) rtt_.sample(handshake.rtt_ns, config_);
  refresh_predictable();
}

// Header prediction, after Van Jacobson: the segment every bulk sender sends nearly always. It passes steps 1
// to 6 and its text is taken as it is; whatever differs goes the long way.
bool TcpConnection::predicted(const TcpInOrder& segment, bool timestamps, std::size_t slices) const noexcept {
  return predictable_ && segment.seq == rcv_nxt_ && segment.ack == snd_una_ && segment.payload_length != 0 &&
         segment.payload_length <= bytes_between(rcv_nxt_, rcv_adv_) &&
         segment.payload_length <= segment_bytes_ && timestamps == timestamps_ &&
         (!timestamps_ || static_cast<int32_t>(segment.ts_val - ts_recent_) >= 0) &&
         handoff_.held() + slices <= quota_ &&
         // A full segment in one buffer takes no more than the window has counted for it.
         ((segment.payload_length == segment_bytes_ && slices == 1) ||
          promise_kept(rcv_nxt_ + segment.payload_length, static_cast<uint32_t>(slices)));
}

// All of a predicted segment but its bytes and the link it came by.
void TcpConnection::note_predicted(const TcpInOrder& segment, uint64_t now_ns) noexcept {
  // RFC 7323 section 4.3 (2): only a segment that begins at or before what we acknowledged last, so that
  // the peer's round trip includes our delay.
  if (timestamps_ && segment.seq <= last_ack_sent_) ts_recent_ = segment.ts_val;
  snd_wnd_ = uint32_t{segment.window} << send_shift_;
  snd_wl1_ = segment.seq;
  snd_wl2_ = segment.ack;
  heard_ns_ = now_ns;
  rcv_nxt_ += segment.payload_length;
  burst_bytes_ += segment.payload_length;
  ++burst_predicted_;
  unpublished_ = true;
  ack_later(segment.payload_length, segment.psh, now_ns);
}

bool TcpConnection::on_in_order(const TcpInOrder& segment, const std::byte* payload, void* buffer,
                                uint64_t now_ns) noexcept {
  if (!predicted(segment, true, 1)) [[unlikely]]
    return false;
  handoff_.push(payload, buffer, segment.payload_length);
  note_predicted(segment, now_ns);
  return true;  // counted when the burst is published
}

TcpCounter TcpConnection::on_segment(const TcpSegment& segment, std::span<Slice> payload,
                                     uint64_t now_ns) noexcept {
  const TcpInOrder in_order{segment.seq,    segment.ack,
                            segment.ts_val, segment.payload_length,
                            segment.window, segment.has(tcp_flag::psh)};
  if ((segment.flags & ~tcp_flag::psh) == tcp_flag::ack &&
      predicted(in_order, segment.has_option(tcp_option::timestamps), payload.size())) [[likely]] {
    link_ = segment.link;
    for (Slice& slice : payload) {
      if (slice.length == 0) continue;
      handoff_.push(slice.data, slice.buffer, slice.length);
      slice.buffer = nullptr;
    }
    note_predicted(in_order, now_ns);
    return TcpCounter::in_order;  // counted when the burst is published
  }
  const TcpCounter fate = on_segment_in_full(segment, payload, now_ns);
  counters_.add(fate);
  refresh_predictable();
  return fate;
}

TcpCounter TcpConnection::on_segment_in_full(const TcpSegment& segment, std::span<Slice> payload,
                                             uint64_t now_ns) noexcept {
  TcpCounter fate = TcpCounter::pure_ack;
  if (state_ == TcpState::closed) return TcpCounter::connection_closed;

  // RFC 6191 and RFC 9293 section 3.10.7.4: a new incarnation may take over a connection in TIME-WAIT if it
  // cannot be mistaken for the old one. Before the first step, which would refuse it.
  if (state_ == TcpState::time_wait &&
      (segment.flags & (tcp_flag::syn | tcp_flag::rst | tcp_flag::ack)) == tcp_flag::syn) {
    const bool newer_clock = timestamps_ && segment.has_option(tcp_option::timestamps) &&
                             static_cast<int32_t>(segment.ts_val - ts_recent_) > 0;
    if (newer_clock || segment.seq > rcv_nxt_) {
      become_closed(StreamEnd::local);
      return TcpCounter::time_wait_reuse;
    }
  }

  // Where the peer is now, also when the segment itself is of no use: a peer whose address changed while it
  // repeats itself, or only probes, is found by that alone.
  if (credible(segment)) link_ = segment.link;

  // First, check sequence number; before it the timestamp (RFC 7323 section 5.3, R1).
  if (!check_timestamp(segment, now_ns, fate)) return fate;
  if (!check_sequence(segment, now_ns, fate)) return fate;
  // Second, check the RST bit.
  if (!check_rst(segment, now_ns, fate)) return fate;

  // Third, check security: there are no compartments here.

  // Fourth, check the SYN bit (RFC 5961 section 4.2).
  if (segment.has(tcp_flag::syn)) {
    challenge(now_ns);
    return TcpCounter::syn_challenged;
  }

  // Fifth, check the ACK field.
  if (!check_ack(segment, now_ns, fate)) return fate;
  // R3 of RFC 7323 section 5.3. Departure: not before the acknowledgment has been found good. A stranger who
  // meets the window's left edge by chance could else set the clock ahead, and the peer's own segments would
  // all be old from then on.
  if (timestamps_ && segment.has_option(tcp_option::timestamps) && segment.seq <= last_ack_sent_ &&
      static_cast<int32_t>(segment.ts_val - ts_recent_) >= 0) {
    ts_recent_ = segment.ts_val;
  }
  heard_ns_ = now_ns;
  handoff_.heard_ns.set(now_ns);
  note_shown(segment);
  take_ack(segment, now_ns);
  if (state_ == TcpState::closed) return fate;  // LAST-ACK: our FIN is acknowledged

  // Sixth, check the URG bit. Departure: urgent data stays in its place in the stream, and no signal says so.
  // QEMU sends none, and RFC 6093 section 6 advises against its use.
  if (segment.has(tcp_flag::urg)) counters_.add(TcpCounter::urgent);

  // Seventh, process the segment text.
  if (segment.payload_length > 0) {
    fate = take_text(segment, payload, now_ns);
  } else if (segment.seq > rcv_nxt_ && !segment.has(tcp_flag::fin)) {
    fate = TcpCounter::ack_behind_hole;
  }
  if (state_ == TcpState::closed) return fate;

  // Eighth, check the FIN bit.
  if (segment.has(tcp_flag::fin) && !note_fin(segment)) return fate;
  if (fin_seen_ && !stream_ended_ && rcv_nxt_ == fin_seq_) {
    take_fin(now_ns);
    return TcpCounter::fin;
  }
  if (segment.has(tcp_flag::fin) && fate == TcpCounter::pure_ack) {
    ack_now();  // a FIN beyond a hole
    return TcpCounter::out_of_order;
  }
  return fate;
}

// A segment that ends beyond RCV.NXT, a bare acknowledgment too, whose number is the peer's SND.NXT: all
// before that has left the peer. What is predicted leaves nothing behind, so this is the long way's alone.
void TcpConnection::note_shown(const TcpSegment& segment) noexcept {
  const SeqNum end = segment.seq + segment.payload_length;
  if (end <= rcv_nxt_) return;
  const uint64_t taken = handoff_.bytes_received.read() + burst_bytes_;
  handoff_.bytes_shown.set(std::max(handoff_.bytes_shown.read(), taken + bytes_between(rcv_nxt_, end)));
}

// The segment shows that its sender knows both sides' numbers: acknowledgment and sequence number are near
// enough to be the peer's (RFC 5961 section 5.2 asks that of the acknowledgment).
bool TcpConnection::credible(const TcpSegment& segment) const noexcept {
  return (segment.flags & (tcp_flag::ack | tcp_flag::syn | tcp_flag::rst)) == tcp_flag::ack &&
         segment.ack <= snd_max_ && segment.ack >= snd_una_ - std::max(snd_wnd_max_, 65535U) &&
         segment.seq <= rcv_adv_ && segment.seq >= rcv_nxt_ - std::max(window_max_, 65535U);
}

bool TcpConnection::check_timestamp(const TcpSegment& segment, uint64_t now_ns, TcpCounter& fate) noexcept {
  if (!timestamps_ || segment.has(tcp_flag::rst)) return true;
  if (!segment.has_option(tcp_option::timestamps)) {
    // RFC 7323 section 3.2: once negotiated, it must be there. A SYN is dealt with by step four.
    if (segment.has(tcp_flag::syn)) return true;
    fate = TcpCounter::timestamp_missing;
    return false;
  }
  if (static_cast<int32_t>(segment.ts_val - ts_recent_) >= 0) return true;
  if (now_ns - heard_ns_ > kTimestampAgeMaxNs) {
    ts_recent_ = segment.ts_val;
    return true;
  }
  if (segment.payload_length > 0) {
    if (segment.seq + segment.payload_length <= rcv_nxt_)
      report_duplicate({segment.seq, segment.seq + segment.payload_length});
    ack_now();
  } else {
    challenge(now_ns);
  }
  fate = TcpCounter::paws_rejected;
  return false;
}

// The table of RFC 9293 section 3.10.7.4. What lies partly in the window is trimmed in take_text().
bool TcpConnection::check_sequence(const TcpSegment& segment, uint64_t now_ns, TcpCounter& fate) noexcept {
  const uint32_t length = segment.length();
  const SeqNum end = segment.seq + length;
  const bool old = length == 0 ? segment.seq < rcv_nxt_ : end <= rcv_nxt_;
  if (old) {
    if (segment.has(tcp_flag::rst)) {
      fate = TcpCounter::rst_ignored;
      return false;
    }
    const bool probe =
        segment.seq + 1 == rcv_nxt_ && segment.payload_length <= 1 && !segment.has(tcp_flag::fin);
    if (probe && !segment.has(tcp_flag::syn)) {
      // RFC 9293 section 3.8.4: a keepalive, or a probe of a closed window as Linux sends it.
      fate = rcv_adv_ == rcv_nxt_ ? TcpCounter::zero_window_probe : TcpCounter::keepalive_probe;
      ack_now();
      // It may as well be a write of one byte that is repeated.
      if (segment.payload_length > 0) report_duplicate({segment.seq, rcv_nxt_});
    } else if (segment.payload_length > 0 || segment.has(tcp_flag::fin)) {
      fate = TcpCounter::duplicate;
      handoff_.duplicate_segments.add();
      if (segment.payload_length > 0) report_duplicate({segment.seq, segment.seq + segment.payload_length});
      ack_now();
      // RFC 9293 section 3.10.7.4, eighth: the peer did not hear our ACK of its FIN.
      if (state_ == TcpState::time_wait) enter_time_wait(now_ns);
    } else {
      // No answer is owed to an old ACK that was overtaken; a SYN is one of RFC 5961 section 4. Rate-limited
      // so that two confused endpoints do not talk for ever.
      fate = segment.has(tcp_flag::syn) ? TcpCounter::syn_challenged : TcpCounter::outside_window;
      challenge(now_ns);
    }
    return false;
  }
  // Departure: a segment without length, or a FIN, may stand exactly at the right edge: a peer that filled
  // the window acknowledges from there, and the end of the stream needs no buffer.
  const bool beyond = segment.seq > rcv_adv_ || (segment.seq == rcv_adv_ && segment.payload_length > 0);
  if (!beyond) return true;
  if (segment.has(tcp_flag::rst)) {
    fate = TcpCounter::rst_ignored;
    return false;
  }
  if (segment.has(tcp_flag::syn)) {
    fate = TcpCounter::syn_challenged;
    challenge(now_ns);
    return false;
  }
  // "If the RCV.WND is zero, [...] special allowance should be made to accept valid ACKs, URGs, and RSTs."
  // take_text() finds nothing in the window and answers.
  if (segment.seq == rcv_adv_ && rcv_adv_ == rcv_nxt_) return true;
  fate = TcpCounter::outside_window;
  if (segment.payload_length > 0) {
    ack_now();
  } else {
    challenge(now_ns);
  }
  return false;
}

bool TcpConnection::check_rst(const TcpSegment& segment, uint64_t now_ns, TcpCounter& fate) noexcept {
  if (!segment.has(tcp_flag::rst)) return true;
  if (state_ == TcpState::time_wait) {
    // Departure: ignored, for RFC 1337 shows how it ends TIME-WAIT too early.
    fate = TcpCounter::rst_ignored;
  } else if (segment.seq == rcv_nxt_) {
    become_closed(StreamEnd::reset);
    fate = TcpCounter::rst;
  } else {
    // RFC 5961 section 3.2: in the window but not at its edge, perhaps a guess.
    challenge(now_ns);
    fate = TcpCounter::rst_challenged;
  }
  return false;
}

bool TcpConnection::check_ack(const TcpSegment& segment, uint64_t now_ns, TcpCounter& fate) noexcept {
  if (!segment.has(tcp_flag::ack)) {
    fate = TcpCounter::ack_missing;
    return false;
  }
  // RFC 5961 section 5.2: SND.UNA - MAX.SND.WND <= SEG.ACK <= SND.NXT.
  if (segment.ack > snd_max_ || segment.ack < snd_una_ - std::max(snd_wnd_max_, 65535U)) {
    challenge(now_ns);
    fate = TcpCounter::ack_unacceptable;
    return false;
  }
  return true;
}

void TcpConnection::take_ack(const TcpSegment& segment, uint64_t now_ns) noexcept {
  const uint32_t window = uint32_t{segment.window} << send_shift_;
  if (segment.ack > snd_una_) {
    take_new_ack(segment, now_ns);
  } else if (segment.ack == snd_una_ && segment.length() == 0 && window == snd_wnd_ && snd_max_ != snd_una_) {
    // RFC 5681 section 3.2. What can be in flight is a few KiB, so the repetition starts from SND.UNA.
    if (++duplicate_acks_ == kDuplicateAcksMax) {
      cwnd_ = std::max(bytes_between(snd_una_, snd_max_) / 2, 2 * send_mss_);
      snd_nxt_ = snd_una_;
      rtt_timing_ = false;
    }
  }
  // RFC 9293 section 3.10.7.4, fifth: only the newest segment tells the window.
  if (segment.ack >= snd_una_ &&
      (snd_wl1_ < segment.seq || (snd_wl1_ == segment.seq && snd_wl2_ <= segment.ack))) {
    if (snd_wnd_ == 0 && window > 0 && rto_deadline_ns_ != kNever) {
      // The persist timer's back-off was about the window, not about the path.
      snd_nxt_ = snd_una_;
      rto_deadline_ns_ = kNever;
    }
    snd_wnd_ = window;
    snd_wnd_max_ = std::max(snd_wnd_max_, window);
    snd_wl1_ = segment.seq;
    snd_wl2_ = segment.ack;
  }
}

void TcpConnection::take_new_ack(const TcpSegment& segment, uint64_t now_ns) noexcept {
  const uint32_t acked = bytes_between(snd_una_, segment.ack);
  const uint32_t bytes = std::min(acked, send_queue_.size());
  send_queue_.acknowledge(bytes);
  handoff_.bytes_acknowledged.add(bytes);
  snd_una_ = segment.ack;
  snd_nxt_ = later(snd_nxt_, snd_una_);
  duplicate_acks_ = 0;
  unacked_since_ns_ = now_ns;
  cwnd_ = std::min(cwnd_ + std::min(acked, send_mss_), SendQueue::kCapacity);

  // RFC 6298 section 3 (Karn) and RFC 7323 section 4.1.
  if (timestamps_ && segment.has_option(tcp_option::timestamps)) {
    const uint32_t rtt_ms = timestamp_at(now_ns, ts_offset_) - segment.ts_ecr;
    if (rtt_ms < 600'000) rtt_.sample(std::max<uint64_t>(rtt_ms, 1) * kNsPerMs, config_);
  } else if (rtt_timing_ && segment.ack >= rtt_seq_) {
    rtt_.sample(now_ns - rtt_start_ns_, config_);
  }
  if (rtt_timing_ && segment.ack >= rtt_seq_) rtt_timing_ = false;

  // RFC 6298 section 5 (5.2), (5.3).
  if (snd_una_ == snd_max_) {
    rto_deadline_ns_ = kNever;
  } else {
    rto_deadline_ns_ = now_ns + rtt_.rto_ns();
  }

  // More than the queue held: our FIN.
  if (acked > bytes) {
    fin_acked_ = true;
    switch (state_) {
      case TcpState::fin_wait_1:
        state_ = TcpState::fin_wait_2;
        state_deadline_ns_ = now_ns + config_.fin_wait_2_ns;
        break;
      case TcpState::closing:
        enter_time_wait(now_ns);
        break;
      case TcpState::last_ack:
        become_closed(StreamEnd::fin);
        break;
      case TcpState::closed:
      case TcpState::established:
      case TcpState::fin_wait_2:
      case TcpState::close_wait:
      case TcpState::time_wait:
        break;  // no FIN of ours is in flight there
    }
  }
}

TcpCounter TcpConnection::take_text(const TcpSegment& segment, std::span<Slice> payload,
                                    uint64_t now_ns) noexcept {
  if (!receiving()) {
    ack_now();
    return TcpCounter::after_fin;
  }
  const SeqNum end = segment.seq + segment.payload_length;
  if (handoff_.detached() && end > rcv_nxt_) {
    // RFC 9293 section 3.10.7.1 and RFC 1122 section 4.2.2.13: nobody will ever read this; the peer must
    // know.
    abort();
    return TcpCounter::after_close;
  }
  SeqNum limit = rcv_adv_;
  if (fin_seen_) limit = earlier(limit, fin_seq_);
  if (segment.seq < rcv_nxt_) report_duplicate({segment.seq, earlier(end, rcv_nxt_)});
  note_segment_size(segment.payload_length);

  bool out_of_order = false;
  bool over_quota = false;
  const bool hole = !reassembly_.empty();
  const SeqNum before = rcv_nxt_;
  SeqNum seq = segment.seq;
  for (Slice& slice : payload) {
    const SeqNum slice_end = seq + slice.length;
    const SeqNum from = later(seq, rcv_nxt_);
    const SeqNum to = earlier(slice_end, limit);
    if (from < to) {
      Slice part = slice;
      part.data += bytes_between(seq, from);
      part.length = bytes_between(from, to);
      const TcpCounter fate = take_slice(from, part);
      slice.buffer = part.buffer;
      out_of_order = out_of_order || fate == TcpCounter::out_of_order;
      over_quota = over_quota || fate == TcpCounter::over_quota;
    }
    seq = slice_end;
  }

  if (over_quota) handoff_.over_quota.add();
  const uint32_t progress = bytes_between(before, rcv_nxt_);
  if (progress > 0) {
    // RFC 5681 section 4.2: a segment that fills all or part of a hole is acknowledged at once.
    if (hole || over_quota || end > limit) ack_now();
    ack_later(progress, segment.has(tcp_flag::psh), now_ns);
    handoff_.segments.add();
    return over_quota ? TcpCounter::over_quota : TcpCounter::in_order;
  }
  ack_now();
  // RFC 5681 sections 3.2 and 4.2: without SACK the sender learns of a loss from the number of duplicate ACKs
  // alone, so the burst's one ACK does not do.
  if (!sack_ && segment.seq > rcv_nxt_) {
    if (duplicate_ack_ != rcv_nxt_) duplicate_acks_due_ = 0;
    duplicate_ack_ = rcv_nxt_;
    if (duplicate_acks_due_ < UINT8_MAX) ++duplicate_acks_due_;
  }
  if (out_of_order) {
    handoff_.segments.add();
    handoff_.out_of_order.add();
    return TcpCounter::out_of_order;
  }
  if (over_quota) return TcpCounter::over_quota;
  if (limit <= segment.seq) {
    return rcv_adv_ == rcv_nxt_ ? TcpCounter::zero_window_probe : TcpCounter::after_fin;
  }
  handoff_.duplicate_segments.add();
  return TcpCounter::duplicate;
}

// Precondition: all of the slice is in the window and at or beyond RCV.NXT.
TcpCounter TcpConnection::take_slice(SeqNum seq, Slice& slice) noexcept {
  const bool in_order = seq == rcv_nxt_;
  if (in_order) {
    const bool joins_tail = reassembly_.empty() && slice.length <= tail_.room();
    // In-order data goes first, or a full quota of out-of-order data would block its own hole for ever.
    while (!joins_tail && free_buffers() == 0 && reassembly_.evict_last())
      counters_.add(TcpCounter::out_of_order_evicted);
    if (!joins_tail && free_buffers() == 0) return TcpCounter::over_quota;
    if (reassembly_.empty()) {
      deliver(slice);
      return TcpCounter::in_order;
    }
  } else if (free_buffers() <= segment_buffers_) {
    return TcpCounter::over_quota;  // the last places are for what fills the hole
  }
  const Reassembly::Result result = reassembly_.insert(seq, slice, in_order);
  if (result.differs) counters_.add(TcpCounter::overlap_differs);
  if (result.overlaps) report_duplicate(result.duplicate_range);
  switch (result.insert) {
    case Reassembly::Insert::stored:
      break;
    case Reassembly::Insert::duplicate:
      return TcpCounter::duplicate;
    case Reassembly::Insert::no_room:
    case Reassembly::Insert::no_run:
      return TcpCounter::over_quota;
  }
  if (!in_order) return TcpCounter::out_of_order;
  Slice next;
  while (reassembly_.pop_at(rcv_nxt_, next)) {
    deliver(next);
    if (next.buffer != nullptr) reassembly_.discard(next.buffer);
  }
  return TcpCounter::in_order;
}

bool TcpConnection::promise_kept(SeqNum next, uint32_t buffers) const noexcept {
  return uint64_t{bytes_between(next, rcv_adv_)} * segment_buffers_ <=
         uint64_t{quota_ - handoff_.held() - buffers} * segment_bytes_;
}

void TcpConnection::deliver(Slice& slice) noexcept {
  rcv_nxt_ += slice.length;
  burst_bytes_ += slice.length;
  unpublished_ = true;
  Slice rest = slice;
  if (!tail_.empty()) {
    const uint32_t copied = tail_.append({rest.data, rest.length});
    if (copied > 0) counters_.add(TcpCounter::put_together);
    rest.data += copied;
    rest.length -= copied;
    if (rest.length == 0) return;  // the buffer has served
    push_tail();
  }
  slice.buffer = nullptr;
  // Were it opened: its bytes would stand where the segment's stood, so that a buffer's worth fits again.
  const bool pushed = config_.room_behind == nullptr || promise_kept(rcv_nxt_, 1);
  const uint32_t room = pushed ? 0 : config_.room_behind(rest.buffer, slice.data + rest.length);
  if (room == 0) {
    handoff_.push(rest);
  } else {
    tail_.open(rest, slice.data, room);
  }
}

// False: a FIN that cannot be believed or is beyond the window; it is as if it had not been there.
bool TcpConnection::note_fin(const TcpSegment& segment) noexcept {
  if (!receiving() || fin_seen_) return true;
  const SeqNum fin_seq = segment.seq + segment.payload_length;
  if (fin_seq < rcv_nxt_ || fin_seq > rcv_adv_) return false;
  if (!reassembly_.empty() && reassembly_.end() > fin_seq) return false;
  fin_seen_ = true;
  fin_seq_ = fin_seq;
  return true;
}

void TcpConnection::take_fin(uint64_t now_ns) noexcept {
  rcv_nxt_ += 1;
  rcv_adv_ = later(rcv_adv_, rcv_nxt_);
  stream_ended_ = true;
  if (!tail_.empty()) push_tail();
  handoff_.push_end(StreamEnd::fin);
  unpublished_ = true;
  ack_now();
  switch (state_) {
    case TcpState::established:
      state_ = TcpState::close_wait;
      break;
    // take_ack() has already moved on if our FIN was acknowledged by the same segment.
    case TcpState::fin_wait_1:
      state_ = TcpState::closing;
      break;
    case TcpState::fin_wait_2:
      enter_time_wait(now_ns);
      break;
    case TcpState::closed:
    case TcpState::close_wait:
    case TcpState::closing:
    case TcpState::last_ack:
    case TcpState::time_wait:
      break;  // the FIN has been taken before: stream_ended_ keeps us out
  }
}

void TcpConnection::ack_later(uint32_t bytes, bool pushed, uint64_t now_ns) noexcept {
  unacked_bytes_ += bytes;
  if (ack_need_ == AckNeed::burst_end) return;
  // RFC 9293 section 3.8.6.3: at least every second full-sized segment.
  if (unacked_bytes_ >= 2 * segment_bytes_ || quick_acks_ > 0 || (pushed && config_.ack_on_push)) {
    if (quick_acks_ > 0) --quick_acks_;
    ack_need_ = AckNeed::burst_end;
  } else if (ack_need_ == AckNeed::none) {
    ack_need_ = AckNeed::delayed;
    ack_deadline_ns_ = now_ns + config_.delayed_ack_ns;
  }
}

void TcpConnection::challenge(uint64_t now_ns) noexcept {
  if (now_ns - challenge_start_ns_ >= kNsPerSecond) {
    challenge_start_ns_ = now_ns;
    challenges_left_ = config_.challenge_acks_per_second;
  }
  if (challenges_left_ == 0) {
    counters_.add(TcpCounter::challenge_acks_limited);
    return;
  }
  --challenges_left_;
  counters_.add(TcpCounter::challenge_acks_sent);
  ack_now();
}

void TcpConnection::report_duplicate(SackBlock range) noexcept {
  if (!sack_ || duplicate_pending_)
    return;  // RFC 2883 section 4: one per ACK; the first is as good as another
  duplicate_pending_ = true;
  duplicate_ = range;
}

void TcpConnection::note_segment_size(uint32_t bytes) noexcept {
  bytes = std::min<uint32_t>(bytes, config_.mss);  // more than we allowed is no measure
  if (bytes <= segment_bytes_) return;
  segment_bytes_ = bytes;
  segment_buffers_ = buffers_per_segment(config_, bytes);
  window_whole_ = std::min(window_max_, window_for(config_, quota_, bytes));
}

void TcpConnection::refresh_predictable() noexcept {
  predictable_ = state_ == TcpState::established && reassembly_.empty() && tail_.empty() && !fin_seen_ &&
                 !handoff_.detached();
}

void TcpConnection::become_closed(StreamEnd end) noexcept {
  state_ = TcpState::closed;
  predictable_ = false;
  ack_need_ = AckNeed::none;
  ack_deadline_ns_ = rto_deadline_ns_ = state_deadline_ns_ = kNever;
  reassembly_.clear();
  if (!stream_ended_) {
    stream_ended_ = true;
    if (!tail_.empty()) push_tail();
    handoff_.push_end(end);
    unpublished_ = true;
  }
}

void TcpConnection::enter_time_wait(uint64_t now_ns) noexcept {
  state_ = TcpState::time_wait;
  rto_deadline_ns_ = kNever;
  state_deadline_ns_ = now_ns + config_.time_wait_ns;
}

uint32_t TcpConnection::reclaim(std::span<void*> freed) noexcept {
  uint32_t count = reassembly_.take_discarded(freed);
  uint32_t released = 0;
  static_cast<void>(handoff_.reclaim(freed.subspan(count), released));
  if (handoff_.detached()) predictable_ = false;
  return count + released;
}

void TcpConnection::take_commands(uint64_t now_ns) noexcept {
  while (command_waits_ || handoff_.take_command(command_)) {
    command_waits_ = false;
    switch (command_.kind) {
      case ConnectionCommand::Kind::send: {
        const std::size_t length = std::min<std::size_t>(command_.length, command_.bytes.size());
        if (state_ == TcpState::closed || close_requested_) break;  // nobody to send to
        if (!send(Bytes{command_.bytes}.first(length))) {
          command_waits_ = true;  // the queue is full; ACKs will make room
          return;
        }
        break;
      }
      case ConnectionCommand::Kind::close:
        close(now_ns);
        break;
      case ConnectionCommand::Kind::reset:
        abort();
        break;
      case ConnectionCommand::Kind::probe:
        probe_due_ = config_.keepalive_idle_ns != 0 && snd_una_ == snd_max_;
        break;
    }
  }
}

bool TcpConnection::send(Bytes bytes) noexcept {
  if (state_ != TcpState::established && state_ != TcpState::close_wait) return false;
  if (!send_queue_.append(bytes)) return false;
  return true;
}

void TcpConnection::close(uint64_t now_ns) noexcept {
  if (state_ == TcpState::established) {
    state_ = TcpState::fin_wait_1;
  } else if (state_ == TcpState::close_wait) {
    state_ = TcpState::last_ack;
  } else {
    return;
  }
  close_requested_ = true;
  unacked_since_ns_ = now_ns;
  refresh_predictable();
}

void TcpConnection::abort() noexcept {
  if (state_ == TcpState::closed) return;
  rst_pending_ = state_ != TcpState::time_wait;
  become_closed(StreamEnd::local);
}

}  // namespace migrx
