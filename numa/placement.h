// Which core does what: a pure function from topology and wishes to a plan that explains itself.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "numa/topology.h"

namespace migrx {

struct PortWish {
  std::string name;        // devargs, for the reasons
  NodeId node = kAnyNode;  // where the device hangs; kAnyNode: nowhere in particular (virtual ports)
};

struct RamWish {
  std::string id;
  NodeId node = kAnyNode;
  uint64_t bytes = 0;
};

struct PlacementWish {
  std::vector<PortWish> ports;
  std::vector<RamWish> ram;
  // Both empty: chosen. A CPU that is in both lists runs both kinds in turn.
  std::vector<CpuId> poll_cpus;
  std::vector<CpuId> loader_cpus;
  std::string idle;  // "spin", "yield", "sleep"; empty: chosen
};

enum class AgentRole : uint8_t { poll, loader };

struct AgentPlan {
  AgentRole role = AgentRole::poll;
  uint32_t index = 0;      // among the agents of its role
  NodeId node = kAnyNode;  // where its memory should lie
};

struct ThreadPlan {
  CpuId cpu;
  NodeId node = kAnyNode;
  std::vector<AgentPlan> agents;  // run in turn, in this order
};

struct Placement {
  std::vector<ThreadPlan> threads;
  uint32_t poll_agents = 0;
  uint32_t loader_agents = 0;
  std::optional<CpuId> control_cpu;  // of the control thread; nothing: wherever the kernel likes
  std::vector<CpuId> left_alone;
  std::string idle;
  std::vector<std::string> reasons;
  std::vector<std::string> warnings;
};

// nullopt: the wish cannot be met on this host; `problem` says why and what to change.
[[nodiscard]] std::optional<Placement> plan_placement(const Topology& topology, const PlacementWish& wish,
                                                      std::string& problem);
// Threads, reasons and warnings as lines for a person.
[[nodiscard]] std::string describe(const Topology& topology, const Placement& placement);

}  // namespace migrx
