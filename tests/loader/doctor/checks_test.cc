// Each check against a host with exactly its fault; and hosts that are in order, on which nothing may be
// found.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <functional>
#include <regex>
#include <set>

#include "loader/doctor/doctor.h"
#include "tests/loader/doctor/host_tree.h"

namespace migrx {
namespace {

constexpr int64_t kNow = 1'790'000'000;
constexpr uint64_t kGiB = 1U << 30;
const std::string kCpus = "/sys/devices/system/cpu";
const std::string kPort = "/sys/bus/pci/devices/0000:81:00.0";  // of xeon-2s, on node 1
const std::string kEpycPort = "/sys/bus/pci/devices/0000:41:00.0";

using Edits = std::vector<std::pair<std::string, std::optional<std::string>>>;

struct Subject {
  HostFacts host;
  DoctorWish wish;
};

ProgramFacts program_facts() {
  ProgramFacts program;
  program.dpdk_version = "DPDK 22.11.7";
  program.driver_folder = "/drivers";
  program.version_of = [](const std::string& name) {
    return name == "libvirtd" ? std::string("libvirtd (libvirt) 9.0.0")
                              : std::string("QEMU emulator version 7.2.15");
  };
  return program;
}

RamSpec ram(const std::string& path, uint64_t size, NodeId node) {
  RamSpec spec;
  spec.id = "mem";
  spec.path = path;
  spec.size = size;
  spec.node = node;
  return spec;
}

// What a careful operator of that host would ask for.
DoctorWish wish_for(const std::string& host) {
  DoctorWish wish;
  wish.mtu = 9000;
  wish.addresses = {"192.0.2.10/24"};
  if (host == "xeon-2s") {
    wish.ports = {"0000:81:00.0"};
    wish.ram = {ram("/dev/hugepages/vm0", 8 * kGiB, NodeId{1})};
    wish.poll_cpus = {CpuId{10}};
    wish.loader_cpus = {CpuId{11}, CpuId{12}};
  } else if (host == "epyc-nps4") {
    wish.ports = {"0000:41:00.0"};
    wish.ram = {ram("/dev/hugepages1G/vm0", 8 * kGiB, NodeId{2})};
    wish.poll_cpus = {CpuId{10}};
    wish.loader_cpus = {CpuId{11}};
  } else if (host == "one-socket" || host == "no-iommu") {
    wish.ports = {"02:00.0"};
    wish.ram = {ram("/dev/hugepages/vm0", 8 * kGiB, NodeId{0})};
  } else {
    wish.ports = {"net_tap0,iface=mig0"};
    wish.ram = {ram("/dev/shm/vm0", kGiB, kAnyNode)};
  }
  return wish;
}

Subject subject(const std::string& name, const Edits& edits = {}) {
  const HostTree tree(name);
  for (const char* const driver : {"net_ice", "net_i40e", "net_mlx5", "net_tap", "bus_pci"})
    tree.put(std::string("/drivers/librte_") + driver + ".so.23", "");
  for (const auto& [path, text] : edits) tree.put(path, text);
  Subject out{gather_facts(HostFiles(tree.root()), program_facts()), wish_for(name)};
  RamFileFacts file;
  file.folder_exists = true;
  file.free = 16 * kGiB;
  for (const RamSpec& spec : out.wish.ram) out.host.ram_files[spec.path] = file;
  return out;
}

std::map<std::string, CheckVerdict> look(const Subject& subject) {
  std::map<std::string, CheckVerdict> found;
  for (const Finding& finding : examine(subject.host, subject.wish, kNow))
    found[finding.check->id] = finding.verdict;
  return found;
}

// Ids of what is not in order, each with '!' when it fails.
std::set<std::string> trouble(const std::map<std::string, CheckVerdict>& found) {
  std::set<std::string> out;
  for (const auto& [id, verdict] : found)
    if (verdict.state == CheckState::warn || verdict.state == CheckState::fail)
      out.insert(id + (verdict.state == CheckState::fail ? "!" : ""));
  return out;
}

struct Fault {
  const char* id;
  CheckState state;
  const char* host;
  Edits edits;
  std::function<void(Subject&)> change;
  const char* says;     // in the text
  const char* command;  // in the command; nullptr: there is none
};

const std::vector<Fault>& faults() {
  constexpr auto kOk = CheckState::ok;
  constexpr auto kWarn = CheckState::warn;
  constexpr auto kFail = CheckState::fail;
  static const std::vector<Fault> list{
      {"placement", kFail, "xeon-2s", {}, [](Subject& s) { s.wish.poll_cpus = {CpuId{99}}; }, "99", nullptr},
      {"cpu-flags",
       kFail,
       "xeon-2s",
       {{"/proc/cpuinfo", "model name\t: old\nflags\t: ssse3 constant_tsc nonstop_tsc\n"}},
       {},
       "sse4_2",
       nullptr},
      {"cpu-flags",
       kWarn,
       "xeon-2s",
       {{"/proc/cpuinfo", "flags\t: ssse3 sse4_2 constant_tsc nonstop_tsc hypervisor\n"}},
       {},
       "host-passthrough",
       nullptr},
      {"cpu-count", kWarn, "vm", {}, {}, "2 CPUs", nullptr},
      {"cpu-count", kFail, "vm", {{kCpus + "/online", std::nullopt}}, {}, "no CPU", nullptr},
      {"cpuset", kWarn, "container", {}, {}, "1 of 2", nullptr},
      {"cpuset",
       kFail,
       "container",
       {},
       [](Subject& s) { s.wish.poll_cpus = s.wish.loader_cpus = {CpuId{0}}; },
       "CPU 0",
       nullptr},
      {"cpu-isolation", kWarn, "one-socket", {{kCpus + "/isolated", ""}}, {}, "not isolated", "isolcpus="},
      {"cpu-tick", kWarn, "xeon-2s", {{kCpus + "/nohz_full", " (null)"}}, {}, "tick", "nohz_full="},
      {"cpu-rcu",
       kWarn,
       "xeon-2s",
       {{kCpus + "/nohz_full", ""}, {"/proc/cmdline", "ro rcu_nocbs=2-7"}},
       {},
       "RCU",
       "rcu_nocbs="},
      {"cpu-siblings",
       kWarn,
       "xeon-2s",
       {{kCpus + "/isolated", "2-7,10-15"}},
       {},
       "26-28",
       "isolcpus=2-7,10-15,26-28"},
      {"cpu-siblings",
       kWarn,
       "xeon-2s",
       {},
       [](Subject& s) { s.wish.loader_cpus = {CpuId{26}}; },
       "share cores",
       nullptr},
      {"cpu-governor",
       kWarn,
       "xeon-2s",
       {{kCpus + "/cpu11/cpufreq/scaling_governor", "powersave"}},
       {},
       "powersave on CPUs 11",
       "performance"},
      {"irq-affinity",
       kWarn,
       "xeon-2s",
       {{"/proc/irq/24/effective_affinity_list", "11"}},
       {},
       "1 device",
       "/proc/irq/$i/"},
      {"clock-source",
       kWarn,
       "xeon-2s",
       {{"/sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet"}},
       {},
       "hpet",
       "echo tsc"},
      {"tsc",
       kWarn,
       "xeon-2s",
       {{"/proc/cpuinfo", "flags\t: ssse3 sse4_2 avx2 constant_tsc\n"}},
       {},
       "nonstop_tsc",
       nullptr},
      {"numa-distance", kWarn, "xeon-2s", {{kPort + "/numa_node", "0"}}, {}, "distance 21", nullptr},
      {"numa-distance",
       kWarn,
       "epyc-nps4",
       {},
       [](Subject& s) { s.wish.ram[0].node = NodeId{3}; },
       "RAM mem on node 3",
       nullptr},
      {"numa-balancing",
       kWarn,
       "xeon-2s",
       {{"/proc/sys/kernel/numa_balancing", "1"}},
       {},
       "on:",
       "kernel.numa_balancing=0"},
      {"hugepages-mounted", kWarn, "vm", {}, {}, "no hugetlbfs", "mount -t hugetlbfs"},
      {"hugepages-packets",
       kFail,
       "xeon-2s",
       {{"/sys/devices/system/node/node1/hugepages/hugepages-2048kB/free_hugepages", "10"},
        {"/sys/devices/system/node/node1/hugepages/hugepages-1048576kB/free_hugepages", "0"}},
       {},
       "20 MiB of 128 MiB free on node 1",
       "echo 8246 > /sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages"},
      {"hugepages-ram",
       kFail,
       "xeon-2s",
       {{"/sys/devices/system/node/node1/hugepages/hugepages-2048kB/free_hugepages", "4000"}},
       {},
       "96 pages of 2 MiB on node 1",
       "echo 8288 > /sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages"},
      // Free but promised to somebody's mapping.
      {"hugepages-ram",
       kFail,
       "one-socket",
       {{"/sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages", "5000"}},
       {},
       "3192 free and not promised",
       "nr_hugepages"},
      {"hugepages-ram",
       kFail,
       "epyc-nps4",
       {},
       [](Subject& s) { s.wish.ram.push_back(ram("/dev/hugepages1G/vm1", 12 * kGiB, NodeId{2})); },
       "4 pages of 1 GiB",
       "nr_hugepages"},
      {"ram-file",
       kFail,
       "xeon-2s",
       {},
       [](Subject& s) { s.wish.ram[0].path = "/var/lib/vm0"; },
       "ext4",
       nullptr},
      {"ram-file",
       kFail,
       "xeon-2s",
       {},
       [](Subject& s) { s.wish.ram.push_back(s.wish.ram[0]); },
       "two blocks",
       nullptr},
      {"ram-file", kFail, "xeon-2s", {}, [](Subject& s) { s.wish.ram[0].size = 0; }, "add size=", nullptr},
      {"ram-file",
       kFail,
       "xeon-2s",
       {},
       [](Subject& s) { s.host.ram_files["/dev/hugepages/vm0"] = {true, true, false, 0, 0, 0}; },
       "not a regular file",
       nullptr},
      {"ram-file",
       kFail,
       "xeon-2s",
       {},
       [](Subject& s) { s.host.ram_files["/dev/hugepages/vm0"] = {true, true, true, kGiB, 0, 0}; },
       "1 GiB, not 8 GiB",
       nullptr},
      {"ram-file",
       kFail,
       "xeon-2s",
       {},
       [](Subject& s) { s.host.ram_files["/dev/hugepages/vm0"].folder_exists = false; },
       "does not exist",
       nullptr},
      {"ram-space",
       kFail,
       "vm",
       {},
       [](Subject& s) { s.host.ram_files["/dev/shm/vm0"].free = kGiB / 2; },
       "512 MiB free",
       "remount,size="},
      {"ram-node",
       kFail,
       "xeon-2s",
       {},
       [](Subject& s) { s.wish.ram[0].node = NodeId{7}; },
       "node 7",
       nullptr},
      {"ram-node",
       kWarn,
       "xeon-2s",
       {{"/sys/devices/system/node/node1/meminfo", "Node 1 MemFree: 1000000 kB\n"}},
       [](Subject& s) {
         s.wish.ram[0].path = "/dev/shm/vm0";
         s.host.ram_files["/dev/shm/vm0"] = s.host.ram_files["/dev/hugepages/vm0"];
       },
       "node 1",
       "drop_caches"},
      {"memory-left",
       kFail,
       "vm",
       {{"/proc/meminfo", "MemTotal: 4000000 kB\nMemAvailable: 900000 kB\n"}},
       {},
       "878.9 MiB available",
       nullptr},
      {"memory-left",
       kWarn,
       "vm",
       {{"/proc/meminfo", "MemTotal: 4000000 kB\nMemAvailable: 1500000 kB\n"}},
       {},
       "would be left",
       nullptr},
      {"memlock",
       kOk,
       "xeon-2s",
       {{"/proc/self/limits", "Max locked memory         8388608              8388608              bytes\n"}},
       {},
       "CAP_IPC_LOCK",
       nullptr},
      {"memlock",
       kFail,
       "xeon-2s",
       {{"/proc/self/limits", "Max locked memory         8388608              8388608              bytes\n"},
        {"/proc/self/status", "CapEff:\t0000000000201000\nCpus_allowed_list:\t0-31\n"}},
       {},
       "8 MiB may be locked",
       "ulimit -l"},
      {"cgroup-memory",
       kFail,
       "container",
       {},
       [](Subject& s) { s.wish.ram[0].size = 2 * kGiB; },
       "memory.limit_in_bytes",
       "echo 2"},
      // A group further up counts, too.
      {"cgroup-memory",
       kFail,
       "vm",
       {{"/proc/self/cgroup", "0::/a/b\n"}, {"/sys/fs/cgroup/a/memory.max", "1000000000"}},
       {},
       "/a/memory.max",
       "/a/memory.max"},
      {"cgroup-hugepages",
       kFail,
       "xeon-2s",
       {{"/sys/fs/cgroup/system.slice/hugetlb.2MB.rsvd.max", "1073741824"}},
       {},
       "1 GiB left",
       "hugetlb.2MB.rsvd.max"},
      {"shmem-huge", kWarn, "vm", {}, {}, "pages of 4 KiB", "shmem_enabled"},
      {"swap",
       kWarn,
       "vm",
       {{"/proc/meminfo", "MemTotal: 24683620 kB\nMemAvailable: 20000000 kB\nSwapTotal: 1048576 kB\n"}},
       {},
       "1 GiB of swap",
       nullptr},
      {"ksm", kWarn, "xeon-2s", {{"/sys/kernel/mm/ksm/run", "1"}}, {}, "KSM", "ksm/run"},
      {"zone-reclaim",
       kWarn,
       "xeon-2s",
       {{"/proc/sys/vm/zone_reclaim_mode", "1"}},
       {},
       "is 1",
       "vm.zone_reclaim_mode=0"},
      {"port-exists",
       kFail,
       "xeon-2s",
       {},
       [](Subject& s) { s.wish.ports = {"0000:82:00.0"}; },
       "0000:82:00.0",
       "--status-dev net"},
      {"port-exists",
       kFail,
       "xeon-2s",
       {{kPort + "/class", "0x010802"}},
       {},
       "not an Ethernet",
       "--status-dev net"},
      {"port-driver", kFail, "no-iommu", {}, {}, "i40e (enp2s0)", "dpdk-devbind.py -b vfio-pci 0000:02:00.0"},
      {"port-driver",
       kWarn,
       "xeon-2s",
       {{kPort + "/driver", "-> ../drivers/uio_pci_generic"}},
       {},
       "protects no memory",
       "vfio-pci"},
      // Never a command that would cut the operator off.
      {"port-driver",
       kFail,
       "xeon-2s",
       {},
       [](Subject& s) { s.wish.ports = {"0000:01:00.0"}; },
       "default route",
       nullptr},
      {"iommu", kFail, "no-iommu", {}, {}, "VT-d", "intel_iommu=on iommu=pt"},
      {"iommu-passthrough", kWarn, "epyc-nps4", {{"/proc/cmdline", "ro quiet"}}, {}, "IOMMU", "iommu=pt"},
      {"vfio-module", kFail, "no-iommu", {}, {}, "not loaded", "modprobe vfio-pci"},
      {"vfio-noiommu",
       kWarn,
       "xeon-2s",
       {{"/sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "Y"}},
       {},
       "noiommu",
       "echo N"},
      {"iommu-group",
       kFail,
       "xeon-2s",
       {{"/sys/kernel/iommu_groups/40/devices/0000:81:00.1/x", ""},
        {"/sys/bus/pci/devices/0000:81:00.1/driver", "-> ../drivers/ice"},
        {"/sys/bus/pci/devices/0000:81:00.1/class", "0x020000"}},
       {},
       "0000:81:00.1",
       nullptr},
      {"port-link",
       kFail,
       "epyc-nps4",
       {{kEpycPort + "/net/ens1f0np0/carrier", "0"}},
       {},
       "no link",
       nullptr},
      {"port-link",
       kFail,
       "epyc-nps4",
       {{kEpycPort + "/net/ens1f0np0/carrier", std::nullopt}},
       {},
       "is down",
       "ip link set ens1f0np0 up"},
      {"port-link",
       kWarn,
       "epyc-nps4",
       {{kEpycPort + "/net/ens1f0np0/speed", "1000"}},
       {},
       "1000 Mbit/s",
       nullptr},
      {"port-mtu",
       kWarn,
       "epyc-nps4",
       {{kEpycPort + "/net/ens1f0np0/mtu", "1500"}},
       {},
       "MTU 1500",
       "mtu 9000"},
      {"port-mtu", kWarn, "xeon-2s", {}, [](Subject& s) { s.wish.mtu = 1500; }, "--mtu 1500", nullptr},
      {"port-pcie", kWarn, "xeon-2s", {{kPort + "/current_link_width", "8"}}, {}, "x8", nullptr},
      {"port-pcie",
       kWarn,
       "xeon-2s",
       {{kPort + "/current_link_speed", "8.0 GT/s PCIe"}},
       {},
       "8.0 GT/s",
       nullptr},
      {"dpdk-driver",
       kFail,
       "xeon-2s",
       {{"/drivers/librte_net_ice.so.23", std::nullopt}, {"/drivers/librte_net_i40e.so.23", std::nullopt}},
       {},
       "0000:81:00.0",
       "apt-get install"},
      {"dpdk-driver",
       kFail,
       "vm",
       {},
       [](Subject& s) { s.wish.ports = {"net_tpa0"}; },
       "net_tpa",
       "librte-net-tpa"},
      {"address",
       kFail,
       "xeon-2s",
       {},
       [](Subject& s) { s.wish.addresses = {"192.0.2.1/24"}; },
       "192.0.2.1",
       nullptr},
      {"kernel", kWarn, "xeon-2s", {{"/proc/sys/kernel/osrelease", "5.10.0-33-amd64"}}, {}, "5.10", nullptr},
      {"dpdk-version",
       kFail,
       "xeon-2s",
       {},
       [](Subject& s) { s.host.dpdk_version = "DPDK 21.11.2"; },
       "21.11",
       nullptr},
      {"qemu",
       kWarn,
       "xeon-2s",
       {},
       [](Subject& s) { s.host.qemu_version = ""; },
       "no qemu",
       "apt-get install"},
      {"qemu",
       kWarn,
       "xeon-2s",
       {},
       [](Subject& s) { s.host.qemu_version = "QEMU emulator version 5.2.0"; },
       "5.2",
       nullptr},
      {"libvirt",
       kWarn,
       "xeon-2s",
       {},
       [](Subject& s) { s.host.libvirt_version = "libvirtd (libvirt) 7.0.0"; },
       "7.0",
       nullptr},
      {"apparmor",
       kWarn,
       "xeon-2s",
       {{"/sys/module/apparmor/parameters/enabled", "Y"}},
       {},
       "libvirt",
       "/dev/hugepages/vm0"},
      {"selinux", kWarn, "xeon-2s", {{"/sys/fs/selinux/enforce", "1"}}, {}, "enforcing", "ausearch"},
      {"privileges", kWarn, "container", {}, {}, "CAP_NET_ADMIN, CAP_SYS_ADMIN", nullptr},
      {"privileges",
       kFail,
       "xeon-2s",
       {{"/proc/self/status", "CapEff:\t0\nCpus_allowed_list:\t0-31\n"}},
       {},
       "CAP_IPC_LOCK",
       nullptr},
      {"open-files",
       kWarn,
       "xeon-2s",
       {{"/proc/self/limits", "Max open files            256                  256                  files\n"}},
       {},
       "256",
       "ulimit -n"},
      {"map-count",
       kWarn,
       "xeon-2s",
       {{"/proc/sys/vm/max_map_count", "1000"}},
       {},
       "1000",
       "vm.max_map_count"},
      {"certificate",
       kFail,
       "xeon-2s",
       {},
       [](Subject& s) { s.wish.certificate = std::string(MIGRX_HOSTS) + "/xeon-2s.host"; },
       "no X.509",
       nullptr},
  };
  return list;
}

TEST(DoctorChecks, each_finds_its_fault) {
  for (const Fault& fault : faults()) {
    SCOPED_TRACE(std::string(fault.id) + " on " + fault.host);
    Subject seeded = subject(fault.host, fault.edits);
    if (fault.change) fault.change(seeded);
    const CheckVerdict verdict = look(seeded)[fault.id];
    EXPECT_STREQ(to_string(verdict.state), to_string(fault.state)) << verdict.text;
    EXPECT_NE(verdict.text.find(fault.says), std::string::npos) << verdict.text;
    if (fault.command == nullptr)
      EXPECT_EQ(verdict.command, "");
    else
      EXPECT_NE(verdict.command.find(fault.command), std::string::npos) << verdict.command;
  }
}

TEST(DoctorChecks, every_check_has_a_fault_here) {
  std::set<std::string> seeded;
  for (const Fault& fault : faults()) seeded.insert(fault.id);
  std::set<std::string> known;
  for (const Check* const check : all_checks()) {
    EXPECT_TRUE(known.insert(check->id).second) << check->id << " twice";
    EXPECT_EQ(std::string(check->why).back(), '.') << check->id;
  }
  EXPECT_EQ(seeded, known);
  EXPECT_GE(known.size(), 25U);
}

TEST(DoctorChecks, hosts_in_order_have_no_finding) {
  for (const char* const name : {"xeon-2s", "epyc-nps4", "one-socket"})
    EXPECT_EQ(trouble(look(subject(name))), std::set<std::string>{}) << name;
}

TEST(DoctorChecks, hosts_with_known_trouble) {
  using Ids = std::set<std::string>;
  EXPECT_EQ(trouble(look(subject("no-iommu"))), (Ids{"iommu!", "port-driver!", "vfio-module!"}));
  EXPECT_EQ(trouble(look(subject("vm"))),
            (Ids{"cpu-count", "cpu-isolation", "hugepages-mounted", "irq-affinity", "shmem-huge"}));
  EXPECT_EQ(trouble(look(subject("container"))),
            (Ids{"cpu-count", "cpu-isolation", "cpuset", "hugepages-mounted", "irq-affinity", "privileges",
                 "shmem-huge"}));
}

// An operator pastes them into a root shell.
TEST(DoctorChecks, commands_are_shell_that_parses_and_quotes) {
  for (const Fault& fault : faults()) {
    Subject seeded = subject(fault.host, fault.edits);
    if (fault.change) fault.change(seeded);
    const std::string command = look(seeded)[fault.id].command;
    if (command.empty()) continue;
    EXPECT_EQ(std::system(("bash -n -c " + shell_quote(command)).c_str()), 0) << command;
  }
  EXPECT_EQ(shell_quote("/dev/shm/a b'; reboot"), "'/dev/shm/a b'\\''; reboot'");
  EXPECT_EQ(shell_quote(""), "''");
  // A path from --ram inside a command stays one word.
  Subject seeded = subject("vm", {{"/sys/module/apparmor/parameters/enabled", "Y"}});
  seeded.wish.ram[0].path = "/dev/shm/$(touch pasted)";
  const std::string command = look(seeded)["apparmor"].command;
  EXPECT_NE(command.find("'  \"/dev/shm/$(touch pasted)\" rwk,'"), std::string::npos) << command;
}

// Those that only write files of the kernel are run on the recorded host, after which the check is content.
TEST(DoctorChecks, commands_mend_what_was_found) {
  const std::map<std::string, std::pair<std::string, std::string>> seeds{
      {"cpu-governor", {kCpus + "/cpu11/cpufreq/scaling_governor", "powersave"}},
      {"irq-affinity", {"/proc/irq/24/smp_affinity_list", "11"}},
      {"clock-source", {"/sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet"}},
      {"ksm", {"/sys/kernel/mm/ksm/run", "1"}},
      {"vfio-noiommu", {"/sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "Y"}},
  };
  for (const auto& [id, seed] : seeds) {
    const HostTree tree("xeon-2s");
    tree.put("/proc/irq/24/effective_affinity_list", std::nullopt);
    tree.put(seed.first, seed.second);
    const auto now = [&] {
      return look({gather_facts(HostFiles(tree.root()), program_facts()), wish_for("xeon-2s")})[id];
    };
    const CheckVerdict before = now();
    ASSERT_EQ(before.state, CheckState::warn) << id;
    const std::string command =
        std::regex_replace(before.command, std::regex("/(sys|proc)/"), tree.root() + "/$1/");
    ASSERT_EQ(std::system(command.c_str()), 0) << command;
    EXPECT_EQ(now().state, CheckState::ok) << id << ": " << now().text;
  }
}

// The file's own pages are not asked for twice.
TEST(DoctorChecks, pages_that_a_file_has_are_not_counted_again) {
  Subject seeded = subject(
      "xeon-2s", {{"/sys/devices/system/node/node1/hugepages/hugepages-2048kB/free_hugepages", "100"}});
  EXPECT_EQ(look(seeded)["hugepages-ram"].state, CheckState::fail);
  seeded.host.ram_files["/dev/hugepages/vm0"] = {true, true, true, 8 * kGiB, 8 * kGiB, 0};
  EXPECT_EQ(look(seeded)["hugepages-ram"].state, CheckState::ok);
}

TEST(DoctorChecks, certificate_dates) {
  // Made with: openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650.
  Subject seeded = subject("xeon-2s");
  seeded.wish.certificate = std::string(MIGRX_HOSTS) + "/certificate.pem";
  const auto at = [&](int64_t now) {
    for (const Finding& finding : examine(seeded.host, seeded.wish, now))
      if (std::string(finding.check->id) == "certificate") return finding.verdict;
    return CheckVerdict{};
  };
  int64_t expires = 0;
  std::ifstream(std::string(MIGRX_HOSTS) + "/certificate.expires") >> expires;
  EXPECT_EQ(at(expires - 40 * 86'400).state, CheckState::ok);
  EXPECT_EQ(at(expires - 10 * 86'400).state, CheckState::warn);
  EXPECT_EQ(at(expires + 10).state, CheckState::fail);
}

TEST(DoctorReport, exit_status_text_and_json) {
  const auto status = [](const std::string& host, bool strict) {
    const Subject seeded = subject(host);
    return doctor_status(examine(seeded.host, seeded.wish, kNow), strict);
  };
  EXPECT_EQ(status("xeon-2s", true), 0);
  EXPECT_EQ(status("vm", false), 0);
  EXPECT_EQ(status("vm", true), 1);
  EXPECT_EQ(status("no-iommu", false), 1);
  const Subject seeded = subject("no-iommu");
  const auto findings = examine(seeded.host, seeded.wish, kNow);
  const std::string text = findings_text(findings, false);
  EXPECT_NE(text.find("FAIL    port-driver"), std::string::npos) << text;
  EXPECT_NE(text.find("# modprobe vfio-pci"), std::string::npos);
  EXPECT_EQ(text.find("OK "), std::string::npos);
  EXPECT_NE(text.find("not ready"), std::string::npos);
  EXPECT_NE(findings_text(findings, true).find("OK      cpu-count"), std::string::npos);
  const std::string json = findings_json(findings, "0.1.0");
  EXPECT_NE(json.find("\"ready\": false"), std::string::npos);
  EXPECT_NE(json.find("\"id\": \"port-driver\""), std::string::npos);
}

// The facts that /sys gives are those that hwloc gives for this host.
TEST(HostFactsOfThisHost, topology_is_that_of_hwloc) {
  std::string problem;
  const auto hwloc = load_topology("this", problem);
  ASSERT_TRUE(hwloc) << problem;
  const Topology ours = gather_facts(HostFiles(), program_facts()).topology;
  ASSERT_EQ(ours.cpus.size(), hwloc->cpus.size());
  for (std::size_t i = 0; i < ours.cpus.size(); ++i) {
    EXPECT_EQ(ours.cpus[i].cpu, hwloc->cpus[i].cpu);
    EXPECT_EQ(ours.cpus[i].node, hwloc->cpus[i].node);
    for (std::size_t j = 0; j < i; ++j)
      EXPECT_EQ(ours.cpus[i].core == ours.cpus[j].core, hwloc->cpus[i].core == hwloc->cpus[j].core);
  }
  EXPECT_EQ(ours.nodes.size(), hwloc->nodes.size());
}

TEST(HostFacts, odd_files_are_no_facts) {
  const Subject odd =
      subject("one-socket", {{kCpus + "/isolated", "7-2,x"},
                             {"/proc/self/cgroup", "no colon\n0::relative\n:::\n"},
                             {"/proc/irq/24/effective_affinity_list", "zero"},
                             {"/proc/self/limits", "Max locked memory\n"},
                             {"/proc/cpuinfo", "flags:\nmodel name\n"},
                             {"/proc/net/tcp", "  sl local\n 0: 00:00\n 1: x 0 0A"},
                             {"/sys/devices/system/node/node0/meminfo", "Node\nNode 0\n: 5\n"},
                             {"/sys/bus/pci/devices/0000:02:00.0/vendor", "banana"}});
  EXPECT_TRUE(odd.host.isolated.empty());
  EXPECT_EQ(odd.host.topology.cpus.size(), 8U);
  EXPECT_FALSE(look(odd).empty());
}

TEST(HostFiles, reads_only_regular_files) {
  const HostTree tree("vm");
  ASSERT_EQ(std::system(("mkfifo " + tree.root() + "/fifo").c_str()), 0);
  const HostFiles files(tree.root());
  EXPECT_FALSE(files.read("/fifo"));  // would wait for a writer
  EXPECT_FALSE(files.read("/proc"));
  EXPECT_FALSE(files.read("/none"));
  EXPECT_FALSE(files.number("/proc/meminfo"));
  EXPECT_EQ(files.line("/sys/devices/system/cpu/online"), "0-1");
}

}  // namespace
}  // namespace migrx
