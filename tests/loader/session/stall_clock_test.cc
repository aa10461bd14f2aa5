#include "loader/session/stall_clock.h"

#include <gtest/gtest.h>

namespace migrx {
namespace {

constexpr uint64_t kS = 1'000'000'000;
constexpr uint64_t kStart = 100 * kS;
constexpr uint64_t kLimit = 60 * kS;

// A source that answers what it is asked between `away` and `back`, seconds from the start, not at all.
// Returns the second in which the clock says that it has come to a halt, -1: it did not until `end`.
int stalls(int away, int back, int end, int progress_at = -1, uint64_t limit = kLimit) {
  StallClock clock;
  clock.progressed(kStart);
  clock.heard(kStart, kStart);
  for (int s = 0; s < end; ++s) {
    const uint64_t now = kStart + static_cast<uint64_t>(s) * kS;
    if (s == progress_at) {
      clock.heard(now, now);
      clock.progressed(now);
    }
    if (clock.ask(now) && (s < away || s >= back)) clock.heard(now + 1000, now + 1000);
    if (clock.quiet_ns(now + 2000) >= limit) return s;
  }
  return -1;
}

TEST(StallClock, a_source_that_lives_and_sends_nothing_stalls_after_the_limit) {
  EXPECT_EQ(stalls(1000, 1000, 500), 60);
  EXPECT_EQ(stalls(1000, 1000, 500, 30), 90);
  EXPECT_EQ(stalls(1000, 1000, 500, -1, 5 * kS), 5);
}

TEST(StallClock, while_the_source_is_out_of_reach_no_time_passes) {
  EXPECT_EQ(stalls(0, 10'000, 9'000), -1);
}

// RFC 6298 section 5.5: what it sends again comes after as much time again at the latest.
TEST(StallClock, after_an_outage_a_sender_that_has_backed_off_is_waited_for) {
  for (int away = 0; away < 50; away += 7) {
    for (const int length : {20, 40, 59, 65, 120, 300, 900}) {
      const int back = away + length;
      // Its next repetition, at worst.
      EXPECT_EQ(stalls(away, back, 4000, back + length), back + length + 60) << away << " " << length;
      const int never = stalls(away, back, 4000);
      EXPECT_GE(never, back + std::max(length, 60) - 10) << away << " " << length;
      EXPECT_LE(never, back + std::max(length, 60) + 20) << away << " " << length;
    }
  }
}

TEST(StallClock, who_cannot_be_asked_counts_as_within_reach) {
  StallClock clock;
  clock.progressed(kStart);
  EXPECT_EQ(clock.quiet_ns(kStart + kLimit - 1), kLimit - 1);
  EXPECT_EQ(clock.quiet_ns(kStart + kLimit), kLimit);
}

// Windows close, and the source's timers back off as in an outage.
TEST(StallClock, while_the_source_is_held_up_no_time_passes_and_it_has_as_long_again) {
  for (const uint64_t length : {30 * kS, 90 * kS}) {
    StallClock clock;
    clock.progressed(kStart);
    uint64_t now = kStart;
    for (; now < kStart + length; now += kS) {
      clock.held(true, now);
      EXPECT_EQ(clock.quiet_ns(now), 0U);
    }
    const uint64_t free = now - kS;
    clock.held(false, now);
    EXPECT_EQ(clock.quiet_ns(free + length - 2 * kS), 0U);
    EXPECT_EQ(clock.quiet_ns(free + length), length);
    clock.progressed(now);
    EXPECT_EQ(clock.quiet_ns(now + kS), kS);
  }
}

TEST(StallClock, questions_are_few) {
  StallClock clock;
  clock.progressed(kStart);
  clock.heard(kStart, kStart);
  int asked = 0;
  for (uint64_t ms = 0; ms < 60'000; ++ms) asked += clock.ask(kStart + ms * 1'000'000) ? 1 : 0;
  EXPECT_EQ(asked, 14);
}

}  // namespace
}  // namespace migrx
