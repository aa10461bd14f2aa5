// What a host is, as values: gathered once from its files, judged by the checks (loader/doctor/check.h).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "numa/control_group.h"
#include "numa/host_files.h"
#include "numa/ids.h"
#include "numa/memory_budget.h"
#include "numa/topology.h"

namespace migrx {

struct PciFacts {
  std::string address;  // "0000:41:00.0"
  uint32_t vendor = 0;
  uint32_t device = 0;
  uint32_t device_class = 0;  // 0x020000: Ethernet controller
  NodeId node = kAnyNode;
  std::string driver;                    // the kernel's; empty: bound to none
  std::string iommu_group;               // its number; empty: no IOMMU stands before the device
  std::vector<std::string> group_peers;  // other functions of that group that a host driver holds
  std::string netdev;                    // the kernel's interface on it; empty: none
  int64_t speed_mbps = -1;               // negative: not known
  uint64_t mtu = 0;
  std::optional<bool> carrier;  // nothing: the interface is down
  std::string pcie_speed, pcie_speed_max;
  uint64_t pcie_width = 0, pcie_width_max = 0;
};

using HugepageFacts = HugepagePool;

struct MountFacts {
  std::string point;
  std::string type;
  std::string options;
};

struct IrqFacts {
  uint32_t number = 0;
  std::string names;  // of its handlers
  std::vector<CpuId> cpus;
};

// A file of --ram, or the folder it would be made in.
struct RamFileFacts {
  bool exists = false;
  bool folder_exists = false;
  bool regular = false;
  uint64_t size = 0;
  uint64_t allocated = 0;  // bytes that already have memory
  uint64_t free = 0;       // of its file system
};

struct HostFacts {
  Topology topology;  // CPUs this process may use
  std::vector<CpuId> online;
  std::vector<CpuId> isolated;
  std::vector<CpuId> nohz_full;
  std::map<CpuId, std::vector<CpuId>> siblings;  // SMT threads of each CPU's core, itself included
  std::map<CpuId, std::string> governor;
  std::map<std::pair<int32_t, int32_t>, uint64_t> distance;  // between nodes, 10: the same
  std::vector<std::string> cpu_flags;
  std::string cpu_model;
  bool virtual_machine = false;
  std::string command_line;  // of the kernel
  std::string clock_source;
  std::vector<IrqFacts> irqs;
  std::vector<PciFacts> pci;
  bool iommu = false;  // at least one IOMMU group
  bool vfio_pci = false;
  bool vfio_without_iommu = false;
  std::vector<HugepageFacts> hugepages;
  std::map<std::string, uint64_t> meminfo;      // bytes by /proc/meminfo's names
  std::map<NodeId, uint64_t> node_memory_free;  // bytes
  std::vector<MountFacts> mounts;
  std::vector<CgroupLimit> cgroup_memory;
  std::map<uint64_t, std::vector<CgroupLimit>> cgroup_hugepages;  // by page size
  std::optional<uint64_t> memlock_bytes;                          // nothing: unlimited
  std::optional<uint64_t> open_files;
  uint64_t capabilities = 0;                    // effective
  std::map<std::string, std::string> settings;  // files of one word, by path; those that are there
  std::vector<std::string> kernel_addresses;    // of the kernel's interfaces, both families
  std::vector<uint16_t> kernel_ports;           // TCP ports that listen
  std::string default_route;                    // interface; empty: none
  std::string dpdk_version;
  std::vector<std::string> drivers;  // "net_ixgbe", "bus_pci": DPDK's, as found in its folder
  std::string qemu_version;          // first line of --version; empty: not found
  std::string libvirt_version;
  std::map<std::string, RamFileFacts> ram_files;  // by path, those of --ram

  [[nodiscard]] const PciFacts* find_pci(const std::string& address) const noexcept;
  [[nodiscard]] std::string setting(const std::string& path) const;
  [[nodiscard]] uint64_t memory(const char* name) const;  // 0: not told
};

// What the program knows of itself.
struct ProgramFacts {
  std::string dpdk_version;
  std::string driver_folder;  // where DPDK loads drivers from
  // First line that a program of the host prints; empty when there is none or it does not answer.
  std::function<std::string(const std::string& program)> version_of;
};

[[nodiscard]] HostFacts gather_facts(const HostFiles& files, const ProgramFacts& program);

// What the file system says about a path of --ram. Never blocks on what the path names.
[[nodiscard]] RamFileFacts ram_file_facts(const std::string& path);

// Runs `program --version`, found in the usual folders, for at most five seconds; the child gets no input.
[[nodiscard]] std::string version_of_program(const std::string& program);

}  // namespace migrx
