// Measures how long a session has stood still, without the time in which its source was out of reach.
//
// "No byte came for a minute" has two causes that look alike: the source is here and its channels wait for
// each other in vain, which never ends by itself; or the link is away, which does. So a source that is quiet
// is asked for a sign of life every few seconds. While it gives none, the clock stands still; when the source
// is back the clock begins anew, and allows at least as long as the outage took: a sender whose
// retransmissions have backed off (RFC 6298 section 5.5) comes again after twice the time at the latest.
//
// The same while we hold the source up, because a worker does not look at what came: windows close, and the
// source may send no more.
//
// Sans-IO; the control thread.
#pragma once

#include <algorithm>
#include <cstdint>

namespace migrx {

class StallClock {
 public:
  // A source that is quiet is asked that often,
  static constexpr uint64_t kAskNs = 4'000'000'000;
  // and is out of reach after so much silence: at least one question and its answer have been lost then.
  static constexpr uint64_t kSilenceNs = 10'000'000'000;

  // A byte came, or the destination took one.
  void progressed(uint64_t now_ns) noexcept {
    since_ns_ = now_ns;
    grace_ns_ = 0;
    held_since_ns_ = 0;
  }
  // In each turn: what came from the source is not looked at here.
  void held(bool up, uint64_t now_ns) noexcept {
    if (!up) {
      held_since_ns_ = 0;
      return;
    }
    if (held_since_ns_ == 0) held_since_ns_ = now_ns;
    grace_ns_ = std::max(grace_ns_, now_ns - held_since_ns_);
    since_ns_ = now_ns;
  }
  // When the source's TCP was last heard on any channel, 0: not known, and then it counts as within reach.
  void heard(uint64_t heard_ns, uint64_t now_ns) noexcept {
    if (heard_ns <= heard_ns_) return;
    if (heard_ns_ != 0 && heard_ns - heard_ns_ >= kSilenceNs) {
      grace_ns_ = std::max(grace_ns_, heard_ns - heard_ns_);
      since_ns_ = now_ns;
    }
    heard_ns_ = heard_ns;
  }
  [[nodiscard]] bool out_of_reach(uint64_t now_ns) const noexcept {
    return heard_ns_ != 0 && heard_ns_ + kSilenceNs <= now_ns;
  }
  // For how long it has come to a halt.
  [[nodiscard]] uint64_t quiet_ns(uint64_t now_ns) const noexcept {
    const uint64_t quiet_ns = now_ns - since_ns_;
    return out_of_reach(now_ns) || quiet_ns < grace_ns_ ? 0 : quiet_ns;
  }
  // True: ask the source now; it says so once for each question.
  [[nodiscard]] bool ask(uint64_t now_ns) noexcept {
    if (now_ns < std::max({since_ns_, heard_ns_, asked_ns_}) + kAskNs) return false;
    asked_ns_ = now_ns;
    return true;
  }
  [[nodiscard]] uint64_t since_ns() const noexcept { return since_ns_; }

 private:
  uint64_t since_ns_ = 0;       // last progress, or the end of the last outage
  uint64_t grace_ns_ = 0;       // how long the longest outage since the last progress took
  uint64_t held_since_ns_ = 0;  // 0: not held up
  uint64_t heard_ns_ = 0;
  uint64_t asked_ns_ = 0;
};

}  // namespace migrx
