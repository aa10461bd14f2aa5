#include <algorithm>
#include <set>

#include "loader/doctor/check.h"

namespace migrx {
namespace {

// Packet buffers and DPDK's own memory for one poll core with some channels.
constexpr uint64_t kPacketBytes = 128U << 20;
// What a host needs besides guests so as not to reclaim all the time.
constexpr uint64_t kHostReserve = 1U << 30;

// The mount that holds a path: the longest mount point that is a part of it.
const MountFacts* mount_of(const HostFacts& host, const std::string& path) {
  const MountFacts* found = nullptr;
  for (const MountFacts& mount : host.mounts) {
    const bool inside = mount.point == "/" || path == mount.point || path.starts_with(mount.point + "/");
    if (inside && (found == nullptr || mount.point.size() >= found->point.size())) found = &mount;
  }
  return found;
}

uint64_t default_hugepage(const HostFacts& host) {
  const uint64_t size = host.memory("Hugepagesize");
  return size > 0 ? size : 2U << 20;
}

uint64_t page_bytes_of(const HostFacts& host, const MountFacts& mount) {
  const std::size_t at = mount.options.find("pagesize=");
  if (at == std::string::npos) return default_hugepage(host);
  const std::string text = mount.options.substr(at + 9);
  const uint64_t number = std::strtoull(text.c_str(), nullptr, 10);
  const std::size_t unit = text.find_first_not_of("0123456789");
  if (unit == std::string::npos) return number;
  return text[unit] == 'G' ? number << 30 : text[unit] == 'M' ? number << 20 : number << 10;
}

struct Need {
  const RamSpec* spec = nullptr;
  const MountFacts* mount = nullptr;
  bool hugetlb = false;
  uint64_t page_bytes = 4096;
  uint64_t bytes = 0;  // not there yet
};

std::vector<Need> needs_of(const CheckInput& in) {
  std::vector<Need> needs;
  for (const RamSpec& spec : in.wish.ram) {
    Need need;
    need.spec = &spec;
    need.mount = mount_of(in.host, spec.path);
    need.hugetlb = need.mount != nullptr && need.mount->type == "hugetlbfs";
    if (need.hugetlb) need.page_bytes = page_bytes_of(in.host, *need.mount);
    uint64_t size = spec.size;
    uint64_t there = 0;
    if (const auto file = in.host.ram_files.find(spec.path);
        file != in.host.ram_files.end() && file->second.exists) {
      if (size == 0) size = file->second.size;
      there = file->second.allocated;
    }
    need.bytes = size - std::min(size, there);
    needs.push_back(need);
  }
  return needs;
}

const HugepageFacts* pool_of(const HostFacts& host, NodeId node, uint64_t page_bytes) {
  const auto at = std::find_if(host.hugepages.begin(), host.hugepages.end(), [&](const HugepageFacts& pool) {
    return pool.node == node && pool.page_bytes == page_bytes;
  });
  return at == host.hugepages.end() ? nullptr : &*at;
}

// Free pages that no mapping was promised. Reservations are counted for the host as a whole: on a node they
// may be anybody's, so the node is not credited with more than the host has left.
uint64_t unpromised(const HostFacts& host, const HugepageFacts& pool) {
  const HugepageFacts* const all = pool_of(host, kAnyNode, pool.page_bytes);
  if (all == nullptr) return pool.free - std::min(pool.free, pool.reserved);
  return std::min(pool.free, all->free - std::min(all->free, all->reserved));
}

std::string hugepage_folder(const HugepageFacts& pool) {
  const std::string size = "hugepages-" + std::to_string(pool.page_bytes >> 10) + "kB";
  return pool.node == kAnyNode
             ? "/sys/kernel/mm/hugepages/" + size
             : "/sys/devices/system/node/node" + std::to_string(pool.node.value()) + "/hugepages/" + size;
}

std::string more_pages(const HugepageFacts& pool, uint64_t missing) {
  return "echo " + std::to_string(pool.total + missing) + " > " + hugepage_folder(pool) + "/nr_hugepages";
}

CheckVerdict mounted(const CheckInput& in) {
  std::string points;
  for (const MountFacts& mount : in.host.mounts)
    if (mount.type == "hugetlbfs") points += (points.empty() ? "" : ", ") + mount.point;
  if (!points.empty()) return ok("hugetlbfs at " + points);
  return warn("no hugetlbfs is mounted",
              "mkdir -p /dev/hugepages && mount -t hugetlbfs hugetlbfs /dev/hugepages");
}

CheckVerdict packet_pages(const CheckInput& in) {
  const auto ports = in.pci_ports();
  if (ports.empty() && !in.wish.ports.empty()) return skipped("virtual ports do without hugepages");
  NodeId node = ports.empty() || ports.front().pci == nullptr ? kAnyNode : ports.front().pci->node;
  if (node == kAnyNode && in.host.topology.nodes.size() == 1) node = in.host.topology.nodes.front().node;
  const HugepageFacts* candidate = nullptr;
  for (const HugepageFacts& pool : in.host.hugepages) {
    if (pool.node != node) continue;
    if (unpromised(in.host, pool) * pool.page_bytes >= kPacketBytes)
      return ok(bytes_text(unpromised(in.host, pool) * pool.page_bytes) + " free in pages of " +
                bytes_text(pool.page_bytes) +
                (node == kAnyNode ? "" : " on node " + std::to_string(node.value())));
    if (candidate == nullptr || pool.page_bytes == default_hugepage(in.host)) candidate = &pool;
  }
  if (candidate == nullptr) return warn("the kernel has no hugepages (CONFIG_HUGETLBFS)");
  const uint64_t want = (kPacketBytes + candidate->page_bytes - 1) / candidate->page_bytes;
  const uint64_t missing = want - std::min(want, unpromised(in.host, *candidate));
  const std::string text = bytes_text(unpromised(in.host, *candidate) * candidate->page_bytes) + " of " +
                           bytes_text(kPacketBytes) + " free" +
                           (node == kAnyNode ? "" : " on node " + std::to_string(node.value()));
  return ports.empty() ? warn(text, more_pages(*candidate, missing))
                       : fail(text, more_pages(*candidate, missing));
}

CheckVerdict ram_pages(const CheckInput& in) {
  if (in.wish.ram.empty()) return skipped("no --ram given");
  // Guests that take from the same pool are counted together.
  std::map<std::pair<NodeId, uint64_t>, uint64_t> pages;
  for (const Need& need : needs_of(in))
    if (need.hugetlb)
      pages[{need.spec->node, need.page_bytes}] += (need.bytes + need.page_bytes - 1) / need.page_bytes;
  if (pages.empty()) return skipped("no --ram on hugetlbfs");
  std::string text;
  for (const auto& [where, wanted] : pages) {
    const auto& [node, size] = where;
    const HugepageFacts* const pool = pool_of(in.host, node, size);
    if (pool == nullptr)
      return fail("there are no pages of " + bytes_text(size) +
                  (node == kAnyNode ? "" : " on node " + std::to_string(node.value())));
    const uint64_t free = unpromised(in.host, *pool);
    const std::string place = " pages of " + bytes_text(size) +
                              (node == kAnyNode ? "" : " on node " + std::to_string(node.value()));
    if (free < wanted)
      return fail(
          std::to_string(wanted - free) + place + " are missing (" + std::to_string(free) +
              " free and not promised)" +
              (size >= (1U << 30) ? "; large pages are best asked for on the kernel's command line" : ""),
          more_pages(*pool, wanted - free));
    text += (text.empty() ? "" : ", ") + std::to_string(wanted) + " of " + std::to_string(free) + place;
  }
  return ok(text);
}

CheckVerdict ram_file(const CheckInput& in) {
  if (in.wish.ram.empty()) return skipped("no --ram given");
  std::set<std::string> paths;
  for (const RamSpec& spec : in.wish.ram) {
    if (!paths.insert(spec.path).second)
      return fail("two blocks have the file " + spec.path + ": give each its own");
    const auto known = in.host.ram_files.find(spec.path);
    if (known == in.host.ram_files.end()) continue;
    const RamFileFacts& file = known->second;
    if (!file.folder_exists) return fail("the folder of " + spec.path + " does not exist");
    if (file.exists && !file.regular)
      return fail(spec.path + " is not a regular file: name a file on hugetlbfs or tmpfs");
    if (!file.exists && spec.size == 0)
      return fail(spec.path + " does not exist: add size= to --ram, or start the destination QEMU first");
    if (file.exists && spec.size > file.size)
      return fail(spec.path + " has " + bytes_text(file.size) + ", not " + bytes_text(spec.size) +
                  ": give the size that the destination QEMU has");
  }
  for (const Need& need : needs_of(in)) {
    const std::string type = need.mount == nullptr ? "" : need.mount->type;
    if (type != "hugetlbfs" && type != "tmpfs")
      return fail(need.spec->path + " is on " + (type.empty() ? "an unknown file system" : type) +
                  ": guest RAM belongs on hugetlbfs or tmpfs, such as /dev/hugepages or /dev/shm");
  }
  return ok("usable");
}

CheckVerdict ram_space(const CheckInput& in) {
  if (in.wish.ram.empty()) return skipped("no --ram given");
  std::map<std::string, uint64_t> wanted;
  std::map<std::string, uint64_t> free;
  for (const Need& need : needs_of(in)) {
    if (need.hugetlb || need.mount == nullptr) continue;
    const auto file = in.host.ram_files.find(need.spec->path);
    if (file == in.host.ram_files.end()) continue;
    wanted[need.mount->point] += need.bytes;
    free[need.mount->point] = file->second.free;
  }
  if (wanted.empty()) return skipped("no --ram on tmpfs");
  for (const auto& [point, bytes] : wanted)
    if (free[point] < bytes)
      return fail(
          point + " has " + bytes_text(free[point]) + " free, " + bytes_text(bytes) + " are needed",
          "mount -o remount,size=" + std::to_string((bytes >> 20) + (in.host.memory("MemTotal") >> 21)) +
              "M " + shell_quote(point));
  return ok("enough room");
}

CheckVerdict memory_left(const CheckInput& in) {
  const uint64_t available = in.host.memory("MemAvailable");
  if (available == 0) return skipped("/proc/meminfo does not tell");
  uint64_t wanted = 0;
  for (const Need& need : needs_of(in))
    if (!need.hugetlb) wanted += need.bytes;
  if (available < wanted)
    return fail(bytes_text(available) + " available, " + bytes_text(wanted) +
                " are needed beside hugepages: take hugepages, or end other guests");
  const uint64_t left = available - wanted;
  const uint64_t least = std::max(kHostReserve, in.host.memory("MemTotal") / 50);
  if (left < least)
    return warn(bytes_text(left) + " would be left, less than " + bytes_text(least) +
                ": give fewer hugepages, or end other guests");
  return ok(bytes_text(left) + " would be left");
}

CheckVerdict node_memory(const CheckInput& in) {
  std::map<NodeId, uint64_t> wanted;
  for (const Need& need : needs_of(in))
    if (!need.hugetlb && need.spec->node != kAnyNode) wanted[need.spec->node] += need.bytes;
  for (const RamSpec& spec : in.wish.ram)
    if (spec.node != kAnyNode && !in.host.topology.has_node(spec.node))
      return fail("--ram " + spec.id + ": node " + std::to_string(spec.node.value()) +
                  " does not exist here");
  if (wanted.empty()) return skipped("no --ram with node= on tmpfs");
  for (const auto& [node, bytes] : wanted)
    if (const auto free = in.host.node_memory_free.find(node);
        free != in.host.node_memory_free.end() && free->second < bytes)
      return warn("node " + std::to_string(node.value()) + " has " + bytes_text(free->second) + " free, " +
                      bytes_text(bytes) + " are wanted there: the rest is cache, or another node's",
                  "sync; echo 1 > /proc/sys/vm/drop_caches");
  return ok("enough on each node");
}

CheckVerdict memlock(const CheckInput& in) {
  if (!in.host.memlock_bytes) return ok("unlimited");
  if (in.pci_ports().empty() && !in.wish.ports.empty()) return skipped("virtual ports lock nothing");
  uint64_t wanted = kPacketBytes;
  for (const Need& need : needs_of(in)) wanted += need.bytes;
  if (*in.host.memlock_bytes >= wanted) return ok(bytes_text(*in.host.memlock_bytes));
  // VFIO's mappings count against the limit of a process without CAP_IPC_LOCK alone (seen in a VM with an
  // IOMMU: 384 MiB of hugepages were mapped with 8 MiB allowed).
  constexpr uint64_t kIpcLock = uint64_t{1} << 14;
  if ((in.host.capabilities & kIpcLock) != 0)
    return ok(bytes_text(*in.host.memlock_bytes) + ", which CAP_IPC_LOCK lifts");
  const std::string text =
      bytes_text(*in.host.memlock_bytes) + " may be locked, " + bytes_text(wanted) + " are wanted";
  const std::string command = "ulimit -l unlimited";
  return in.wish.ports.empty() ? warn(text, command) : fail(text, command);
}

CheckVerdict cgroup_memory(const CheckInput& in) {
  uint64_t wanted = 0;
  for (const Need& need : needs_of(in))
    if (!need.hugetlb) wanted += need.bytes;
  if (in.host.cgroup_memory.empty()) return ok("no limit");
  for (const CgroupLimit& limit : in.host.cgroup_memory) {
    const uint64_t left = limit.limit - std::min(limit.limit, limit.used);
    if (left < wanted + kPacketBytes)
      return fail(
          bytes_text(left) + " left below " + limit.file + ", " + bytes_text(wanted + kPacketBytes) +
              " are needed",
          "echo " + std::to_string(limit.used + wanted + kPacketBytes) + " > " + shell_quote(limit.file));
  }
  return ok("the limits leave enough");
}

CheckVerdict cgroup_hugepages(const CheckInput& in) {
  std::map<uint64_t, uint64_t> wanted;
  for (const Need& need : needs_of(in))
    if (need.hugetlb) wanted[need.page_bytes] += need.bytes;
  for (const auto& [size, limits] : in.host.cgroup_hugepages)
    for (const CgroupLimit& limit : limits) {
      const uint64_t left = limit.limit - std::min(limit.limit, limit.used);
      const auto need = wanted.find(size);
      const uint64_t bytes = need == wanted.end() ? 0 : need->second;
      if (left < bytes)
        return fail(bytes_text(left) + " left below " + limit.file + ", " + bytes_text(bytes) + " are needed",
                    "echo " + std::to_string(limit.used + bytes) + " > " + shell_quote(limit.file));
    }
  return ok("no limit that is too low");
}

CheckVerdict shmem_huge(const CheckInput& in) {
  const auto needs = needs_of(in);
  const auto on_tmpfs = std::find_if(needs.begin(), needs.end(), [](const Need& need) {
    return need.mount != nullptr && need.mount->type == "tmpfs";
  });
  if (on_tmpfs == needs.end()) return skipped("no --ram on tmpfs");
  if (on_tmpfs->mount->options.find("huge=always") != std::string::npos ||
      on_tmpfs->mount->options.find("huge=within_size") != std::string::npos)
    return ok(on_tmpfs->mount->point + " takes large pages");
  const std::string value = in.host.setting("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
  for (const char* const good : {"[always]", "[within_size]", "[advise]", "[force]"})
    if (value.find(good) != std::string::npos) return ok("shmem_enabled " + value);
  return warn(
      "guest RAM on " + on_tmpfs->mount->point + " would have pages of 4 KiB for the guest's whole life",
      "echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled");
}

CheckVerdict swap(const CheckInput& in) {
  const auto needs = needs_of(in);
  const bool on_tmpfs =
      std::any_of(needs.begin(), needs.end(), [](const Need& need) { return !need.hugetlb; });
  if (!on_tmpfs || needs.empty()) return skipped("no --ram on tmpfs");
  if (in.host.memory("SwapTotal") == 0) return ok("no swap");
  return warn(bytes_text(in.host.memory("SwapTotal")) +
              " of swap: guest RAM on tmpfs can be swapped out; hugepages cannot");
}

CheckVerdict ksm(const CheckInput& in) {
  if (in.host.setting("/sys/kernel/mm/ksm/run") != "1") return ok("off");
  return warn("KSM scans and merges memory of guests", "echo 2 > /sys/kernel/mm/ksm/run");
}

CheckVerdict zone_reclaim(const CheckInput& in) {
  const std::string value = in.host.setting("/proc/sys/vm/zone_reclaim_mode");
  if (value.empty() || value == "0") return ok("off");
  return warn("vm.zone_reclaim_mode is " + value,
              "echo vm.zone_reclaim_mode=0 > /etc/sysctl.d/60-migrx-zone.conf && sysctl -p "
              "/etc/sysctl.d/60-migrx-zone.conf");
}

constexpr Check kMemoryChecks[] = {
    {"hugepages-mounted", "Guest RAM and packet buffers live in files of hugetlbfs.", mounted},
    {"hugepages-packets", "A port writes packets into hugepages of its own node.", packet_pages},
    {"hugepages-ram", "A guest's RAM needs all of its pages before the first byte comes.", ram_pages},
    {"ram-file", "The receiver and the destination QEMU must mean the same file.", ram_file},
    {"ram-space", "A full tmpfs stops the migration in the middle.", ram_space},
    {"ram-node", "A guest whose RAM is on another node than its CPUs stays slow.", node_memory},
    {"memory-left", "A host without free memory kills processes, guests among them.", memory_left},
    {"memlock", "VFIO locks the memory that a port writes to, and a limit stops it.", memlock},
    {"cgroup-memory", "Guest RAM is charged to the control group that touches it first.", cgroup_memory},
    {"cgroup-hugepages", "A hugepage limit of a control group ends in a bus error, not in a message.",
     cgroup_hugepages},
    {"shmem-huge", "A guest on 4 KiB pages loses up to a fifth of its speed to address translation.",
     shmem_huge},
    {"swap", "Swapped guest RAM makes a guest stand still at random.", swap},
    {"ksm", "Merged pages have to be copied again as soon as the stream writes them.", ksm},
    {"zone-reclaim", "The kernel would rather reclaim on one node than take free pages of another.",
     zone_reclaim},
};

}  // namespace

std::span<const Check> memory_checks() {
  return kMemoryChecks;
}

}  // namespace migrx
