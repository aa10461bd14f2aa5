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
  wish.ram.push_back({"mem", NodeId{0}, 1ULL << 30});
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
  for (int32_t node = 0; node < 4; ++node) wish.ram.push_back({"m", NodeId{node}, 1 << 30});
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
  EXPECT_NE(refusal(topology, wish).find("go together"), std::string::npos);
  wish = {};
  wish.ram.push_back({"mem", NodeId{3}, 4096});
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

}  // namespace
}  // namespace migrx
