#include "loader/doctor/host_facts.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <set>
#include <sstream>

#include "dataplane/wire/address_text.h"
#include "numa/cpu_list.h"

namespace migrx {
namespace {

const std::string kCpus = "/sys/devices/system/cpu";
const std::string kNodes = "/sys/devices/system/node";
const std::string kPci = "/sys/bus/pci/devices";

// Files of one word that checks look at as they are.
constexpr const char* kSettings[] = {
    "/sys/kernel/mm/transparent_hugepage/shmem_enabled",
    "/sys/kernel/mm/transparent_hugepage/enabled",
    "/sys/kernel/mm/ksm/run",
    "/proc/sys/kernel/numa_balancing",
    "/proc/sys/kernel/randomize_va_space",
    "/proc/sys/kernel/osrelease",
    "/proc/sys/vm/swappiness",
    "/proc/sys/vm/zone_reclaim_mode",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/vm/max_map_count",
    "/sys/module/apparmor/parameters/enabled",
    "/sys/fs/selinux/enforce",
};

std::vector<CpuId> cpus_in(const std::optional<std::string>& text) {
  std::vector<CpuId> cpus;
  if (text && !text->empty() && !parse_cpu_list(*text, cpus).empty()) cpus.clear();
  return cpus;
}

uint64_t hexadecimal(const std::string& text) {
  uint64_t value = 0;
  const std::size_t skip = text.starts_with("0x") ? 2 : 0;
  std::from_chars(text.data() + skip, text.data() + text.size(), value, 16);
  return value;
}

int32_t small_number(const HostFiles& files, const std::string& path, int32_t otherwise) {
  const auto text = files.line(path);
  int32_t value = otherwise;
  if (text) std::from_chars(text->data(), text->data() + text->size(), value);
  return value;
}

// The number at the end of "node3" or "cpu12"; negative: the name has another form.
int32_t index_of(const std::string& name, const std::string& prefix) {
  int32_t value = -1;
  if (!name.starts_with(prefix)) return -1;
  const char* const last = name.data() + name.size();
  const auto [end, error] = std::from_chars(name.data() + prefix.size(), last, value);
  return error == std::errc{} && end == last ? value : -1;
}

// "Key:   123 kB" lines.
std::map<std::string, uint64_t> kib_table(const std::optional<std::string>& text) {
  std::map<std::string, uint64_t> out;
  std::istringstream in(text.value_or(""));
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string key;
    uint64_t value = 0;
    words >> key;
    if (key == "Node") words >> key >> key;  // of a node's meminfo: "Node 0 MemTotal:"
    if (!(words >> value) || !key.ends_with(':')) continue;
    std::string unit;
    words >> unit;
    out[key.substr(0, key.size() - 1)] = unit == "kB" ? value * 1024 : value;
  }
  return out;
}

std::string status_field(const HostFiles& files, const std::string& name) {
  std::istringstream in(files.read("/proc/self/status").value_or(""));
  for (std::string line; std::getline(in, line);)
    if (line.starts_with(name + ":")) {
      const std::size_t at = line.find_first_not_of(" \t", name.size() + 1);
      return at == std::string::npos ? std::string{} : line.substr(at);
    }
  return {};
}

// Topology from /sys below the root, in the form that hwloc gives it for the running host.
void add_topology(const HostFiles& files, HostFacts& out) {
  Topology& topology = out.topology;
  topology.source = files.root().empty() ? "this host" : files.root();
  std::map<CpuId, NodeId> node_of;
  for (const std::string& name : files.list(kNodes)) {
    const int32_t index = index_of(name, "node");
    if (index < 0) continue;
    const std::string folder = kNodes + "/" + name;
    const auto memory = kib_table(files.read(folder + "/meminfo"));
    NodeInfo node{NodeId{index}, memory.contains("MemTotal") ? memory.at("MemTotal") : 0, {}};
    if (memory.contains("MemFree")) out.node_memory_free[node.node] = memory.at("MemFree");
    for (const CpuId cpu : cpus_in(files.line(folder + "/cpulist"))) node_of[cpu] = node.node;
    std::istringstream distances(files.line(folder + "/distance").value_or(""));
    uint64_t distance = 0;
    for (int32_t to = 0; distances >> distance; ++to) out.distance[{index, to}] = distance;
    topology.nodes.push_back(node);
  }
  std::sort(topology.nodes.begin(), topology.nodes.end(),
            [](const NodeInfo& a, const NodeInfo& b) { return a.node < b.node; });

  out.online = cpus_in(files.line(kCpus + "/online"));
  out.isolated = cpus_in(files.line(kCpus + "/isolated"));
  // Prints "(null)" on kernels that are built with it and booted without.
  out.nohz_full = cpus_in(files.line(kCpus + "/nohz_full"));
  const std::vector<CpuId> allowed = cpus_in(status_field(files, "Cpus_allowed_list"));
  std::map<std::pair<int32_t, std::string>, int32_t> cores;
  for (const CpuId cpu : out.online) {
    const std::string folder = kCpus + "/cpu" + std::to_string(cpu.value());
    std::vector<CpuId> siblings = cpus_in(files.line(folder + "/topology/thread_siblings_list"));
    if (!has(siblings, cpu)) siblings = {cpu};
    out.siblings[cpu] = siblings;
    if (const auto governor = files.line(folder + "/cpufreq/scaling_governor")) out.governor[cpu] = *governor;
    if (!allowed.empty() && !has(allowed, cpu)) continue;
    CpuInfo info;
    info.cpu = cpu;
    if (const auto node = node_of.find(cpu); node != node_of.end()) info.node = node->second;
    info.package = small_number(files, folder + "/topology/physical_package_id", 0);
    info.core =
        cores.try_emplace({info.package, format_cpu_list(siblings)}, static_cast<int32_t>(cores.size()))
            .first->second;
    info.last_level_cache = cpu.value();
    for (const std::string& index : files.list(folder + "/cache")) {
      const std::string cache = folder + "/cache/" + index;
      const std::vector<CpuId> sharers = cpus_in(files.line(cache + "/shared_cpu_list"));
      // Names ascend with the level.
      if (files.line(cache + "/type").value_or("") != "Instruction" && !sharers.empty())
        info.last_level_cache = sharers.front().value();
    }
    info.isolated = has(out.isolated, cpu);
    topology.cpus.push_back(info);
  }
}

void add_hugepages(const HostFiles& files, HostFacts& out) {
  const auto add = [&](const std::string& folder, NodeId node) {
    for (const std::string& name : files.list(folder)) {
      if (!name.starts_with("hugepages-")) continue;
      HugepageFacts pool;
      pool.node = node;
      std::from_chars(name.data() + 10, name.data() + name.size(), pool.page_bytes);
      pool.page_bytes *= 1024;
      pool.total = files.number(folder + "/" + name + "/nr_hugepages").value_or(0);
      pool.free = files.number(folder + "/" + name + "/free_hugepages").value_or(0);
      pool.reserved = files.number(folder + "/" + name + "/resv_hugepages").value_or(0);
      if (pool.page_bytes > 0) out.hugepages.push_back(pool);
    }
  };
  add("/sys/kernel/mm/hugepages", kAnyNode);
  for (NodeInfo& node : out.topology.nodes) {
    add(kNodes + "/node" + std::to_string(node.node.value()) + "/hugepages", node.node);
    for (const HugepageFacts& pool : out.hugepages)
      if (pool.node == node.node) node.free_hugepages[pool.page_bytes] = pool.free;
  }
}

void add_pci(const HostFiles& files, HostFacts& out) {
  out.iommu = !files.list("/sys/kernel/iommu_groups").empty();
  for (const std::string& address : files.list(kPci)) {
    const std::string folder = kPci + "/" + address;
    PciFacts pci;
    pci.address = address;
    pci.vendor = static_cast<uint32_t>(hexadecimal(files.line(folder + "/vendor").value_or("")));
    pci.device = static_cast<uint32_t>(hexadecimal(files.line(folder + "/device").value_or("")));
    pci.device_class = static_cast<uint32_t>(hexadecimal(files.line(folder + "/class").value_or("")));
    const int32_t node = small_number(files, folder + "/numa_node", -1);
    if (node >= 0) out.topology.pci[address] = pci.node = NodeId{node};
    pci.driver = files.link_name(folder + "/driver");
    pci.iommu_group = files.link_name(folder + "/iommu_group");
    if (!pci.iommu_group.empty())
      for (const std::string& peer : files.list("/sys/kernel/iommu_groups/" + pci.iommu_group + "/devices")) {
        const std::string driver = files.link_name(kPci + "/" + peer + "/driver");
        // Bridges stay with the kernel without harm; so do functions that vfio itself holds.
        const bool bridge = files.line(kPci + "/" + peer + "/class").value_or("").starts_with("0x06");
        if (peer != address && !bridge && !driver.empty() && !driver.starts_with("vfio"))
          pci.group_peers.push_back(peer);
      }
    // virtio functions keep theirs one folder further down.
    std::vector<std::string> interfaces = files.list(folder + "/net");
    std::string interface_folder = folder + "/net";
    for (const std::string& name : files.list(folder))
      if (interfaces.empty() && name.starts_with("virtio")) {
        interface_folder = folder + "/" + name + "/net";
        interfaces = files.list(interface_folder);
      }
    if (!interfaces.empty()) {
      pci.netdev = interfaces.front();
      const std::string net = interface_folder + "/" + pci.netdev;
      pci.speed_mbps = small_number(files, net + "/speed", -1);
      pci.mtu = files.number(net + "/mtu").value_or(0);
      if (const auto carrier = files.number(net + "/carrier")) pci.carrier = *carrier != 0;
    }
    pci.pcie_speed = files.line(folder + "/current_link_speed").value_or("");
    pci.pcie_speed_max = files.line(folder + "/max_link_speed").value_or("");
    pci.pcie_width = files.number(folder + "/current_link_width").value_or(0);
    pci.pcie_width_max = files.number(folder + "/max_link_width").value_or(0);
    out.pci.push_back(std::move(pci));
  }
  out.vfio_pci = files.exists("/sys/module/vfio_pci") || files.exists("/sys/bus/pci/drivers/vfio-pci");
  const std::string unsafe =
      files.line("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode").value_or("N");
  out.vfio_without_iommu = unsafe == "Y" || unsafe == "1";
}

void add_irqs(const HostFiles& files, HostFacts& out) {
  for (const std::string& name : files.list("/proc/irq")) {
    const int32_t number = index_of(name, "");
    if (number < 0) continue;
    IrqFacts irq;
    irq.number = static_cast<uint32_t>(number);
    const std::string folder = "/proc/irq/" + name;
    auto cpus = files.line(folder + "/effective_affinity_list");
    if (!cpus || cpus->empty()) cpus = files.line(folder + "/smp_affinity_list");
    irq.cpus = cpus_in(cpus);
    for (const std::string& entry : files.list(folder))  // handlers are folders, the rest are files
      if (!files.read(folder + "/" + entry)) irq.names += (irq.names.empty() ? "" : " ") + entry;
    if (!irq.names.empty()) out.irqs.push_back(std::move(irq));
  }
}

void add_limits(const HostFiles& files, HostFacts& out) {
  std::istringstream limits(files.read("/proc/self/limits").value_or(""));
  const auto soft = [](const std::string& line, std::size_t at) {
    std::istringstream words(line.substr(at));
    std::string word;
    words >> word;
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
    return error == std::errc{} && end == word.data() + word.size() ? std::optional(value) : std::nullopt;
  };
  for (std::string line; std::getline(limits, line);) {
    constexpr std::size_t kNameWidth = 25;
    if (line.size() <= kNameWidth) continue;
    if (line.starts_with("Max locked memory")) out.memlock_bytes = soft(line, kNameWidth);
    if (line.starts_with("Max open files")) out.open_files = soft(line, kNameWidth);
  }
  out.capabilities = hexadecimal(status_field(files, "CapEff"));
}

void add_cgroups(const HostFiles& files, HostFacts& out) {
  std::set<uint64_t> sizes;
  for (const HugepageFacts& pool : out.hugepages) sizes.insert(pool.page_bytes);
  ControlGroupLimits limits = control_group_limits(files, "self", sizes);
  out.cgroup_memory = std::move(limits.memory);
  out.cgroup_hugepages = std::move(limits.hugepages);
}

void add_network(const HostFiles& files, HostFacts& out) {
  // A local address is a "host LOCAL" line after the line that names it.
  std::istringstream trie(files.read("/proc/net/fib_trie").value_or(""));
  std::string address;
  std::set<std::string> addresses;
  for (std::string line; std::getline(trie, line);) {
    const std::size_t at = line.find("|-- ");
    if (at != std::string::npos) address = line.substr(at + 4);
    if (line.find("/32 host LOCAL") != std::string::npos) addresses.insert(address);
  }
  // 32 digits, and what does not matter here.
  std::istringstream ipv6(files.read("/proc/net/if_inet6").value_or(""));
  for (std::string line; std::getline(ipv6, line);) {
    IpAddress ip;
    const char* const digits = line.data();
    if (line.size() < 33 || line[32] != ' ' ||
        std::from_chars(digits, digits + 16, ip.high, 16).ptr != digits + 16 ||
        std::from_chars(digits + 16, digits + 32, ip.low, 16).ptr != digits + 32)
      continue;
    addresses.emplace(IpAddressText(ip).view());
  }
  out.kernel_addresses.assign(addresses.begin(), addresses.end());
  std::set<uint16_t> ports;
  for (const char* const table : {"/proc/net/tcp", "/proc/net/tcp6"}) {
    std::istringstream in(files.read(table).value_or(""));
    for (std::string line; std::getline(in, line);) {
      std::istringstream words(line);
      std::string slot, local, remote, state;
      constexpr const char* kListen = "0A";  // TCP_LISTEN
      if (!(words >> slot >> local >> remote >> state) || state != kListen) continue;
      const std::size_t colon = local.rfind(':');
      if (colon != std::string::npos)
        ports.insert(static_cast<uint16_t>(hexadecimal(local.substr(colon + 1))));
    }
  }
  out.kernel_ports.assign(ports.begin(), ports.end());
  std::istringstream routes(files.read("/proc/net/route").value_or(""));
  for (std::string line; std::getline(routes, line);) {
    std::istringstream words(line);
    std::string interface, destination;
    if (words >> interface >> destination && destination == "00000000") out.default_route = interface;
  }
}

void add_software(const HostFiles& files, const ProgramFacts& program, HostFacts& out) {
  out.dpdk_version = program.dpdk_version;
  std::set<std::string> drivers;
  for (const std::string& name : files.list(program.driver_folder)) {
    constexpr std::string_view kPrefix = "librte_";
    const std::size_t end = name.find(".so");
    if (name.starts_with(kPrefix) && end != std::string::npos)
      drivers.insert(name.substr(kPrefix.size(), end - kPrefix.size()));
  }
  out.drivers.assign(drivers.begin(), drivers.end());
  if (!program.version_of) return;
  out.qemu_version = program.version_of("qemu-system-x86_64");
  out.libvirt_version = program.version_of("libvirtd");
  if (out.libvirt_version.empty()) out.libvirt_version = program.version_of("virtqemud");
}

}  // namespace

const PciFacts* HostFacts::find_pci(const std::string& address) const noexcept {
  // The domain may be left out, as DPDK allows.
  const auto at = std::find_if(pci.begin(), pci.end(), [&](const PciFacts& facts) {
    return facts.address == address || facts.address == "0000:" + address;
  });
  return at == pci.end() ? nullptr : &*at;
}

std::string HostFacts::setting(const std::string& path) const {
  const auto at = settings.find(path);
  return at == settings.end() ? std::string{} : at->second;
}

uint64_t HostFacts::memory(const char* name) const {
  const auto at = meminfo.find(name);
  return at == meminfo.end() ? 0 : at->second;
}

HostFacts gather_facts(const HostFiles& files, const ProgramFacts& program) {
  HostFacts out;
  add_topology(files, out);
  add_hugepages(files, out);
  add_pci(files, out);
  add_irqs(files, out);
  add_limits(files, out);
  add_cgroups(files, out);
  add_network(files, out);
  add_software(files, program, out);
  out.meminfo = kib_table(files.read("/proc/meminfo"));
  out.command_line = files.line("/proc/cmdline").value_or("");
  out.clock_source =
      files.line("/sys/devices/system/clocksource/clocksource0/current_clocksource").value_or("");
  std::istringstream cpuinfo(files.read("/proc/cpuinfo").value_or(""));
  for (std::string line; std::getline(cpuinfo, line) && out.cpu_flags.empty();) {
    const std::size_t colon = line.find(':');
    if (colon == std::string::npos || colon + 2 > line.size()) continue;
    if (line.starts_with("model name")) out.cpu_model = line.substr(colon + 2);
    std::istringstream words(line.substr(colon + 1));
    if (line.starts_with("flags"))
      for (std::string word; words >> word;) out.cpu_flags.push_back(word);
  }
  out.virtual_machine =
      std::find(out.cpu_flags.begin(), out.cpu_flags.end(), "hypervisor") != out.cpu_flags.end();
  std::istringstream mounts(files.read("/proc/self/mounts").value_or(""));
  for (std::string line; std::getline(mounts, line);) {
    std::istringstream words(line);
    std::string device;
    MountFacts mount;
    if (words >> device >> mount.point >> mount.type >> mount.options) out.mounts.push_back(mount);
  }
  for (const char* const path : kSettings)
    if (const auto text = files.line(path)) out.settings[path] = *text;
  return out;
}

}  // namespace migrx
