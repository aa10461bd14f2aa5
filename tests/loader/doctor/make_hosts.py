#!/usr/bin/python3
"""Writes the hosts of this folder that were not recorded: made up from what kernels of such hosts show.

usage: make_hosts.py            (writes *.host beside itself; record_host.py tells the form)

Everything on them is in order for the plan that doctor makes; the tests seed one fault each.
"""

import os

HERE = os.path.dirname(os.path.abspath(__file__))
FLAGS = "fpu tsc msr constant_tsc nonstop_tsc ssse3 sse4_1 sse4_2 avx avx2 avx512f"


def ranges(numbers):
    """Linux's form of a CPU list."""
    out, numbers = [], sorted(numbers)
    for number in numbers:
        if out and number == out[-1][1] + 1:
            out[-1][1] = number
        else:
            out.append([number, number])
    return ",".join("%d" % a if a == b else "%d-%d" % (a, b) for a, b in out)


class Host:
    """Files of one host, by path; a value of None is a folder, one that begins with "-> " a link."""

    def __init__(self, comment, model, packages, nodes, cores, threads, memory_gib, isolated_per_node):
        self.comment, self.files, self.nodes = comment, {}, nodes
        f = self.files
        total = nodes * cores
        # The first threads of all cores come first, as firmware commonly numbers them.
        siblings = {cpu: [cpu % total + total * t for t in range(threads)] for cpu in range(total * threads)}
        node_of = {cpu: cpu % total // cores for cpu in siblings}
        taken = [cpu for cpu in siblings if 2 <= cpu % total % cores < 2 + isolated_per_node]
        self.isolated = ranges(taken)
        cpu_folder = "/sys/devices/system/cpu"
        f[cpu_folder + "/online"] = ranges(siblings)
        for name in ("isolated", "nohz_full"):
            f[cpu_folder + "/" + name] = self.isolated
        for cpu, same in siblings.items():
            here = "%s/cpu%d" % (cpu_folder, cpu)
            f[here + "/topology/thread_siblings_list"] = ranges(same)
            f[here + "/topology/physical_package_id"] = str(node_of[cpu] * packages // nodes)
            f[here + "/cache/index3/shared_cpu_list"] = ranges(c for c in siblings if node_of[c] == node_of[cpu])
            f[here + "/cache/index3/type"] = "Unified"
            f[here + "/cpufreq/scaling_governor"] = "performance"
        kib = memory_gib << 20
        for node in range(nodes):
            here = "/sys/devices/system/node/node%d" % node
            f[here + "/cpulist"] = ranges(c for c in siblings if node_of[c] == node)
            f[here + "/distance"] = " ".join(self.distance(node, other, packages) for other in range(nodes))
            f[here + "/meminfo"] = "Node %d MemTotal: %d kB\nNode %d MemFree: %d kB" % (
                node, kib // nodes, node, kib // nodes // 4)
            for size, pages in ((2048, 8192), (1048576, 16)):
                for name in ("nr_hugepages", "free_hugepages"):
                    f["%s/hugepages/hugepages-%dkB/%s" % (here, size, name)] = str(pages)
        for size, pages in ((2048, 8192 * nodes), (1048576, 16 * nodes)):
            here = "/sys/kernel/mm/hugepages/hugepages-%dkB/" % size
            f[here + "nr_hugepages"] = f[here + "free_hugepages"] = str(pages)
            f[here + "resv_hugepages"] = "0"
        f["/proc/meminfo"] = "MemTotal: %d kB\nMemFree: %d kB\nMemAvailable: %d kB\nSwapTotal: 0 kB\nHugepagesize: 2048 kB" % (
            kib, kib // 4, kib // 3)
        f["/proc/cpuinfo"] = "model name\t: %s\nflags\t\t: %s" % (model, FLAGS)
        intel = "intel_iommu=on " if "Intel" in model else ""
        f["/proc/cmdline"] = ("BOOT_IMAGE=/vmlinuz root=/dev/sda2 ro %siommu=pt isolcpus=%s nohz_full=%s rcu_nocbs=%s" % (
            intel, self.isolated, self.isolated, self.isolated))
        f["/proc/self/status"] = "CapEff:\t000001ffffffffff\nCpus_allowed_list:\t%s\nMems_allowed_list:\t%s" % (
            ranges(siblings), ranges(range(nodes)))
        f["/proc/self/limits"] = ("%-25s %-20s %-20s %-10s\n" % ("Limit", "Soft Limit", "Hard Limit", "Units") +
                                  "%-25s %-20s %-20s %-10s\n" % ("Max open files", "1024", "524288", "files") +
                                  "%-25s %-20s %-20s %-10s" % ("Max locked memory", "unlimited", "unlimited", "bytes"))
        f["/proc/self/cgroup"] = "0::/system.slice/ssh.service"
        f["/sys/fs/cgroup/system.slice/memory.max"] = "max"
        f["/proc/self/mounts"] = ("/dev/sda2 / ext4 rw,relatime 0 0\ntmpfs /dev/shm tmpfs rw,nosuid,nodev 0 0\n"
                                  "hugetlbfs /dev/hugepages hugetlbfs rw,relatime,pagesize=2M 0 0\n"
                                  "hugetlbfs /dev/hugepages1G hugetlbfs rw,relatime,pagesize=1024M 0 0")
        f["/sys/devices/system/clocksource/clocksource0/current_clocksource"] = "tsc"
        for name, value in (("kernel/numa_balancing", "0"), ("kernel/osrelease", "6.1.0-28-amd64"),
                            ("vm/swappiness", "60"), ("vm/zone_reclaim_mode", "0"), ("vm/max_map_count", "65530")):
            f["/proc/sys/" + name] = value
        f["/sys/kernel/mm/transparent_hugepage/shmem_enabled"] = "always within_size [advise] never deny force"
        f["/sys/kernel/mm/ksm/run"] = "0"
        f["/sys/module/apparmor/parameters/enabled"] = "N"
        f["/sys/module/vfio_pci/"] = None
        f["/proc/irq/24/smp_affinity_list"] = f["/proc/irq/24/effective_affinity_list"] = "0-1"
        f["/proc/irq/24/nvme0q0/"] = None
        f["/proc/net/route"] = "Iface\tDestination\tGateway\neno1\t00000000\t010200C0"
        f["/proc/net/fib_trie"] = "Local:\n  |-- 192.0.2.1\n     /32 host LOCAL"
        self.pci("0000:01:00.0", 0x8086, 0x1521, 0, "igb", 1, netdev="eno1", speed=1000)

    @staticmethod
    def distance(a, b, packages):
        return "10" if a == b else "21" if packages > 1 and a // 2 != b // 2 or packages == 2 else "12"

    def pci(self, address, vendor, device, node, driver, group, netdev=None, speed=100000, mtu=1500, kind="0x020000"):
        here = "/sys/bus/pci/devices/" + address
        f = self.files
        f[here + "/vendor"], f[here + "/device"], f[here + "/class"] = "0x%04x" % vendor, "0x%04x" % device, kind
        f[here + "/numa_node"] = str(node)
        f[here + "/driver"] = "-> ../../../../bus/pci/drivers/" + driver
        if group is not None:
            f[here + "/iommu_group"] = "-> ../../../../kernel/iommu_groups/%d" % group
            f["/sys/kernel/iommu_groups/%d/devices/%s/" % (group, address)] = None
        if netdev:
            f["%s/net/%s/speed" % (here, netdev)], f["%s/net/%s/mtu" % (here, netdev)] = str(speed), str(mtu)
            f["%s/net/%s/carrier" % (here, netdev)] = "1"
        for when in ("current", "max"):
            f["%s/%s_link_speed" % (here, when)], f["%s/%s_link_width" % (here, when)] = "16.0 GT/s PCIe", "16"

    def write(self, name):
        with open(os.path.join(HERE, name + ".host"), "w", encoding="utf-8") as out:
            out.write("# %s Made by make_hosts.py, not recorded.\n" % self.comment)
            for path, text in sorted(self.files.items()):
                if text is None:
                    out.write(path + "\n")
                elif text.startswith("-> "):
                    out.write("%s %s\n" % (path, text))
                else:
                    out.write(path + "\n" + "".join("\t%s\n" % line for line in text.split("\n")))


def main():
    xeon = Host("Two sockets, one node each, 100 GbE on node 1 bound to vfio-pci.", "Intel(R) Xeon(R) Gold 6334 CPU @ 3.60GHz",
                packages=2, nodes=2, cores=8, threads=2, memory_gib=256, isolated_per_node=6)
    xeon.pci("0000:81:00.0", 0x8086, 0x1592, 1, "vfio-pci", 40)
    xeon.write("xeon-2s")
    epyc = Host("One socket as four nodes (NPS4), ConnectX-6 on node 2 with the kernel's driver.",
                "AMD EPYC 7313 16-Core Processor", packages=1, nodes=4, cores=4, threads=2, memory_gib=256,
                isolated_per_node=2)
    epyc.pci("0000:41:00.0", 0x15b3, 0x101d, 2, "mlx5_core", 22, netdev="ens1f0np0", mtu=9000)
    epyc.write("epyc-nps4")
    single = Host("One socket without SMT, one node, X710 bound to vfio-pci.", "Intel(R) Xeon(R) E-2388G CPU @ 3.20GHz",
                  packages=1, nodes=1, cores=8, threads=1, memory_gib=64, isolated_per_node=4)
    single.pci("0000:02:00.0", 0x8086, 0x1572, 0, "vfio-pci", 15)
    single.write("one-socket")
    bare = Host("As one-socket, booted without an IOMMU: the port is still the kernel's.",
                "Intel(R) Xeon(R) E-2388G CPU @ 3.20GHz", packages=1, nodes=1, cores=8, threads=1, memory_gib=64,
                isolated_per_node=4)
    bare.files = {path: text for path, text in bare.files.items() if "iommu" not in path and "vfio" not in path}
    bare.files["/proc/cmdline"] = bare.files["/proc/cmdline"].replace("intel_iommu=on iommu=pt ", "")
    bare.pci("0000:02:00.0", 0x8086, 0x1572, 0, "i40e", None, netdev="enp2s0", speed=10000)
    bare.write("no-iommu")


if __name__ == "__main__":
    main()
