// A host's topology: nodes, CPUs, which of them share a core, and to which node each PCI function belongs.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "numa/ids.h"

namespace migrx {

struct CpuInfo {
  CpuId cpu;
  NodeId node = kAnyNode;
  int32_t core = 0;  // SMT siblings share it
  int32_t package = 0;
  int32_t last_level_cache = 0;  // CPUs that share the last-level cache share this number
  bool isolated = false;         // the scheduler keeps other work away (isolcpus)
};

struct NodeInfo {
  NodeId node;
  uint64_t memory_bytes = 0;
  std::map<uint64_t, uint64_t> free_hugepages;  // by page size in bytes; this machine only
};

// A plain value: made-up hosts are written down in tests. Only CPUs that this process may use are in it.
struct Topology {
  std::string source;                 // "this host", a file, a synthetic description
  std::vector<NodeInfo> nodes;        // ascending
  std::vector<CpuInfo> cpus;          // ascending
  std::map<std::string, NodeId> pci;  // "0000:41:00.0" -> node, where known

  [[nodiscard]] const CpuInfo* find(CpuId cpu) const noexcept;
  [[nodiscard]] bool has_node(NodeId node) const noexcept;
};

// "" or "this": the running host, cpuset and cgroup limits applied. "synthetic:pack:2 core:8 pu:2":
// hwloc's synthetic descriptions. Anything else: an XML file as lstopo writes it. nullopt: `problem` says
// what is wrong.
[[nodiscard]] std::optional<Topology> load_topology(const std::string& which, std::string& problem);

}  // namespace migrx
