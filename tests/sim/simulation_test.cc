#include "tests/sim/simulation.h"

#include <gtest/gtest.h>

namespace migrx::sim {
namespace {

// Each range is a test of its own, so that the test runner shows how far it came. scripts/simulate runs more.
class Seeds : public ::testing::TestWithParam<uint64_t> {};

TEST_P(Seeds, hold_all_properties) {
#ifdef MIGRX_SANITIZED
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

// Plans that show a fault of old, each with several seeds for the rest. (A seed's own plan changes with the
// simulation.)

// The packet that a 7.2 source sends behind its last SYNC is damaged, and may be read behind SHUT 0.
TEST(Simulation, a_damaged_last_packet_leaves_the_guest_at_one_side) {
  Scenario scenario;
  scenario.source.age = Age::v7_2;
  scenario.source.channels = 1;
  scenario.source.pages = 5;
  scenario.source.parts = 1;
  scenario.receiver.workers = 2;
  scenario.to_receiver.delay_ns = scenario.to_source.delay_ns = 50'000;
  scenario.to_receiver.reorder = 0.2;
  scenario.to_receiver.reorder_ns = 500'000;
  scenario.to_receiver.loss = 0.02;
  scenario.worker_pace = 30;
  scenario.fault = Fault::damaged_stream;
  scenario.damage_last_packet = true;
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    const RunResult result = run_scenario(scenario, seed);
    EXPECT_EQ(result.problem, "") << "seed " << seed << "\n" << result.summary;
  }
}

// Small segments fill the buffers of channels that wait at a barrier. Where the network loses nothing,
// whatever comes again was refused although the window had promised it.
TEST(Simulation, nothing_in_small_segments_that_was_promised_comes_again) {
  Scenario scenario;
  scenario.source.channels = 4;
  scenario.source.pages = 30;
  scenario.source.packet_pages = 2;
  scenario.source.dirty = 0.9;
  scenario.receiver.quota = 15;
  scenario.receiver.port.rx_descriptors = 1 << 16;
  scenario.to_receiver.queue_ns_max = UINT64_MAX;
  scenario.to_source.queue_ns_max = UINT64_MAX;
  scenario.worker_pace = 30;
  scenario.fault = Fault::tiny_segments;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    const RunResult result = run_scenario(scenario, seed);
    EXPECT_EQ(result.problem, "") << "seed " << seed << "\n" << result.summary;
    EXPECT_EQ(result.retransmissions, 0U) << "seed " << seed << "\n" << result.summary;
  }
}

// Two VMs of one host, without -uuid, begin within 10 ms: 200 times, with every number of channels.
TEST(Simulation, two_vms_on_one_port_never_share_a_migration) {
  uint64_t failed = 0;
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    Scenario scenario;
    scenario.source.channels = seed % 4;
    scenario.source.pages = 5;
    scenario.source.parts = 1;
    scenario.source.age = seed % 3 == 0 ? Age::v7_2 : Age::v10_0;
    scenario.second = scenario.source;
    scenario.second.channels = scenario.source.channels == 0 ? 0 : seed / 4 % 4;
    scenario.fault = Fault::second_vm;
    const RunResult result = run_scenario(scenario, seed);
    EXPECT_EQ(result.problem, "") << "seed " << seed << "\n" << result.summary;
    failed += result.state == SessionState::failed ? 1 : 0;
  }
  EXPECT_GT(failed, 20U);
  EXPECT_LT(failed, 200U);
}

// The second begins when all of the first is there.
TEST(Simulation, a_second_vm_does_not_end_a_migration_that_is_under_way) {
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    Scenario scenario;
    scenario.source.channels = seed % 4;
    scenario.source.pages = 30;
    scenario.second = scenario.source;
    scenario.second.channels = scenario.source.channels == 0 ? 0 : seed / 4 % 4;
    scenario.fault = Fault::second_vm;
    scenario.second_late = true;
    scenario.stuck_after_refusal_ns = seed % 3 == 0 ? 15'000'000'000 : 0;
    const RunResult result = run_scenario(scenario, seed);
    EXPECT_EQ(result.problem, "") << "seed " << seed << "\n" << result.summary;
    EXPECT_EQ(result.state, SessionState::done) << "seed " << seed << "\n" << result.summary;
  }
}

// The link is away for 65 s and 120 s in precopy, at the switchover, while device state is under way, and
// when the verdict is: completed, and soon after the link is back.
TEST(Simulation, an_outage_at_any_moment_ends_completed) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    Scenario scenario = scenario_of(seed);
    scenario.fault = Fault::outage;
    scenario.source.return_path = true;
    scenario.receiver.peer_timeout_ns = TcpConfig{}.give_up_ns;
    scenario.outage_ns = (seed % 2 == 0 ? 65 : 120) * uint64_t{1'000'000'000};
    scenario.outage_moment = static_cast<Scenario::Moment>(seed / 2 % 4);
    const RunResult result = run_scenario(scenario, seed);
    EXPECT_EQ(result.problem, "") << "seed " << seed << "\n" << result.summary;
    EXPECT_EQ(result.state, SessionState::done) << "seed " << seed;
  }
}

// However few turns the receiver's threads get: late by seconds, they would keep no promise in seconds.
TEST(Simulation, an_outage_ends_in_time_on_a_host_that_gives_few_turns) {
  Scenario scenario;
  scenario.source.channels = 1;
  scenario.source.pages = 5;
  scenario.source.parts = 1;
  scenario.poll_pace = scenario.worker_pace = scenario.control_pace = 5;
  scenario.fault = Fault::outage;
  scenario.receiver.peer_timeout_ns = TcpConfig{}.give_up_ns;
  scenario.outage_moment = Scenario::Moment::verdict;
  scenario.outage_ns = 20'000'000'000;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    const RunResult result = run_scenario(scenario, seed);
    EXPECT_EQ(result.problem, "") << "seed " << seed << "\n" << result.summary;
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
