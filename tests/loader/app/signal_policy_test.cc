#include "loader/app/signal_policy.h"

#include <gtest/gtest.h>
#include <signal.h>

namespace migrx {
namespace {

constexpr uint64_t kS = 1'000'000'000;
using enum Standing;

// docs/signals.md, line by line.
TEST(SignalPolicy, the_first_and_a_second_by_standing) {
  struct Row {
    Standing standing;
    SignalAnswer first;
    SignalAnswer second;
  };
  for (const Row& row : {Row{preparing, SignalAnswer::end, SignalAnswer::end},
                         Row{migrating, SignalAnswer::end, SignalAnswer::end},
                         Row{in_transit, SignalAnswer::drain, SignalAnswer::cancel},
                         Row{one_way, SignalAnswer::drain, SignalAnswer::refuse},
                         Row{verdict, SignalAnswer::drain, SignalAnswer::give_up},
                         Row{postcopy, SignalAnswer::relay, SignalAnswer::hold},
                         Row{paused, SignalAnswer::wait, SignalAnswer::leave},
                         Row{ending, SignalAnswer::none, SignalAnswer::none}}) {
    for (const int number : {SIGTERM, SIGINT, SIGHUP}) {
      SignalPolicy policy;
      EXPECT_EQ(policy.on_signal(number, 5 * kS, row.standing), row.first);
      EXPECT_EQ(policy.on_signal(number, 6 * kS, row.standing), row.second);
    }
  }
}

TEST(SignalPolicy, signals_within_a_second_are_one) {
  SignalPolicy policy;
  EXPECT_EQ(policy.on_signal(SIGTERM, 5 * kS, in_transit), SignalAnswer::drain);
  for (uint64_t ms = 1; ms < 1000; ms += 111)
    EXPECT_EQ(policy.on_signal(ms % 2 == 0 ? SIGINT : SIGTERM, 5 * kS + ms * 1'000'000, in_transit),
              SignalAnswer::none);
  EXPECT_EQ(policy.on_signal(SIGTERM, 6 * kS, in_transit), SignalAnswer::cancel);
}

TEST(SignalPolicy, the_second_one_follows_how_far_it_has_come_by_then) {
  SignalPolicy policy;
  EXPECT_EQ(policy.on_signal(SIGTERM, 5 * kS, in_transit), SignalAnswer::drain);
  EXPECT_EQ(policy.on_signal(SIGTERM, 70 * kS, verdict), SignalAnswer::give_up);
}

TEST(SignalPolicy, failover_is_asked_for_at_any_time) {
  SignalPolicy policy;
  EXPECT_EQ(policy.on_signal(SIGTERM, 5 * kS, in_transit), SignalAnswer::drain);
  EXPECT_EQ(policy.on_signal(SIGUSR1, 5 * kS, in_transit), SignalAnswer::fail_over);
  EXPECT_EQ(to_text(SignalAnswer::none, SIGTERM), "");
  EXPECT_NE(to_text(SignalAnswer::drain, SIGTERM).find("SIGTERM"), std::string::npos);
}

}  // namespace
}  // namespace migrx
