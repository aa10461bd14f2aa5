// The segments that a TCP sender has sent and that are not acknowledged yet: the scoreboard of RFC 6675, with
// the order of transmissions as RFC 8985 (RACK) keeps it. With that order a repetition that is lost as well
// is noticed without the timer.
#pragma once

#include <cstdint>
#include <memory>

namespace migrx {

// A range of stream offsets; offset 0 is the first byte after SYN.
struct StreamRange {
  uint64_t begin = 0;
  uint64_t end = 0;
};

struct SentSegment {
  uint64_t begin = 0;    // offset of the first byte
  uint64_t sent_ns = 0;  // the last time
  uint64_t serial = 0;   // counts transmissions; of the last one
  uint32_t length = 0;   // payload; the FIN counts one
  bool sacked = false;
  bool lost = false;    // taken for lost and not sent again yet
  bool resent = false;  // more than once: no RTT sample (Karn, RFC 6298 section 3)
  bool fin = false;

  [[nodiscard]] uint64_t end() const noexcept { return begin + length; }
};

// Single thread. Allocates once, when made. Segments keep the boundaries they were first sent with.
class Flight {
 public:
  // segments_max: rounded up to a power of two.
  explicit Flight(uint32_t segments_max);

  [[nodiscard]] bool full() const noexcept { return tail_ - head_ > mask_; }
  [[nodiscard]] bool empty() const noexcept { return head_ == tail_; }
  [[nodiscard]] uint32_t segments() const noexcept { return tail_ - head_; }
  // Bytes sent and neither acknowledged, reported as received, nor taken for lost: "pipe" of RFC 6675.
  [[nodiscard]] uint64_t bytes() const noexcept { return bytes_; }
  [[nodiscard]] bool any_lost() const noexcept { return lost_ > 0; }

  // A new segment after the last one. Precondition: !full().
  void push(uint64_t begin, uint32_t length, bool fin, uint64_t now_ns) noexcept;
  // The oldest segment taken for lost: its copy, now counted as sent at now_ns. Precondition: any_lost().
  SentSegment resend_lost(uint64_t now_ns) noexcept;
  // The newest segment not reported as received, for a tail loss probe. False: there is none.
  bool resend_last(uint64_t now_ns, SentSegment& out) noexcept;

  struct Delivery {
    uint64_t bytes = 0;   // newly acknowledged or reported as received
    uint64_t rtt_ns = 0;  // sample; 0: none
  };
  // Everything below `offset` has arrived.
  Delivery acknowledge(uint64_t offset, uint64_t now_ns) noexcept;
  // [range) has arrived; only whole segments count (RFC 2018 blocks may begin or end anywhere).
  Delivery sack(StreamRange range, uint64_t now_ns) noexcept;
  // Takes for lost what was sent three transmissions or more (DupThresh, RFC 6675; RFC 9002 section 6.1.1
  // counts the same way), or more than reorder_ns, before something that has arrived. True: something new.
  bool detect_losses(uint64_t reorder_ns) noexcept;
  // The first unacknowledged segment alone, when the peer does not tell what it holds (RFC 6582).
  void lose_first() noexcept;
  // The retransmission timer: nothing is believed to have arrived (RFC 6298 section 5; RFC 2018 section 8).
  void lose_all() noexcept;

 private:
  [[nodiscard]] SentSegment& at(uint32_t position) noexcept { return ring_[position & mask_]; }
  void deliver(SentSegment& segment, uint64_t now_ns, Delivery& out) noexcept;
  void lose(uint32_t position) noexcept;
  void transmitted(SentSegment& segment, uint64_t now_ns) noexcept;

  const uint32_t mask_;
  const std::unique_ptr<SentSegment[]> ring_;
  // Free-running positions. Invariant: head_ <= marked_ <= tail_.
  uint32_t head_ = 0;
  uint32_t tail_ = 0;
  uint32_t marked_ = 0;     // segments before it have been looked at by detect_losses()
  uint32_t lost_hint_ = 0;  // no segment before it is lost
  uint32_t lost_ = 0;
  uint64_t bytes_ = 0;
  uint64_t serial_ = 0;
  uint64_t delivered_serial_ = 0;  // newest transmission known to have arrived
  uint64_t delivered_sent_ns_ = 0;
  uint64_t rtt_min_ns_ = UINT64_MAX;
  uint32_t resent_open_ = 0;  // upper bound of resent segments that have not arrived
};

}  // namespace migrx
