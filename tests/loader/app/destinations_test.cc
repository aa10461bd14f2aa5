#include "loader/app/destinations.h"

#include <gtest/gtest.h>

#include "loader/app/job_options.h"

namespace migrx {
namespace {

// No route leads there: a socket for datagrams may not be connected to it either.
constexpr const char* kNowhere = "tcp:255.255.255.255:49152";

TEST(DestinationOptions, an_address_without_a_way_is_refused_before_a_source_comes) {
  JobOptions options;
  options.handoff = "tcp:127.0.0.1:49152";
  EXPECT_EQ(check_destination_options(options), "") << "nobody need listen there yet";
  options.handoff = kNowhere;
  const std::string problem = check_destination_options(options);
  EXPECT_TRUE(problem.starts_with("--handoff tcp:255.255.255.255:49152: no connection")) << problem;
  EXPECT_NE(problem.find("--destination-pid"), std::string::npos) << "what to do: " << problem;
}

TEST(DestinationOptions, in_another_network_namespace_the_way_is_not_known_here) {
  JobOptions options;
  options.handoff = kNowhere;
  options.destination_pid = 1;
  EXPECT_EQ(check_destination_options(options), "");
}

}  // namespace
}  // namespace migrx
