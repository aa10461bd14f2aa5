#!/usr/bin/python3
"""Records what `migrx doctor` reads of a running host, as one text: the hosts in this folder are of this form.

usage: record_host.py [COMMENT] > NAME.host

A line that begins with "/" names a file, whose lines follow, each after a tab; "/path -> target" is a symbolic link
and "/path/" a folder. Run it where doctor would run, in a container for example. Addresses and serial numbers are
left out; look through the result before you give it to anybody.
"""

import glob
import os
import re
import sys

FILES = """
/proc/cmdline /proc/meminfo /proc/self/status /proc/self/limits /proc/self/cgroup /proc/self/mounts
/proc/sys/kernel/numa_balancing /proc/sys/kernel/osrelease /proc/sys/vm/swappiness /proc/sys/vm/zone_reclaim_mode
/proc/sys/vm/overcommit_memory /proc/sys/vm/max_map_count /proc/irq/*/*affinity_list
/sys/devices/system/cpu/online /sys/devices/system/cpu/isolated /sys/devices/system/cpu/nohz_full
/sys/devices/system/cpu/cpu[0-9]*/topology/thread_siblings_list
/sys/devices/system/cpu/cpu[0-9]*/topology/physical_package_id
/sys/devices/system/cpu/cpu[0-9]*/cache/index*/shared_cpu_list /sys/devices/system/cpu/cpu[0-9]*/cache/index*/type
/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor
/sys/devices/system/node/node*/cpulist /sys/devices/system/node/node*/distance /sys/devices/system/node/node*/meminfo
/sys/devices/system/node/node*/hugepages/*/nr_hugepages /sys/devices/system/node/node*/hugepages/*/free_hugepages
/sys/kernel/mm/hugepages/*/nr_hugepages /sys/kernel/mm/hugepages/*/free_hugepages
/sys/kernel/mm/hugepages/*/resv_hugepages
/sys/kernel/mm/transparent_hugepage/shmem_enabled /sys/kernel/mm/transparent_hugepage/enabled /sys/kernel/mm/ksm/run
/sys/devices/system/clocksource/clocksource0/current_clocksource
/sys/bus/pci/devices/*/vendor /sys/bus/pci/devices/*/device /sys/bus/pci/devices/*/class
/sys/bus/pci/devices/*/numa_node /sys/bus/pci/devices/*/current_link_speed /sys/bus/pci/devices/*/current_link_width
/sys/bus/pci/devices/*/max_link_speed /sys/bus/pci/devices/*/max_link_width
/sys/bus/pci/devices/*/net/*/speed /sys/bus/pci/devices/*/net/*/mtu /sys/bus/pci/devices/*/net/*/carrier
/sys/bus/pci/devices/*/virtio*/net/*/speed /sys/bus/pci/devices/*/virtio*/net/*/mtu
/sys/bus/pci/devices/*/virtio*/net/*/carrier
/sys/module/apparmor/parameters/enabled /sys/fs/selinux/enforce
/sys/module/vfio/parameters/enable_unsafe_noiommu_mode
""".split()
LINKS = "/sys/bus/pci/devices/*/driver /sys/bus/pci/devices/*/iommu_group".split()
FOLDERS = ("/sys/kernel/iommu_groups/*/devices/* /sys/module/vfio_pci /sys/bus/pci/drivers/vfio-pci "
           "/proc/irq/*/*").split()


def put(path, text):
    print(path)
    for line in text.rstrip("\n").split("\n"):
        print("\t" + line.rstrip())


def cgroup_files():
    with open("/proc/self/cgroup", encoding="ascii") as groups:
        for line in groups:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            while True:
                folder = "/sys/fs/cgroup" + ("" if not controllers else "/" + controllers) + path.rstrip("/")
                yield from glob.glob(folder + "/memory.max")
                yield from glob.glob(folder + "/memory.current")
                yield from glob.glob(folder + "/memory.limit_in_bytes")
                yield from glob.glob(folder + "/memory.usage_in_bytes")
                yield from glob.glob(folder + "/hugetlb.*.max")
                if path in ("", "/"):
                    break
                path = os.path.dirname(path)


def trimmed(path, text):
    if path == "/proc/self/status":
        return "\n".join(line for line in text.split("\n") if re.match(r"Cpus_allowed_list|Mems_allowed_list|CapEff", line))
    if path == "/proc/self/limits":
        return "\n".join(line for line in text.split("\n") if re.match(r"Limit|Max (locked|open)", line))
    if path == "/proc/meminfo":
        return "\n".join(line for line in text.split("\n") if re.match(r"Mem|Swap[TF]|Huge", line))
    if path.endswith("/meminfo"):
        return "\n".join(line for line in text.split("\n") if re.search(r"Mem(Total|Free)", line))
    if path == "/proc/cmdline":
        return " ".join(word for word in text.split() if re.search("iommu|isolcpus|nohz|rcu_nocbs|hugepages", word)) or "quiet"
    if path == "/proc/self/mounts":
        return "\n".join(line for line in text.split("\n") if re.search(r" hugetlbfs | /dev/shm | / ", line))
    return text


def main():
    print("# " + (sys.argv[1] if len(sys.argv) > 1 else "recorded"))
    with open("/proc/cpuinfo", encoding="utf-8") as cpuinfo:
        first = cpuinfo.read().split("\n\n", 1)[0]
    put("/proc/cpuinfo", "\n".join(line for line in first.split("\n") if re.match("model name|flags", line)))
    for path in sorted({path for pattern in FILES for path in glob.glob(pattern)} | set(cgroup_files())):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                put(path, trimmed(path, file.read()))
        except OSError:
            pass  # an interface that is down has no speed
    for pattern in LINKS:
        for path in sorted(glob.glob(pattern)):
            print("%s -> %s" % (path, os.readlink(path)))
    for pattern in FOLDERS:
        for path in sorted(glob.glob(pattern)):
            if os.path.isdir(path):
                print(path + "/")


if __name__ == "__main__":
    main()
