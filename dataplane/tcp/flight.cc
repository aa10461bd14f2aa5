#include "dataplane/tcp/flight.h"

#include <algorithm>
#include <bit>

namespace migrx {
namespace {

constexpr uint64_t kDupThresh = 3;  // RFC 5681 section 3.2

// Whether a transmission that has not arrived must be lost, given the newest one that has.
bool overtaken(const SentSegment& segment, uint64_t serial, uint64_t sent_ns, uint64_t reorder_ns) noexcept {
  return segment.serial + kDupThresh <= serial ||
         (segment.serial < serial && segment.sent_ns + reorder_ns < sent_ns);
}

}  // namespace

Flight::Flight(uint32_t segments_max)
    : mask_(std::bit_ceil(std::clamp(segments_max, 4U, 1U << 20)) - 1),
      ring_(std::make_unique<SentSegment[]>(mask_ + 1)) {}

void Flight::transmitted(SentSegment& segment, uint64_t now_ns) noexcept {
  segment.sent_ns = now_ns;
  segment.serial = ++serial_;
  bytes_ += segment.length;
}

void Flight::push(uint64_t begin, uint32_t length, bool fin, uint64_t now_ns) noexcept {
  SentSegment& segment = at(tail_++);
  segment = {};
  segment.begin = begin;
  segment.length = length;
  segment.fin = fin;
  transmitted(segment, now_ns);
}

SentSegment Flight::resend_lost(uint64_t now_ns) noexcept {
  while (!at(lost_hint_).lost) ++lost_hint_;
  SentSegment& segment = at(lost_hint_++);
  --lost_;
  segment.lost = false;
  segment.resent = true;
  ++resent_open_;
  transmitted(segment, now_ns);
  return segment;
}

bool Flight::resend_last(uint64_t now_ns, SentSegment& out) noexcept {
  for (uint32_t position = tail_; position != head_;) {
    SentSegment& segment = at(--position);
    if (segment.sacked) continue;
    if (segment.lost) {
      segment.lost = false;
      --lost_;
    } else {
      bytes_ -= segment.length;  // it is counted once
    }
    segment.resent = true;
    ++resent_open_;
    transmitted(segment, now_ns);
    out = segment;
    return true;
  }
  return false;
}

void Flight::deliver(SentSegment& segment, uint64_t now_ns, Delivery& out) noexcept {
  if (segment.lost) {
    segment.lost = false;
    --lost_;
  } else {
    bytes_ -= segment.length;
  }
  out.bytes += segment.length;
  const uint64_t age_ns = now_ns - segment.sent_ns;
  if (!segment.resent) {
    out.rtt_ns = std::max<uint64_t>(age_ns, 1);
    rtt_min_ns_ = std::min(rtt_min_ns_, out.rtt_ns);
  } else if (age_ns < rtt_min_ns_) {
    return;  // too early to be the answer to the repetition (RFC 8985 section 6.2 step 2)
  }
  if (segment.serial > delivered_serial_) {
    delivered_serial_ = segment.serial;
    delivered_sent_ns_ = segment.sent_ns;
  }
}

Flight::Delivery Flight::acknowledge(uint64_t offset, uint64_t now_ns) noexcept {
  Delivery out;
  while (head_ != tail_ && at(head_).end() <= offset) {
    SentSegment& segment = at(head_);
    if (!segment.sacked) deliver(segment, now_ns, out);
    if (marked_ == head_) ++marked_;
    ++head_;
  }
  if (static_cast<int32_t>(lost_hint_ - head_) < 0) lost_hint_ = head_;
  if (head_ == tail_) resent_open_ = 0;
  // An acknowledgment inside a segment: what is left of it stays.
  if (head_ != tail_ && at(head_).begin < offset) {
    SentSegment& segment = at(head_);
    const auto cut = static_cast<uint32_t>(offset - segment.begin);
    if (!segment.sacked) {
      if (!segment.lost) bytes_ -= cut;
      out.bytes += cut;
    }
    segment.begin = offset;
    segment.length -= cut;
  }
  return out;
}

Flight::Delivery Flight::sack(StreamRange range, uint64_t now_ns) noexcept {
  Delivery out;
  // Segments lie in order of their offsets: find the first that begins inside.
  uint32_t low = 0;
  uint32_t high = tail_ - head_;
  while (low < high) {
    const uint32_t middle = low + (high - low) / 2;
    if (at(head_ + middle).begin < range.begin)
      low = middle + 1;
    else
      high = middle;
  }
  for (uint32_t position = head_ + low; position != tail_ && at(position).end() <= range.end; ++position) {
    SentSegment& segment = at(position);
    if (segment.sacked) continue;
    deliver(segment, now_ns, out);
    segment.sacked = true;
  }
  return out;
}

void Flight::lose(uint32_t position) noexcept {
  SentSegment& segment = at(position);
  segment.lost = true;
  bytes_ -= segment.length;
  ++lost_;
  if (static_cast<int32_t>(position - lost_hint_) < 0) lost_hint_ = position;
}

bool Flight::detect_losses(uint64_t reorder_ns) noexcept {
  bool found = false;
  // First transmissions leave in the order of the stream, so those that were overtaken come first.
  for (; marked_ != tail_; ++marked_) {
    const SentSegment& segment = at(marked_);
    if (segment.sacked || segment.lost || segment.resent) continue;
    if (!overtaken(segment, delivered_serial_, delivered_sent_ns_, reorder_ns)) break;
    lose(marked_);
    found = true;
  }
  if (resent_open_ == 0) return found;
  resent_open_ = 0;
  for (uint32_t position = head_; position != marked_; ++position) {
    const SentSegment& segment = at(position);
    if (segment.sacked || segment.lost || !segment.resent) continue;
    if (overtaken(segment, delivered_serial_, delivered_sent_ns_, reorder_ns)) {
      lose(position);
      found = true;
    } else {
      ++resent_open_;
    }
  }
  // A tail loss probe may lie beyond what has been looked at.
  for (uint32_t position = marked_; position != tail_; ++position)
    if (at(position).resent && !at(position).sacked) ++resent_open_;
  return found;
}

void Flight::lose_first() noexcept {
  if (head_ == tail_ || at(head_).lost || at(head_).sacked) return;
  lose(head_);
}

void Flight::lose_all() noexcept {
  bytes_ = 0;
  lost_ = tail_ - head_;
  lost_hint_ = head_;
  marked_ = tail_;
  resent_open_ = 0;
  for (uint32_t position = head_; position != tail_; ++position) {
    at(position).sacked = false;
    at(position).lost = true;
  }
}

}  // namespace migrx
