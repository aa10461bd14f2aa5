#include "tests/sim/simulation.h"

#include <gtest/gtest.h>

namespace migrx::sim {
namespace {

// Each range is a test of its own, so that the test runner shows how far it came. scripts/simulate runs more.
class Seeds : public ::testing::TestWithParam<uint64_t> {};

TEST_P(Seeds, hold_all_properties) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  constexpr uint64_t kPerTest = 5;  // some twenty times slower
#else
  constexpr uint64_t kPerTest = 100;
#endif
  for (uint64_t seed = GetParam() * kPerTest + 1; seed <= (GetParam() + 1) * kPerTest; ++seed) {
    const RunResult result = run_seed(seed);
    ASSERT_EQ(result.problem, "") << "replay: scripts/simulate --seed " << seed << "\n" << result.summary;
  }
}
INSTANTIATE_TEST_SUITE_P(Simulation, Seeds, ::testing::Range(uint64_t{0}, uint64_t{30}));

// Each of these has failed once, see docs/distrust.md.
TEST(Simulation, seeds_that_failed_once) {
  for (const uint64_t seed : {8660U, 23398U, 27087U, 27168U, 45648U, 49902U, 62229U, 156073U, 207198U}) {
    const RunResult result = run_seed(seed);
    EXPECT_EQ(result.problem, "") << "replay: scripts/simulate --seed " << seed << "\n" << result.summary;
  }
}

TEST(Simulation, a_seed_always_runs_the_same_way) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    const RunResult once = run_seed(seed);
    const RunResult again = run_seed(seed);
    EXPECT_EQ(once.digest, again.digest) << seed;
    EXPECT_EQ(once.frames, again.frames) << seed;
    EXPECT_EQ(once.virtual_ns, again.virtual_ns) << seed;
  }
}

// The seeds together must meet what they are there for.
TEST(Simulation, seeds_cover_losses_failures_and_many_epochs) {
  uint64_t done = 0;
  uint64_t failed = 0;
  uint64_t epochs = 0;
  uint64_t lost = 0;
  uint64_t again = 0;
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    const RunResult result = run_seed(seed);
    done += result.state == SessionState::done ? 1 : 0;
    failed += result.state == SessionState::failed ? 1 : 0;
    epochs += result.epochs;
    lost += result.lost;
    again += result.retransmissions;
  }
  EXPECT_GT(done, 30U);
  EXPECT_GT(failed, 3U);
  EXPECT_GT(epochs, 120U);
  EXPECT_GT(lost, 50U);
  EXPECT_GT(again, 50U);
}

}  // namespace
}  // namespace migrx::sim
