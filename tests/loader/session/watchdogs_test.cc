#include "loader/session/watchdogs.h"

#include <gtest/gtest.h>

namespace migrx {
namespace {

constexpr uint64_t kSecond = 1'000'000'000;

SessionLimits limits() {
  SessionLimits limits;
  limits.channels_ns = 75 * kSecond;
  limits.stall_ns = 60 * kSecond;
  limits.destination_ns = 300 * kSecond;
  return limits;
}

TEST(JudgeArrival, nobody_waits_before_the_first_channel_or_when_all_are_here) {
  EXPECT_FALSE(judge_arrival({0, 3, 1000 * kSecond}, limits()));
  EXPECT_FALSE(judge_arrival({3, 3, 1000 * kSecond}, limits()));
  EXPECT_FALSE(judge_arrival({2, 3, 75 * kSecond}, limits()));
}

TEST(JudgeArrival, who_is_missing_has_the_time_of_the_option) {
  const StreamError error = judge_arrival({2, 3, 75 * kSecond + 1}, limits());
  ASSERT_TRUE(error);
  EXPECT_EQ(error.error_class, ErrorClass::mismatch);
  EXPECT_EQ(error.found, 2U);
  EXPECT_EQ(error.allowed, 3U);
  SessionLimits for_ever = limits();
  for_ever.channels_ns = 0;
  EXPECT_FALSE(judge_arrival({2, 3, UINT64_MAX}, for_ever));
}

TEST(JudgeArrival, nobody_is_missing_while_somebody_is_not_heard_here) {
  ArrivalFacts facts{1, 3, 75 * kSecond + 1, 1 << 30};
  facts.unheard = true;
  EXPECT_FALSE(judge_arrival(facts, limits()));
  facts.unheard = false;
  EXPECT_TRUE(judge_arrival(facts, limits()));
}

TEST(JudgeArrival, pages_on_main_alone_tell_that_multifd_is_off_at_the_source) {
  ArrivalFacts facts{1, 3, 5 * kSecond, 256 * 1024};
  EXPECT_NE(judge_arrival(facts, limits()).message().find("does not use multifd"), std::string::npos);
  // The list of blocks only, or channels that are on their way still.
  facts.main_alone_bytes = 256 * 1024 - 1;
  EXPECT_FALSE(judge_arrival(facts, limits()));
  facts = {1, 3, 5 * kSecond - 1, 1 << 30};
  EXPECT_FALSE(judge_arrival(facts, limits()));
  // A small guest's: after the time of the option, with the same words.
  facts = {1, 3, 75 * kSecond + 1, 1000};
  EXPECT_NE(judge_arrival(facts, limits()).message().find("capability multifd"), std::string::npos);
}

TEST(JudgeEnd, an_open_channel_and_one_closed_in_good_order_are_fine) {
  EndFacts facts;
  EXPECT_EQ(judge_end(facts), EndVerdict::fine);
  facts = {.begun = true, .let_go = true, .end = StreamEnd::fin};
  EXPECT_EQ(judge_end(facts), EndVerdict::fine);
}

TEST(JudgeEnd, before_the_first_barrier_no_channel_may_end) {
  EXPECT_EQ(judge_end({.ends_parked = true}), EndVerdict::before_main);
  EXPECT_EQ(judge_end({.let_go = true, .end = StreamEnd::fin}), EndVerdict::too_early);
  // Later a channel that waits at a barrier may have closed: its SYNC has been read.
  EXPECT_EQ(judge_end({.begun = true, .ends_parked = true}), EndVerdict::fine);
}

TEST(JudgeEnd, nor_one_that_main_waits_for) {
  EXPECT_EQ(judge_end({.begun = true, .let_go = true, .end = StreamEnd::fin, .awaited = true}),
            EndVerdict::too_early);
}

TEST(JudgeEnd, a_broken_one_only_after_ram_is_complete) {
  for (const StreamEnd end : {StreamEnd::reset, StreamEnd::timed_out}) {
    EXPECT_EQ(judge_end({.begun = true, .let_go = true, .end = end}), EndVerdict::too_early);
    EXPECT_EQ(judge_end({.begun = true, .let_go = true, .end = end, .ram_complete = true}), EndVerdict::fine);
  }
}

// Found with QEMU 7.2, which gave up and kept its main connection open: migrx waited for 20 s more.
TEST(JudgeEnd, with_a_return_path_a_source_closes_nothing_before_our_verdict) {
  const EndFacts closed{.begun = true, .let_go = true, .end = StreamEnd::fin};
  EXPECT_EQ(judge_end(closed), EndVerdict::fine);
  EndFacts facts = closed;
  facts.return_path = true;
  EXPECT_EQ(judge_end(facts), EndVerdict::too_early);
  facts.ram_complete = true;
  EXPECT_EQ(judge_end(facts), EndVerdict::fine);
}

TEST(JudgeSilence, a_quiet_source_is_no_fault) {
  EXPECT_EQ(judge_silence({.quiet_ns = 250 * kSecond}, limits()), SilenceVerdict::fine);
  EXPECT_EQ(judge_silence({.quiet_ns = 59 * kSecond, .channels_wait = true}, limits()), SilenceVerdict::fine);
}

TEST(JudgeSilence, channels_that_wait_for_each_other_are_one_until_ram_is_complete) {
  SilenceFacts facts{.quiet_ns = 60 * kSecond, .channels_wait = true, .main_parked = true};
  EXPECT_EQ(judge_silence(facts, limits()), SilenceVerdict::barrier);
  const StreamError error = error_of(SilenceVerdict::barrier, limits(), "main met 2");
  EXPECT_NE(error.message().find("main met 2"), std::string::npos);
  facts.device_state = true;
  EXPECT_EQ(judge_silence(facts, limits()), SilenceVerdict::fine);
}

TEST(JudgeSilence, a_source_that_hangs_since_one_of_its_channels_was_refused_hears_the_option) {
  SilenceFacts facts{.quiet_ns = 20 * kSecond - 1, .one_too_many = true, .idle_ns = 60 * kSecond};
  EXPECT_EQ(judge_silence(facts, limits()), SilenceVerdict::fine);
  facts.quiet_ns = 20 * kSecond;
  EXPECT_EQ(judge_silence(facts, limits()), SilenceVerdict::channel_refused);
  const std::string message = error_of(SilenceVerdict::channel_refused, limits(), "").message();
  EXPECT_NE(message.find("--multifd-channels"), std::string::npos) << message;
  facts.one_too_many = false;
  EXPECT_EQ(judge_silence(facts, limits()), SilenceVerdict::fine);
}

TEST(JudgeSilence, but_not_one_that_waits_for_us_or_for_its_own_timers) {
  SilenceFacts facts{.quiet_ns = 59 * kSecond, .channels_wait = true, .one_too_many = true};
  EXPECT_EQ(judge_silence(facts, limits()), SilenceVerdict::fine);
  facts.idle_ns = 20 * kSecond - 1;
  EXPECT_EQ(judge_silence(facts, limits()), SilenceVerdict::fine);
  facts.idle_ns = 20 * kSecond;
  EXPECT_EQ(judge_silence(facts, limits()), SilenceVerdict::channel_refused);
}

TEST(JudgeSilence, a_source_that_closed_a_channel_and_waits_for_nobody_is_not_through) {
  SilenceFacts facts{.quiet_ns = 60 * kSecond, .channel_closed = true, .idle_ns = 20 * kSecond};
  EXPECT_EQ(judge_silence(facts, limits()), SilenceVerdict::channel_closed);
  const std::string message = error_of(SilenceVerdict::channel_closed, limits(), "main met 2").message();
  EXPECT_NE(message.find("main met 2"), std::string::npos) << message;
  facts.quiet_ns = 60 * kSecond - 1;
  EXPECT_EQ(judge_silence(facts, limits()), SilenceVerdict::fine);
  facts.quiet_ns = 600 * kSecond;
  facts.idle_ns = 0;  // an outage, or bytes that its own TCP has to send again
  EXPECT_EQ(judge_silence(facts, limits()), SilenceVerdict::fine);
  facts.quiet_ns = 60 * kSecond;
  facts.idle_ns = 20 * kSecond;
  facts.device_state = true;  // the destination has its time
  EXPECT_EQ(judge_silence(facts, limits()), SilenceVerdict::fine);
}

// RFC 6298: what was lost is sent again after two minutes at the latest, and 60 s prove nothing before.
TEST(JudgeSilence, bytes_under_way_have_the_time_of_the_longest_repetition) {
  for (const bool at_barrier : {true, false}) {
    const SilenceVerdict late = at_barrier ? SilenceVerdict::barrier : SilenceVerdict::setup;
    SilenceFacts facts{.quiet_ns = 180 * kSecond - 1, .channels_wait = at_barrier, .before_ram = !at_barrier};
    EXPECT_EQ(judge_silence(facts, limits()), late);
    facts.under_way = true;
    EXPECT_EQ(judge_silence(facts, limits()), SilenceVerdict::fine);
    facts.quiet_ns = 180 * kSecond;
    EXPECT_EQ(judge_silence(facts, limits()), late);
  }
  // The destination's silence is another matter.
  EXPECT_EQ(judge_silence({.quiet_ns = 60 * kSecond, .main_parked = true, .under_way = true}, limits()),
            SilenceVerdict::destination_takes_none);
}

TEST(JudgeSilence, so_is_a_destination_that_takes_nothing) {
  SilenceFacts facts{.quiet_ns = 60 * kSecond, .main_parked = true};
  EXPECT_EQ(judge_silence(facts, limits()), SilenceVerdict::destination_takes_none);
  facts.colo = true;
  EXPECT_EQ(judge_silence(facts, limits()), SilenceVerdict::fine);
}

TEST(JudgeSilence, so_is_a_source_that_hangs_before_its_first_page) {
  SilenceFacts facts{.quiet_ns = 60 * kSecond - 1, .before_ram = true};
  EXPECT_EQ(judge_silence(facts, limits()), SilenceVerdict::fine);
  facts.quiet_ns = 60 * kSecond;
  EXPECT_EQ(judge_silence(facts, limits()), SilenceVerdict::setup);
  EXPECT_EQ(judge_silence({.quiet_ns = 60 * kSecond, .colo = true, .before_ram = true}, limits()),
            SilenceVerdict::fine);
  SessionLimits for_ever = limits();
  for_ever.stall_ns = 0;
  EXPECT_EQ(judge_silence(facts, for_ever), SilenceVerdict::fine);
}

TEST(JudgeSilence, and_one_that_does_not_say_that_it_has_the_guest) {
  SilenceFacts facts{.quiet_ns = 300 * kSecond, .device_state = true};
  EXPECT_EQ(judge_silence(facts, limits()), SilenceVerdict::no_verdict);
  facts.colo = true;
  EXPECT_EQ(judge_silence(facts, limits()), SilenceVerdict::fine);
  facts.colo = false;
  SessionLimits for_ever = limits();
  for_ever.destination_ns = 0;
  EXPECT_EQ(judge_silence(facts, for_ever), SilenceVerdict::fine);
}

TEST(JudgeSilence, each_verdict_but_fine_has_words) {
  EXPECT_FALSE(error_of(SilenceVerdict::fine, limits(), ""));
  for (const SilenceVerdict verdict : {SilenceVerdict::no_verdict, SilenceVerdict::setup,
                                       SilenceVerdict::barrier, SilenceVerdict::destination_takes_none})
    EXPECT_EQ(error_of(verdict, limits(), "").error_class, ErrorClass::timed_out);
}

}  // namespace
}  // namespace migrx
