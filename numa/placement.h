// Which core does what: a pure function from topology and wishes to a plan that explains itself.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "numa/topology.h"

namespace migrx {

struct PortWish {
  std::string name;              // devargs, for the reasons
  NodeId node = kAnyNode;        // where the device hangs; kAnyNode: nowhere in particular (virtual ports)
  uint64_t link_bits_per_s = 0;  // 0: not known, kLinkAssumed
};

// The speed that is assumed for a port whose speed is not known.
constexpr uint64_t kLinkAssumed = 100'000'000'000;

struct RamWish {
  std::string id;
  NodeId node = kAnyNode;
};

struct PlacementWish {
  std::vector<PortWish> ports;
  std::vector<RamWish> ram;
  uint32_t mtu = 1500;
  // Empty: chosen. A CPU that is in both lists runs both kinds in turn.
  std::vector<CpuId> poll_cpus;
  std::vector<CpuId> loader_cpus;
  // How many are chosen; 0: as many as the links need.
  uint32_t poll_count = 0;
  uint32_t loader_count = 0;
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

// Of the threads, in their order.
[[nodiscard]] std::vector<CpuId> cpus_of(const Placement& placement);

// What one core does, in bytes of guest RAM per second, by the measurements in docs/performance.md (8
// channels), with a fifth left for machines and hours that are worse.
[[nodiscard]] double poll_core_bytes_per_s(uint32_t mtu) noexcept;
[[nodiscard]] double loader_core_bytes_per_s(uint32_t mtu) noexcept;

// "2,4-7": these CPUs; "count=3": so many. Empty: one of `cpus` and `count` is set; else what is wrong with
// the text.
[[nodiscard]] std::string parse_cores(const std::string& text, std::vector<CpuId>& cpus, uint32_t& count);
// "100G", "25G", "400M": bits per second. Empty: `bits` is set; else what is wrong with the text.
[[nodiscard]] std::string parse_link(const std::string& text, uint64_t& bits);

// nullopt: the wish cannot be met on this host; `problem` says why and what to change.
[[nodiscard]] std::optional<Placement> plan_placement(const Topology& topology, const PlacementWish& wish,
                                                      std::string& problem);
// Threads, reasons and warnings as lines for a person.
[[nodiscard]] std::string describe(const Topology& topology, const Placement& placement);

}  // namespace migrx
