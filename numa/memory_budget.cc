#include "numa/memory_budget.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <sstream>
#include <utility>

#include "numa/cpu_list.h"

namespace migrx {
namespace {

// A host that has given away its last page reclaims the programs that run on it.
constexpr uint64_t kLeastLeft = 128 << 20;

std::string on_node(NodeId node) {
  return node == kAnyNode ? "" : " on node " + std::to_string(node.value());
}

std::string pages_folder(NodeId node, uint64_t page_bytes) {
  const std::string size = "hugepages-" + std::to_string(page_bytes >> 10) + "kB";
  return node == kAnyNode
             ? "/sys/kernel/mm/hugepages/" + size
             : "/sys/devices/system/node/node" + std::to_string(node.value()) + "/hugepages/" + size;
}

std::string pages_missing(NodeId node, uint64_t page_bytes, uint64_t wanted, uint64_t free, uint64_t total) {
  return std::to_string(wanted - free) + " of " + std::to_string(wanted) + " pages of " +
         std::to_string(page_bytes >> 10) + " KiB are missing" + on_node(node) + ": echo " +
         std::to_string(total + wanted - free) + " > " + pages_folder(node, page_bytes) + "/nr_hugepages";
}

// "12 GiB of them promised to other receivers", where there is something.
std::string promised_text(uint64_t promised) {
  return promised > 0 ? ", " + size_text(promised) + " of them promised to other receivers" : "";
}

std::string file_systems_problem(const std::vector<MemoryNeed>& needs, const PromisedBytes& others) {
  std::map<std::string, std::pair<uint64_t, const MemoryNeed*>> by_name;
  for (const MemoryNeed& need : needs) {
    if (!need.file_system_free) continue;
    auto& entry = by_name[need.file_system];
    entry.first += need.bytes;
    entry.second = &need;
    const uint64_t promised = others.in_file_system(need.file_system);
    if (entry.first + promised > *need.file_system_free)
      return need.path + ": its file system has " + size_text(*need.file_system_free) + " free" +
             promised_text(promised) + ", " + size_text(entry.first) +
             " are needed: remove files there, or mount -o remount,size=... it";
  }
  return {};
}

std::string hugepages_problem(const std::vector<MemoryNeed>& needs, const MemoryFacts& facts) {
  std::map<std::pair<NodeId, uint64_t>, uint64_t> pages;
  std::map<uint64_t, uint64_t> bytes;
  std::map<uint64_t, uint64_t> unreserved;
  for (const MemoryNeed& need : needs) {
    if (need.page_bytes <= 4096 || need.bytes == 0) continue;
    const uint64_t count = (need.bytes + need.page_bytes - 1) / need.page_bytes;
    pages[{need.node, need.page_bytes}] += count;
    bytes[need.page_bytes] += count * need.page_bytes;
    if (!need.reserved) unreserved[need.page_bytes] += count;
  }
  for (const auto& [where, wanted] : pages) {
    const auto& [node, size] = where;
    if (node != kAnyNode) {
      const HugepagePool* const pool = facts.pool(node, size);
      // The kernel tells of a node how many are free, reserved ones among them.
      const uint64_t promised = facts.promised.hugepages_of(node, size) / size;
      const uint64_t free = pool == nullptr ? 0 : pool->free - std::min(pool->free, promised);
      if (free < wanted) return pages_missing(node, size, wanted, free, pool == nullptr ? 0 : pool->total);
      continue;
    }
    // A reservation is the host's; which nodes may serve it is the cpuset's affair, and SIGBUS
    // where none can.
    uint64_t free = 0;
    const HugepagePool* const first =
        facts.allowed.empty() ? nullptr : facts.pool(*facts.allowed.begin(), size);
    const uint64_t total_of_first = first == nullptr ? 0 : first->total;
    bool known = false;
    for (const HugepagePool& pool : facts.pools)
      if (pool.page_bytes == size && pool.node != kAnyNode &&
          (facts.allowed.empty() || facts.allowed.count(pool.node) != 0)) {
        free += pool.free - std::min(pool.free, facts.promised.hugepages_of(pool.node, size) / size);
        known = true;
      }
    free -= std::min(free, facts.promised.hugepages_of(kAnyNode, size) / size);
    if (known && free < wanted && !facts.allowed.empty())
      // The new number is for one node, and must not be less than what that node has.
      return pages_missing(*facts.allowed.begin(), size, wanted, free, total_of_first);
  }
  for (const auto& [size, wanted] : unreserved) {
    const HugepagePool* const all = facts.pool(kAnyNode, size);
    const uint64_t free = all == nullptr ? 0 : all->free - std::min(all->free, all->reserved);
    if (free < wanted) return pages_missing(kAnyNode, size, wanted, free, all == nullptr ? 0 : all->total);
  }
  for (const auto& [size, wanted] : bytes) {
    const auto limits = facts.groups.hugepages.find(size);
    if (limits == facts.groups.hugepages.end()) continue;
    for (const CgroupLimit& limit : limits->second) {
      // What the mapping reserved is in there already.
      const bool charged = limit.file.find(".rsvd.") != std::string::npos && unreserved.count(size) == 0;
      // What others' mappings reserved is in there, too; what they have yet to touch is not in the other one.
      const uint64_t promised =
          limit.file.find(".rsvd.") != std::string::npos
              ? 0
              : facts.promised.hugepages_below(limit.file.substr(0, limit.file.find_last_of('/')), size);
      if (!charged && limit.left() < wanted + promised)
        return size_text(limit.left()) + " of hugepages are left below " + limit.file +
               promised_text(promised) + ", " + size_text(wanted) + " are needed: raise it";
    }
  }
  return {};
}

}  // namespace

std::string size_text(uint64_t bytes) {
  char text[32];
  if (bytes >= (uint64_t{1} << 30))
    std::snprintf(text, sizeof text, "%.1f GiB", static_cast<double>(bytes) / static_cast<double>(1U << 30));
  else
    std::snprintf(text, sizeof text, "%.0f MiB", static_cast<double>(bytes) / static_cast<double>(1U << 20));
  return text;
}

const HugepagePool* MemoryFacts::pool(NodeId node, uint64_t page_bytes) const noexcept {
  const auto found = std::find_if(pools.begin(), pools.end(), [&](const HugepagePool& candidate) {
    return candidate.node == node && candidate.page_bytes == page_bytes;
  });
  return found == pools.end() ? nullptr : &*found;
}

MemoryFacts memory_facts(const HostFiles& files, const std::string& process) {
  MemoryFacts out;
  std::istringstream meminfo(files.read("/proc/meminfo").value_or(""));
  for (std::string line; std::getline(meminfo, line);) {
    unsigned long long kib = 0;
    if (std::sscanf(line.c_str(), "MemAvailable: %llu kB", &kib) == 1) out.available = uint64_t{kib} << 10;
    if (std::sscanf(line.c_str(), "MemTotal: %llu kB", &kib) == 1) out.total = uint64_t{kib} << 10;
  }
  std::set<uint64_t> sizes;
  const auto add = [&](NodeId node, const std::string& folder) {
    for (const std::string& name : files.list(folder)) {
      unsigned long long kib = 0;
      if (std::sscanf(name.c_str(), "hugepages-%llukB", &kib) != 1 || kib == 0) continue;
      HugepagePool pool;
      pool.node = node;
      pool.page_bytes = uint64_t{kib} << 10;
      const std::string below = folder + "/" + name + "/";
      pool.total = files.number(below + "nr_hugepages").value_or(0);
      pool.free = files.number(below + "free_hugepages").value_or(0);
      pool.reserved = files.number(below + "resv_hugepages").value_or(0);
      sizes.insert(pool.page_bytes);
      out.pools.push_back(pool);
    }
  };
  add(kAnyNode, "/sys/kernel/mm/hugepages");
  for (const std::string& name : files.list("/sys/devices/system/node")) {
    int node = 0;
    char rest = 0;
    if (std::sscanf(name.c_str(), "node%d%c", &node, &rest) == 1 && node >= 0)
      add(NodeId{node}, "/sys/devices/system/node/" + name + "/hugepages");
  }
  std::istringstream status(files.read("/proc/" + process + "/status").value_or(""));
  for (std::string line; std::getline(status, line);) {
    constexpr const char* kName = "Mems_allowed_list:";
    if (!line.starts_with(kName)) continue;
    std::string list = line.substr(std::string(kName).size());
    list.erase(0, list.find_first_not_of(" \t"));
    std::vector<CpuId> nodes;
    if (parse_cpu_list(list, nodes).empty())
      for (const CpuId node : nodes) out.allowed.insert(NodeId{node.value()});
  }
  out.groups = control_group_limits(files, process, sizes);
  return out;
}

uint64_t free_hugepage_bytes(const MemoryFacts& facts, uint64_t page_bytes) {
  const HugepagePool* const pool = facts.pool(kAnyNode, page_bytes);
  if (pool == nullptr) return 0;
  uint64_t bytes = (pool->free - std::min(pool->free, pool->reserved)) * page_bytes;
  if (const auto limits = facts.groups.hugepages.find(page_bytes); limits != facts.groups.hugepages.end())
    for (const CgroupLimit& limit : limits->second) bytes = std::min(bytes, limit.left());
  return bytes;
}

uint64_t free_hugepage_bytes(const MemoryFacts& facts) {
  uint64_t bytes = 0;
  for (const HugepagePool& pool : facts.pools)
    if (pool.node == kAnyNode) bytes += free_hugepage_bytes(facts, pool.page_bytes);
  return bytes;
}

PromisedMemory promise_of(const std::vector<MemoryNeed>& needs, const std::string& group) {
  PromisedMemory memory;
  memory.group = group;
  for (const MemoryNeed& need : needs) {
    if (need.page_bytes <= 4096)
      memory.ordinary += need.bytes;
    else
      memory.hugepages[{need.node, need.page_bytes}] += need.bytes;
    if (!need.file_system.empty()) memory.file_systems[need.file_system] += need.bytes;
  }
  return memory;
}

std::string hugepages_missing(const MemoryFacts& facts, uint64_t page_bytes, uint64_t wanted, NodeId node) {
  const HugepagePool* const pool = facts.pool(node, page_bytes);
  const uint64_t free = pool == nullptr ? 0 : std::min(pool->free, wanted);
  return pages_missing(node, page_bytes, wanted, free, pool == nullptr ? 0 : pool->total);
}

std::string memory_problem(const std::vector<MemoryNeed>& needs, uint64_t private_bytes,
                           const MemoryFacts& facts) {
  if (std::string problem = file_systems_problem(needs, facts.promised); !problem.empty()) return problem;
  if (std::string problem = hugepages_problem(needs, facts); !problem.empty()) return problem;
  uint64_t wanted = private_bytes;
  for (const MemoryNeed& need : needs) {
    if (need.page_bytes <= 4096) wanted += need.bytes;
    if (need.node != kAnyNode && !facts.allowed.empty() && facts.allowed.count(need.node) == 0)
      return need.path + ": this process may take no memory from node " + std::to_string(need.node.value()) +
             " (cpuset.mems): correct node=, or the cpuset";
  }
  if (wanted == private_bytes) return {};  // nothing that this host would notice
  const auto short_of = [&](uint64_t left, uint64_t promised, const std::string& where,
                            const std::string& advice) {
    return size_text(left) + " of memory are left " + where + promised_text(promised) + ", and " +
           size_text(wanted) + " are needed: " + advice;
  };
  const uint64_t least = std::min(kLeastLeft, facts.total / 50);
  const uint64_t on_host = facts.promised.ordinary();
  if (facts.available && *facts.available < wanted + on_host + least)
    return short_of(*facts.available, on_host, "on this host",
                    "end other guests, or take hugepages that are free");
  for (const CgroupLimit& limit : facts.groups.memory) {
    const uint64_t promised =
        facts.promised.ordinary_below(limit.file.substr(0, limit.file.find_last_of('/')));
    if (limit.left() < wanted + promised)
      return short_of(limit.left(), promised, "below " + limit.file, "raise it");
  }
  return {};
}

}  // namespace migrx
