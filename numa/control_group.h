// How much memory the control groups of a process still allow it: cgroup v2, v1, and both at a time.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "numa/host_files.h"

namespace migrx {

// A limit of one group, the process's own or one further up.
struct CgroupLimit {
  std::string file;    // "/sys/fs/cgroup/machine.slice/memory.max"
  uint64_t limit = 0;  // bytes
  uint64_t used = 0;   // bytes, without page cache that the kernel gives back at once
  [[nodiscard]] uint64_t left() const noexcept { return limit - (used < limit ? used : limit); }
};

struct ControlGroupLimits {
  std::vector<CgroupLimit> memory;
  // By page size: pages in use, and pages reserved by mappings.
  std::map<uint64_t, std::vector<CgroupLimit>> hugepages;
};

// process: "self" or a PID. page_bytes: the sizes of hugepages that this host has.
[[nodiscard]] ControlGroupLimits control_group_limits(const HostFiles& files, const std::string& process,
                                                      const std::set<uint64_t>& page_bytes);
// The limits of memory of the group with that folder, and of those above it.
[[nodiscard]] std::vector<CgroupLimit> memory_limits_of(const HostFiles& files, std::string folder);
// Folder of the group that pays for the process's memory, "/sys/fs/cgroup/memory/machine"; empty: not found.
[[nodiscard]] std::string memory_group_of(const HostFiles& files, const std::string& process);
// What is used below the folder of a group of the memory controller (`file` in it tells how much).
[[nodiscard]] uint64_t memory_used(const HostFiles& files, const std::string& folder,
                                   const std::string& file);

}  // namespace migrx
