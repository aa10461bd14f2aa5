// How long the control thread sleeps between two looks at its work.
#pragma once

#include <algorithm>
#include <cstdint>

#include "loader/session/session.h"

namespace migrx {

// The destination's bytes go through the control thread: once the guest stands still, each tenth of a
// millisecond that they lie here is downtime. But each look costs some 30 us of a CPU, which on a small host
// is the one on which the source finishes or the destination loads its devices. So it looks often while
// something is due at any moment, and then ever less: a pause delays the bytes that come in it by no more
// than its own length. Whatever the destination says wakes it (SignalWatch::wait()).
class ControlPace {
 public:
  static constexpr int kOrdinaryUs = 500;
  static constexpr int kSwitchoverUs = 100;  // the source stopped its guest and sends the last pages
  static constexpr int kDeviceStateUs = 50;  // after bytes of device state: more may follow
  static constexpr int kDeviceStateUsMax =
      1'000;  // the destination has them all, most likely, and loads them

  static constexpr int kPostcopyUsMax = 200;  // a guest may wait for the page that comes

  // After a look that found `work`; returns microseconds.
  [[nodiscard]] int pause_us(SessionState state, uint32_t work) noexcept {
    const bool relays = state == SessionState::device_state || state == SessionState::postcopy;
    if (work > 0 || !relays) next_us_ = kDeviceStateUs;
    if (work > 0) return 0;
    if (state == SessionState::switchover) return kSwitchoverUs;
    if (!relays) return kOrdinaryUs;
    const int pause = next_us_;
    next_us_ = std::min(2 * next_us_, state == SessionState::postcopy ? kPostcopyUsMax : kDeviceStateUsMax);
    return pause;
  }

 private:
  int next_us_ = kDeviceStateUs;
};

}  // namespace migrx
