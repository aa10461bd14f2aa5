#include "numa/placement.h"

#include <gtest/gtest.h>

#include <set>

#include "numa/cpu_list.h"

namespace migrx {
namespace {

Topology host(const std::string& synthetic) {
  std::string problem;
  const auto topology = load_topology("synthetic:" + synthetic, problem);
  EXPECT_TRUE(topology.has_value()) << problem;
  return topology.value_or(Topology{});
}

Placement plan_of(const Topology& topology, const PlacementWish& wish) {
  std::string problem;
  const auto placement = plan_placement(topology, wish, problem);
  EXPECT_TRUE(placement.has_value()) << problem;
  return placement.value_or(Placement{});
}

std::string refusal(const Topology& topology, const PlacementWish& wish) {
  std::string problem;
  EXPECT_FALSE(plan_placement(topology, wish, problem).has_value());
  return problem;
}

std::set<int32_t> cpus_of(const Placement& placement, AgentRole role) {
  std::set<int32_t> cpus;
  for (const ThreadPlan& thread : placement.threads)
    for (const AgentPlan& agent : thread.agents)
      if (agent.role == role) cpus.insert(thread.cpu.value());
  return cpus;
}

PlacementWish far_apart() {
  PlacementWish wish;
  wish.ports.push_back({"0000:41:00.0", NodeId{1}});
  wish.ram.push_back({"mem", NodeId{0}});
  return wish;
}

TEST(Placement, one_cpu_runs_everything_in_turn) {
  const Placement placement = plan_of(host("core:1 pu:1"), {});
  ASSERT_EQ(placement.threads.size(), 1U);
  EXPECT_EQ(placement.threads[0].agents.size(), 2U);
  EXPECT_EQ(placement.idle, "yield");
}

TEST(Placement, two_cpus_leave_one_to_qemu) {
  const Placement placement = plan_of(host("core:2 pu:1"), {});
  ASSERT_EQ(placement.threads.size(), 1U);
  EXPECT_EQ(placement.left_alone, std::vector<CpuId>{CpuId{0}});
}

TEST(Placement, of_two_cpus_the_control_thread_shares_ours_unless_that_spins) {
  const Topology topology = host("core:2 pu:1");
  PlacementWish wish;
  EXPECT_EQ(plan_of(topology, wish).control_cpu, CpuId{1});
  wish.idle = "sleep";
  EXPECT_EQ(plan_of(topology, wish).control_cpu, CpuId{1});
  wish.idle = "spin";
  EXPECT_EQ(plan_of(topology, wish).control_cpu, std::nullopt);
  EXPECT_EQ(plan_of(host("core:8 pu:1"), {}).control_cpu, std::nullopt);
}

TEST(Placement, smt_siblings_are_not_shared) {
  const Topology topology = host("core:8 pu:2");
  const Placement placement = plan_of(topology, {});
  std::set<int32_t> cores;
  for (const ThreadPlan& thread : placement.threads)
    EXPECT_TRUE(cores.insert(topology.find(thread.cpu)->core).second);
  EXPECT_TRUE(placement.warnings.empty());
}

TEST(Placement, poll_cores_lie_on_the_ports_node_and_loaders_on_the_rams) {
  const Topology topology = host("pack:2 numa:1 core:16 pu:2");
  const Placement placement = plan_of(topology, far_apart());
  for (const int32_t cpu : cpus_of(placement, AgentRole::poll))
    EXPECT_EQ(topology.find(CpuId{cpu})->node, NodeId{1});
  for (const int32_t cpu : cpus_of(placement, AgentRole::loader))
    EXPECT_EQ(topology.find(CpuId{cpu})->node, NodeId{0});
  EXPECT_GE(placement.poll_agents, 1U);
  EXPECT_GE(placement.loader_agents, placement.poll_agents);
}

TEST(Placement, every_node_with_ram_gets_a_loader) {
  const Topology topology = host("pack:4 numa:1 core:4 pu:1");
  PlacementWish wish;
  for (int32_t node = 0; node < 4; ++node) wish.ram.push_back({"m", NodeId{node}});
  std::set<NodeId> nodes;
  const Placement placement = plan_of(topology, wish);
  for (const int32_t cpu : cpus_of(placement, AgentRole::loader))
    nodes.insert(topology.find(CpuId{cpu})->node);
  EXPECT_EQ(nodes.size(), 4U);
}

TEST(Placement, isolated_cores_are_taken_and_then_idle_threads_spin) {
  Topology topology = host("core:8 pu:1");
  for (CpuInfo& cpu : topology.cpus) cpu.isolated = cpu.cpu.value() >= 5;
  const Placement placement = plan_of(topology, {});
  for (const ThreadPlan& thread : placement.threads) EXPECT_GE(thread.cpu.value(), 5);
  EXPECT_EQ(placement.idle, "spin");
}

TEST(Placement, cores_as_asked_for_with_a_warning_for_siblings_and_for_crossing) {
  const Topology topology = host("pack:2 numa:1 core:4 pu:2");
  PlacementWish wish = far_apart();
  wish.poll_cpus = {CpuId{0}};
  wish.loader_cpus = {CpuId{1}};
  const Placement placement = plan_of(topology, wish);
  ASSERT_EQ(placement.warnings.size(), 2U);
  EXPECT_NE(placement.warnings[0].find("siblings"), std::string::npos);
  EXPECT_NE(placement.warnings[1].find("every packet crosses"), std::string::npos);
}

TEST(Placement, one_cpu_in_both_lists_runs_both) {
  PlacementWish wish;
  wish.poll_cpus = wish.loader_cpus = {CpuId{2}};
  const Placement placement = plan_of(host("core:4 pu:1"), wish);
  ASSERT_EQ(placement.threads.size(), 1U);
  EXPECT_EQ(placement.threads[0].agents.size(), 2U);
}

TEST(Placement, impossible_wishes_are_refused_with_what_to_change) {
  const Topology topology = host("core:4 pu:1");
  PlacementWish wish;
  wish.poll_cpus = {CpuId{9}};
  wish.loader_cpus = {CpuId{1}};
  EXPECT_NE(refusal(topology, wish).find("CPU 9"), std::string::npos);
  wish.poll_cpus.clear();
  wish = {};
  wish.ram.push_back({"mem", NodeId{3}});
  EXPECT_NE(refusal(topology, wish).find("node 3"), std::string::npos);
}

TEST(Placement, spinning_where_others_live_is_warned_about) {
  PlacementWish wish;
  wish.idle = "spin";
  EXPECT_FALSE(plan_of(host("core:4 pu:1"), wish).warnings.empty());
}

TEST(Topology, nonsense_is_refused) {
  std::string problem;
  EXPECT_FALSE(load_topology("synthetic:elephants", problem).has_value());
  EXPECT_FALSE(load_topology("/nonexistent.xml", problem).has_value());
  EXPECT_NE(problem.find("lstopo"), std::string::npos);
}

TEST(Topology, this_host_has_only_cpus_we_may_use) {
  std::string problem;
  const auto topology = load_topology("this", problem);
  ASSERT_TRUE(topology.has_value()) << problem;
  EXPECT_FALSE(topology->cpus.empty());
}

TEST(CpuList, both_ways) {
  std::vector<CpuId> cpus;
  EXPECT_EQ(parse_cpu_list("7,2-4,3", cpus), "");
  EXPECT_EQ(format_cpu_list(cpus), "2-4,7");
  for (const char* const bad : {"", "a", "3-1", "1,", "-1", "1-", "99999"})
    EXPECT_NE(parse_cpu_list(bad, cpus), "") << bad;
}

// Isolated CPUs that are second siblings were not seen: the first of each core stood for it.
TEST(Placement, an_isolated_second_sibling_stands_for_its_core) {
  Topology topology = host("pack:1 numa:1 core:8 pu:2");
  for (CpuInfo& cpu : topology.cpus)
    cpu.isolated = cpu.cpu.value() >= 5 && cpu.cpu.value() % 2 == 1 && cpu.cpu.value() <= 11;
  const Placement placement = plan_of(topology, {});
  EXPECT_GE(placement.threads.size(), 2U);
  for (const ThreadPlan& thread : placement.threads) EXPECT_TRUE(topology.find(thread.cpu)->isolated);
  EXPECT_EQ(placement.idle, "spin");
  ASSERT_FALSE(placement.warnings.empty());
  EXPECT_NE(placement.warnings[0].find("CPU 4 is the sibling of isolated CPU 5"), std::string::npos)
      << placement.warnings[0];
}

TEST(Placement, of_two_cores_on_two_nodes_the_near_one) {
  const Topology topology = host("pack:2 numa:1 core:1 pu:1");
  for (const int32_t node : {0, 1}) {
    PlacementWish wish;
    wish.ports.push_back({"0000:41:00.0", NodeId{node}});
    wish.ram.push_back({"mem", NodeId{node}});
    EXPECT_EQ(plan_of(topology, wish).threads.at(0).cpu, CpuId{node});
    wish.ports[0].node = kAnyNode;
    EXPECT_EQ(plan_of(topology, wish).threads.at(0).cpu, CpuId{node});
  }
}

TEST(Placement, a_port_of_no_node_and_the_spare_core_keep_off_the_rams_node) {
  const Topology topology = host("pack:2 numa:1 core:3 pu:1");
  PlacementWish wish;
  wish.ports.push_back({"net_tap0", kAnyNode});
  wish.ram.push_back({"mem", NodeId{0}});
  wish.mtu = 9000;  // one poll and two loader cores: all of node 0
  const Placement placement = plan_of(topology, wish);
  ASSERT_EQ(placement.threads.size(), 3U);
  for (const ThreadPlan& thread : placement.threads) EXPECT_EQ(thread.node, NodeId{0});
}

TEST(Placement, as_many_cores_as_the_links_need_and_it_says_why) {
  const Topology topology = host("pack:2 numa:1 core:32 pu:2");
  struct Expected {
    uint64_t link;
    uint32_t mtu, polls, loaders;
  };
  for (const Expected& e : {Expected{0, 9000, 1, 2}, Expected{100, 9000, 1, 2}, Expected{100, 1500, 2, 2},
                            Expected{25, 1500, 1, 1}, Expected{10, 9000, 1, 1}, Expected{200, 9000, 1, 3},
                            Expected{400, 9000, 2, 6}}) {
    PlacementWish wish;
    wish.ports.push_back({"0000:41:00.0", NodeId{0}, e.link * 1'000'000'000});
    wish.ram.push_back({"mem", NodeId{0}});
    wish.mtu = e.mtu;
    const Placement placement = plan_of(topology, wish);
    EXPECT_EQ(placement.poll_agents, e.polls) << e.link << " " << e.mtu;
    EXPECT_EQ(placement.loader_agents, e.loaders) << e.link << " " << e.mtu;
    EXPECT_TRUE(placement.warnings.empty());
    const std::string text = describe(topology, placement);
    EXPECT_NE(text.find(e.link == 0 ? "is not known: 100 Gbit/s are assumed (--link)" : "Gbit/s"),
              std::string::npos);
    EXPECT_NE(text.find("docs/performance.md"), std::string::npos);
  }
  PlacementWish two;
  for (const int32_t node : {0, 1}) two.ports.push_back({"p", NodeId{node}, 100'000'000'000});
  two.mtu = 9000;
  EXPECT_EQ(plan_of(topology, two).poll_agents, 2U);
}

TEST(Placement, fewer_cores_than_the_links_need_are_said) {
  PlacementWish wish;
  wish.ports.push_back({"0000:41:00.0", kAnyNode, 400'000'000'000});
  const Placement placement = plan_of(host("core:4 pu:1"), wish);
  EXPECT_EQ(placement.threads.size(), 3U);
  ASSERT_FALSE(placement.warnings.empty());
  EXPECT_NE(placement.warnings[0].find("fewer cores than the links need"), std::string::npos);
}

TEST(Placement, a_count_of_cores) {
  const Topology topology = host("pack:2 numa:1 core:8 pu:2");
  PlacementWish wish = far_apart();
  wish.poll_count = 3;
  EXPECT_EQ(plan_of(topology, wish).poll_agents, 3U);
  EXPECT_EQ(plan_of(topology, wish).loader_agents, 2U);
  wish.loader_count = 5;
  EXPECT_EQ(plan_of(topology, wish).loader_agents, 5U);
  wish.poll_count = 0;
  wish.poll_cpus = {CpuId{17}};
  const Placement mixed = plan_of(topology, wish);
  EXPECT_EQ(cpus_of(mixed, AgentRole::poll), std::set<int32_t>{17});
  EXPECT_EQ(mixed.loader_agents, 5U);
  EXPECT_FALSE(cpus_of(mixed, AgentRole::loader).contains(16)) << "its sibling polls";
  wish.loader_count = 16;
  EXPECT_NE(refusal(topology, wish).find("16 cores are too many"), std::string::npos);
}

TEST(Placement, one_list_of_cpus_alone_lets_the_others_be_chosen) {
  const Topology topology = host("core:4 pu:1");
  PlacementWish wish;
  wish.loader_cpus = {CpuId{2}};
  EXPECT_EQ(plan_of(topology, wish).loader_agents, 1U);
  EXPECT_GE(plan_of(topology, wish).poll_agents, 1U);
  EXPECT_FALSE(cpus_of(plan_of(topology, wish), AgentRole::poll).contains(2));
  const Topology single = host("core:1 pu:1");
  wish.loader_cpus = {CpuId{0}};
  EXPECT_EQ(plan_of(single, wish).threads.size(), 1U);
  EXPECT_EQ(plan_of(single, wish).poll_agents, 1U);
}

TEST(Placement, words_for_cores_and_links) {
  std::vector<CpuId> cpus;
  uint32_t count = 0;
  EXPECT_EQ(parse_cores("2,4-5", cpus, count), "");
  EXPECT_EQ(cpus.size(), 3U);
  EXPECT_EQ(count, 0U);
  EXPECT_EQ(parse_cores("count=3", cpus, count), "");
  EXPECT_TRUE(cpus.empty());
  EXPECT_EQ(count, 3U);
  for (const char* const text : {"count=", "count=0", "count=65", "count=3x", "count=-1", "x"})
    EXPECT_NE(parse_cores(text, cpus, count), "") << text;
  uint64_t bits = 0;
  EXPECT_EQ(parse_link("100G", bits), "");
  EXPECT_EQ(bits, 100'000'000'000U);
  EXPECT_EQ(parse_link("100M", bits), "");
  EXPECT_EQ(bits, 100'000'000U);
  for (const char* const text : {"", "100", "G", "0G", "-1G", "99999999G", "100Gb"})
    EXPECT_NE(parse_link(text, bits), "") << text;
}

}  // namespace
}  // namespace migrx
