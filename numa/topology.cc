#include "numa/topology.h"

#include <hwloc.h>
#include <sched.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>

#include "numa/cpu_list.h"

namespace migrx {
namespace {

struct Destroy {
  void operator()(hwloc_topology* topology) const { hwloc_topology_destroy(topology); }
};
using HwlocTopology = std::unique_ptr<hwloc_topology, Destroy>;

// The node whose CPUs include this object's; kAnyNode on machines without.
NodeId node_of(hwloc_topology_t topology, hwloc_const_cpuset_t cpuset) {
  for (hwloc_obj_t node = nullptr;
       (node = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_NUMANODE, node)) != nullptr;)
    if (node->cpuset != nullptr && hwloc_bitmap_isincluded(cpuset, node->cpuset) != 0 &&
        hwloc_bitmap_iszero(node->cpuset) == 0)
      return NodeId{static_cast<int32_t>(node->os_index)};
  return kAnyNode;
}

int32_t index_of_ancestor(hwloc_topology_t topology, hwloc_obj_t pu, hwloc_obj_type_t type) {
  const hwloc_obj_t above = hwloc_get_ancestor_obj_by_type(topology, type, pu);
  return above == nullptr ? 0 : static_cast<int32_t>(above->logical_index);
}

int32_t last_level_cache_of(hwloc_obj_t pu) {
  int32_t found = static_cast<int32_t>(pu->logical_index);
  for (hwloc_obj_t above = pu->parent; above != nullptr; above = above->parent)
    if (hwloc_obj_type_is_dcache(above->type) != 0) found = static_cast<int32_t>(above->gp_index);
  return found;
}

// What only the running host's /sys tells.
void add_host_facts(Topology& topology) {
  std::string text;
  std::ifstream("/sys/devices/system/cpu/isolated") >> text;
  std::vector<CpuId> isolated;
  if (!text.empty() && parse_cpu_list(text, isolated).empty())
    for (CpuInfo& cpu : topology.cpus)
      cpu.isolated = std::binary_search(isolated.begin(), isolated.end(), cpu.cpu);
  for (NodeInfo& node : topology.nodes) {
    const std::string folder =
        "/sys/devices/system/node/node" + std::to_string(node.node.value()) + "/hugepages";
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
      unsigned long kib = 0;
      uint64_t free = 0;
      if (std::sscanf(entry.path().filename().c_str(), "hugepages-%lukB", &kib) != 1) continue;
      std::ifstream(entry.path() / "free_hugepages") >> free;
      node.free_hugepages[uint64_t{kib} * 1024] = free;
    }
  }
}

}  // namespace

const CpuInfo* Topology::find(CpuId cpu) const noexcept {
  const auto at =
      std::find_if(cpus.begin(), cpus.end(), [&](const CpuInfo& info) { return info.cpu == cpu; });
  return at == cpus.end() ? nullptr : &*at;
}

bool Topology::has_node(NodeId node) const noexcept {
  return std::any_of(nodes.begin(), nodes.end(), [&](const NodeInfo& info) { return info.node == node; });
}

std::optional<Topology> load_topology(const std::string& which, std::string& problem) {
  constexpr std::string_view kSynthetic = "synthetic:";
  hwloc_topology_t raw = nullptr;
  if (hwloc_topology_init(&raw) != 0) {
    problem = "hwloc cannot be initialised";
    return std::nullopt;
  }
  const HwlocTopology holder(raw);
  const bool this_host = which.empty() || which == "this";
  if (which.starts_with(kSynthetic)) {
    if (hwloc_topology_set_synthetic(raw, which.c_str() + kSynthetic.size()) != 0) {
      problem = "--topology " + which +
                ": hwloc does not understand it (example: synthetic:pack:2 numa:1 core:8 pu:2)";
      return std::nullopt;
    }
  } else if (!this_host && hwloc_topology_set_xml(raw, which.c_str()) != 0) {
    problem = "--topology " + which + ": not an hwloc XML file (lstopo FILE.xml writes one)";
    return std::nullopt;
  }
  hwloc_topology_set_io_types_filter(raw, HWLOC_TYPE_FILTER_KEEP_ALL);
  if (hwloc_topology_load(raw) != 0) {
    problem = "--topology " + which + ": hwloc cannot load it";
    return std::nullopt;
  }
  Topology topology;
  topology.source = this_host ? "this host" : which;
  for (hwloc_obj_t node = nullptr;
       (node = hwloc_get_next_obj_by_type(raw, HWLOC_OBJ_NUMANODE, node)) != nullptr;)
    topology.nodes.push_back(
        {NodeId{static_cast<int32_t>(node->os_index)}, node->attr->numanode.local_memory, {}});
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  const bool limited = this_host && ::sched_getaffinity(0, sizeof allowed, &allowed) == 0;
  for (hwloc_obj_t pu = nullptr; (pu = hwloc_get_next_obj_by_type(raw, HWLOC_OBJ_PU, pu)) != nullptr;) {
    if (limited && !CPU_ISSET(pu->os_index, &allowed)) continue;
    CpuInfo info;
    info.cpu = CpuId{static_cast<int32_t>(pu->os_index)};
    info.node = node_of(raw, pu->cpuset);
    info.core = index_of_ancestor(raw, pu, HWLOC_OBJ_CORE);
    info.package = index_of_ancestor(raw, pu, HWLOC_OBJ_PACKAGE);
    info.last_level_cache = last_level_cache_of(pu);
    topology.cpus.push_back(info);
  }
  for (hwloc_obj_t device = nullptr; (device = hwloc_get_next_pcidev(raw, device)) != nullptr;) {
    char name[32];
    std::snprintf(name, sizeof name, "%04x:%02x:%02x.%01x", device->attr->pcidev.domain,
                  device->attr->pcidev.bus, device->attr->pcidev.dev, device->attr->pcidev.func);
    const hwloc_obj_t host = hwloc_get_non_io_ancestor_obj(raw, device);
    topology.pci[name] = host == nullptr ? kAnyNode : node_of(raw, host->cpuset);
  }
  std::sort(topology.cpus.begin(), topology.cpus.end(),
            [](const CpuInfo& a, const CpuInfo& b) { return a.cpu < b.cpu; });
  std::sort(topology.nodes.begin(), topology.nodes.end(),
            [](const NodeInfo& a, const NodeInfo& b) { return a.node < b.node; });
  if (this_host) add_host_facts(topology);
  if (topology.cpus.empty()) {
    problem = "no CPU is left for this process: check its cpuset and affinity (taskset -p)";
    return std::nullopt;
  }
  return topology;
}

}  // namespace migrx
