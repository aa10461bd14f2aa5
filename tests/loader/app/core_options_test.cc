#include "loader/app/core_options.h"

#include <gtest/gtest.h>

#include <tuple>

namespace migrx {
namespace {

TEST(CoreOptionsTest, counts_and_cpus_are_told_apart) {
  CoreOptions options;
  options.poll_cores = "count=2";
  options.loader_cores = "4-6";
  options.link = "25G";
  PlacementWish wish;
  wish.ports = {{"0000:41:00.0", NodeId{0}}, {"0000:41:00.1", NodeId{0}}};
  EXPECT_EQ(ask_for_cores(options, wish), "");
  EXPECT_EQ(wish.poll_count, 2U);
  EXPECT_TRUE(wish.poll_cpus.empty());
  EXPECT_EQ(wish.loader_cpus, (std::vector<CpuId>{CpuId{4}, CpuId{5}, CpuId{6}}));
  for (const PortWish& port : wish.ports) EXPECT_EQ(port.link_bits_per_s, 25'000'000'000U);
}

TEST(CoreOptionsTest, what_is_wrong_is_named_by_its_option) {
  for (const auto& [poll, loader, link, name] : {std::tuple{"count=x", "", "", "--poll-cores"},
                                                 {"", "4-", "", "--loader-cores"},
                                                 {"", "", "fast", "--link"}}) {
    CoreOptions options;
    options.poll_cores = poll;
    options.loader_cores = loader;
    options.link = link;
    PlacementWish wish;
    EXPECT_TRUE(ask_for_cores(options, wish).starts_with(name)) << name;
  }
}

TEST(CoreOptionsTest, a_link_is_asked_of_interfaces_of_the_kernel_only) {
  EXPECT_EQ(interface_link("0000:41:00.0"), 0U);
  EXPECT_EQ(interface_link("net_tap0,iface=lo"), 0U);
  EXPECT_EQ(interface_link("net_af_packet0,iface=../../../../etc"), 0U);
  EXPECT_EQ(interface_link("net_af_packet0,iface="), 0U);
  EXPECT_EQ(interface_link("net_af_packet0"), 0U);
  EXPECT_EQ(interface_link("net_af_packet0,iface=no-such-interface"), 0U);
}

}  // namespace
}  // namespace migrx
