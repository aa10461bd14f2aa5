#include "numa/control_group.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <sstream>
#include <utility>

namespace migrx {
namespace {

// The older hierarchies say "no limit" as a large number.
constexpr uint64_t kNoLimit = uint64_t{1} << 62;

// One line of /proc/PID/cgroup: "4:memory:/machine" or "0::/machine.slice".
struct Membership {
  std::string controllers;  // ",memory,"; empty: the unified hierarchy
  std::string path;
};

std::vector<Membership> memberships(const HostFiles& files, const std::string& process) {
  std::vector<Membership> out;
  std::istringstream groups(files.read("/proc/" + process + "/cgroup").value_or(""));
  for (std::string line; std::getline(groups, line);) {
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string names = line.substr(first + 1, second - first - 1);
    // A group outside of what this container sees begins with "/..".
    std::string path = line.substr(second + 1);
    if (!path.starts_with('/') || path.find("..") != std::string::npos) path = "/";
    out.push_back({names.empty() ? "" : "," + names + ",", path == "/" ? "" : path});
  }
  return out;
}

std::string unified_root(const HostFiles& files) {
  return files.exists("/sys/fs/cgroup/unified/cgroup.procs") ? "/sys/fs/cgroup/unified" : "/sys/fs/cgroup";
}

// "" and "/a/b" -> {"/a/b", "/a", ""}.
std::vector<std::string> upwards(std::string path) {
  std::vector<std::string> out;
  for (; !path.empty(); path.resize(path.find_last_of('/'))) out.push_back(path);
  out.emplace_back();
  return out;
}

std::optional<uint64_t> limit_of(const HostFiles& files, const std::string& file) {
  const auto bytes = files.number(file);
  return bytes && *bytes < kNoLimit ? bytes : std::nullopt;
}

std::string page_name(uint64_t bytes) {
  if (bytes >= (uint64_t{1} << 30)) return std::to_string(bytes >> 30) + "GB";
  if (bytes >= (uint64_t{1} << 20)) return std::to_string(bytes >> 20) + "MB";
  return std::to_string(bytes >> 10) + "KB";
}

}  // namespace

uint64_t memory_used(const HostFiles& files, const std::string& folder, const std::string& file) {
  const uint64_t current = files.number(folder + "/" + file).value_or(0);
  std::istringstream stat(files.read(folder + "/memory.stat").value_or(""));
  const bool old = file == "memory.usage_in_bytes";
  uint64_t cache = 0;
  for (std::string line; std::getline(stat, line);)
    for (const char* const name : {"inactive_file ", "active_file "}) {
      const std::string wanted = (old ? "total_" : "") + std::string(name);
      uint64_t bytes = 0;
      if (line.starts_with(wanted) &&
          std::from_chars(line.data() + wanted.size(), line.data() + line.size(), bytes).ec == std::errc{})
        cache += bytes;
    }
  return current - std::min(current, cache);
}

std::vector<CgroupLimit> memory_limits_of(const HostFiles& files, std::string folder) {
  constexpr const char* kRoot = "/sys/fs/cgroup";
  std::vector<CgroupLimit> out;
  for (; folder.starts_with(kRoot); folder.resize(folder.find_last_of('/')))
    for (const auto& [limit, used] : {std::pair{"memory.max", "memory.current"},
                                      {"memory.high", "memory.current"},
                                      {"memory.limit_in_bytes", "memory.usage_in_bytes"}})
      if (const auto bytes = limit_of(files, folder + "/" + limit))
        out.push_back({folder + "/" + limit, *bytes, memory_used(files, folder, used)});
  return out;
}

ControlGroupLimits control_group_limits(const HostFiles& files, const std::string& process,
                                        const std::set<uint64_t>& page_bytes) {
  ControlGroupLimits out;
  const auto add_pages = [&](uint64_t size, const std::string& folder, const std::string& limit,
                             const std::string& used) {
    const std::string name = folder + "/hugetlb." + page_name(size) + ".";
    if (const auto bytes = limit_of(files, name + limit))
      out.hugepages[size].push_back({name + limit, *bytes, files.number(name + used).value_or(0)});
  };
  const std::string unified = unified_root(files);
  for (const Membership& group : memberships(files, process)) {
    const bool v2 = group.controllers.empty();
    if (v2 || group.controllers.find(",memory,") != std::string::npos)
      for (CgroupLimit& limit :
           memory_limits_of(files, (v2 ? unified : "/sys/fs/cgroup/memory") + group.path))
        out.memory.push_back(std::move(limit));
    const bool v1_pages = group.controllers.find(",hugetlb,") != std::string::npos;
    for (const std::string& path : upwards(group.path))
      for (const uint64_t size : page_bytes)
        if (v2) {
          add_pages(size, unified + path, "max", "current");
          add_pages(size, unified + path, "rsvd.max", "rsvd.current");
        } else if (v1_pages) {
          add_pages(size, "/sys/fs/cgroup/hugetlb" + path, "limit_in_bytes", "usage_in_bytes");
          add_pages(size, "/sys/fs/cgroup/hugetlb" + path, "rsvd.limit_in_bytes", "rsvd.usage_in_bytes");
        }
  }
  return out;
}

std::string memory_group_of(const HostFiles& files, const std::string& process) {
  std::string found;
  for (const Membership& group : memberships(files, process)) {
    const bool v1 = group.controllers.find(",memory,") != std::string::npos;
    if (!v1 && !group.controllers.empty()) continue;
    const std::string folder = (v1 ? "/sys/fs/cgroup/memory" : unified_root(files)) + group.path;
    if (!files.exists(folder + "/cgroup.procs")) continue;
    // Where both are mounted the memory controller belongs to one of them, and only v1 names it.
    if (v1) return folder;
    found = folder;
  }
  return found;
}

}  // namespace migrx
