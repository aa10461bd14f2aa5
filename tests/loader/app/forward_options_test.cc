#include "loader/app/forward_options.h"

#include <gtest/gtest.h>

#include <string>

namespace migrx {
namespace {

struct ForwardOptionsTest : testing::Test {
  ForwardOptions options;
  TenantOptions tenant;
  JobOptions job;
  ForwardPlan plan;

  std::string problem() { return plan_forwards(options, tenant, job, plan); }
  void expect_problem(const std::string& words) {
    EXPECT_NE(problem().find(words), std::string::npos) << problem();
  }
};

TEST_F(ForwardOptionsTest, nothing_is_forwarded_by_itself) {
  EXPECT_EQ(problem(), "");
  EXPECT_EQ(plan.places(), 0U);
  job.handoff = "unix:/run/vm0.sock";
  EXPECT_EQ(problem(), "");
  EXPECT_EQ(plan.places(), 0U);
  job.handoff = "tcp:127.0.0.1:4444";
  EXPECT_EQ(problem(), "");
  EXPECT_EQ(plan.places(), 0U);
}

TEST_F(ForwardOptionsTest, with_a_destination_on_a_port_of_libvirts_its_nbd_server_is_looked_for) {
  for (const char* const port : {"49152", "49215"}) {
    job.handoff = std::string("tcp:[::1]:") + port;
    EXPECT_EQ(problem(), "");
    ASSERT_TRUE(plan.range);
    EXPECT_EQ(plan.range->first, 49152);
    EXPECT_EQ(plan.range->last, 49215);
    EXPECT_EQ(plan.places(), ForwardPlan::kPlaces);
  }
  options.forward_range = "off";
  EXPECT_EQ(problem(), "");
  EXPECT_FALSE(plan.range);
}

TEST_F(ForwardOptionsTest, a_range_of_ones_own_needs_a_destination) {
  options.forward_range = "1000-2000";
  expect_problem("give --handoff");
  job.handoff = "unix:/run/vm0.sock";
  EXPECT_EQ(problem(), "");
  EXPECT_EQ(plan.range->last, 2000);
  for (const char* const wrong : {"2000-1000", "x", "1-", "-1", "0", "1-65536", "on"}) {
    options.forward_range = wrong;
    expect_problem("expected two ports such as 49152-49215, or off");
  }
}

TEST_F(ForwardOptionsTest, rules_have_ports_of_their_own) {
  options.forward = {"10809=127.0.0.1:10809", "10810=192.0.2.1:10809"};
  EXPECT_EQ(problem(), "");
  EXPECT_EQ(plan.rules.size(), 2U);
  EXPECT_EQ(plan.places(), 2 * ForwardPlan::kPlaces);
  options.forward.emplace_back("10809=127.0.0.1:1");
  expect_problem("port 10809 is forwarded already");
  options.forward.back() = "4444=127.0.0.1:1";
  expect_problem("port 4444 is that of --listen");
  options.forward.back() = "4445=host:1";
  expect_problem("--forward 4445=host:1: expected PORT=ADDRESS:PORT");
}

TEST_F(ForwardOptionsTest, rules_are_few) {
  for (int port = 1; port <= 9; ++port) options.forward.push_back(std::to_string(port) + "=127.0.0.1:1");
  expect_problem("8 at most");
}

}  // namespace
}  // namespace migrx
