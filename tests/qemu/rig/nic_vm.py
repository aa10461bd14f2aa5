"""A virtual machine with an emulated NIC, in which the migrx of this build receives on the NIC's PCI address.

[source QEMU, kernel's TCP, 10.77.0.1 on mig0] == tap == [VM: NIC behind the IOMMU, vfio-pci, DPDK, migrx 10.77.0.2]

The VM is a Debian kernel and an initramfs made here, nothing else: busybox, the modules, migrx with its libraries and
DPDK's drivers. What is to be looked at outside (guest RAM, report, logs) is written to a scratch disk at the end.
"""

import contextlib
import dataclasses
import functools
import os
import re
import shlex
import subprocess
import tarfile
import tempfile
import time
import urllib.parse

from .cpio import Modules, newc, with_folders
from .guest import MIB
from .linux_guest import CACHE
from .machine import Backend, Machine
from .network import INTERFACE, Tagged
from .receiver import PORT, Receiver, migrx_program
from .runner import Skip

NODE_BYTES = 640 * MIB
NODES, CPUS = 2, 4  # half of the processors on each node
NIC_NODE = 1
HUGEPAGES = 200  # 2 MiB, on each node
_MODULES = ("virtio_pci", "virtio_blk", "vfio_iommu_type1", "vfio_pci", "vfat")
_DRIVERS = ("bus_pci", "bus_vdev", "mempool_ring", "net_e1000", "net_vmxnet3", "net_virtio")
_SCRATCH = "/dev/vda"


@dataclasses.dataclass(frozen=True)
class Model:
    """An emulated NIC. `device`: QEMU's option; `taps`: queues of the tap beneath it; `queues`: most that migrx can
    have; `version`: of the QEMU that has it."""

    name: str
    device: str
    driver: str
    queues: int = 1
    taps: int = 1
    version: str = "7.2"


_VIRTIO = "virtio-net-pci,iommu_platform=on,disable-legacy=on,romfile="
MODELS = {model.name: model for model in (
    Model("virtio", _VIRTIO + ",mq=on,vectors=6,rss=on", "net_virtio", 2, 2),
    Model("virtio-no-rss", _VIRTIO + ",mq=on,vectors=6", "net_virtio", 2, 2),
    Model("e1000e", "e1000e,romfile=", "net_e1000_em"),
    Model("vmxnet3", "vmxnet3,romfile=", "net_vmxnet3", 2),
    Model("igb", "igb,romfile=", "net_e1000_igb", 2, 1, "10"),
)}

_INIT = r"""#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
chmod 755 /  # DPDK loads no drivers from folders that others may write to
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
mkdir -p /dev/hugepages /out/blocks /run /var
mount -t tmpfs none /run
ln -s /run /var/run
for module in $(cat /modules/order); do
  insmod /modules/$module.ko || echo "no module $module"
done
for node in /sys/devices/system/node/node[0-9]*; do
  echo {hugepages} > $node/hugepages/hugepages-2048kB/nr_hugepages
done
mount -t hugetlbfs none /dev/hugepages
for device in /sys/bus/pci/devices/*; do
  [ "$(cat $device/class)" = 0x020000 ] || continue
  nic=${{device##*/}}
  echo vfio-pci > $device/driver_override
  [ -e $device/driver ] && echo $nic > $device/driver/unbind
  echo $nic > /sys/bus/pci/drivers_probe
  echo "nic $nic $(readlink $device/driver) node $(cat $device/numa_node) group $(readlink $device/iommu_group)"
done
echo "booted in $(cut -d ' ' -f 1 /proc/uptime) s"
{tries}
migrx doctor {doctor} > /out/doctor.txt 2>&1
echo "doctor ended with $?"
migrx plan {plan} > /out/plan.txt 2>&1
echo "plan ended with $?"
mkfifo /ready
{{ read line < /ready; echo "told: $line"; }} &
{{ migrx receive {receive} 3> /ready; echo $? > /out/status; }} 2>&1 | tee /out/receive.log
echo "migrx ended with $(cat /out/status)"
cd / && tar -cf {scratch} out dev/hugepages && sync
echo "written"
poweroff -f
"""

_TRY = """{before}
timeout 60 migrx receive {options} 3> /dev/null > /out/try-{name}.txt 2>&1
echo "try {name} ended with $?"
"""


def _changed(command, changes):
    """A command's words with other values of some options."""
    out = list(command)
    for option, value in changes.items():
        out[out.index(option) + 1] = value
    return out


def _read(path):
    with open(path, "rb") as file:
        return file.read()


def _libraries(programs):
    """Paths of the shared libraries that these need, by the names under which the loader looks for them."""
    out = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=True).stdout
    return sorted(set(re.findall(r"(?:=> |^\s+)(/\S+) \(0x", out, re.MULTILINE)))


def _drivers():
    """DPDK's drivers that the VM gets, at the paths where DPDK looks for them."""
    folder = next((os.path.join(parent, name) for parent in ("/usr/lib/x86_64-linux-gnu/dpdk",)
                   if os.path.isdir(parent) for name in os.listdir(parent) if name.startswith("pmds-")), None)
    if folder is None:
        raise Skip("needs DPDK's drivers as shared libraries")
    return [os.path.join(folder, name) for name in os.listdir(folder)
            if re.fullmatch(r"librte_(%s)\.so\.[0-9.]+" % "|".join(_DRIVERS), name)]


def _stripped(program):
    """A program without its debug information, which is most of it."""
    with tempfile.NamedTemporaryFile() as file:
        subprocess.run(["objcopy", "--strip-debug", program, file.name], check=True)
        return _read(file.name)


@functools.lru_cache(maxsize=1)
def _system():
    """The part of the initramfs that is the same for every run; and the kernel's path."""
    try:
        release = _read(os.path.join(CACHE, "version")).decode().strip()
    except OSError:
        raise Skip("needs the Linux guest's kernel: scripts/install --linux") from None
    modules = Modules(os.path.join(CACHE, "lib", "modules", release)).closure(_MODULES)
    drivers = _drivers()
    files = {}
    # As links where they are links: a driver that is loaded under two names registers twice.
    for path in [*drivers, *_libraries([migrx_program(), *drivers])]:
        real = os.path.realpath(path)
        files[real] = _read(real)
        if path != real:
            files[path] = real
    files["/bin/busybox"] = _read(os.path.join(CACHE, "bin", "busybox"))
    files["/bin/migrx"] = _stripped(migrx_program())
    files["/modules/order"] = "\n".join(modules).encode()
    files.update({"/modules/%s.ko" % name: data for name, data in modules.items()})
    entries = [("dev", None), ("proc", None), ("sys", None), ("run", None), ("tmp", None), *with_folders(files)]
    return newc(entries), os.path.join(CACHE, "boot", "vmlinuz-" + release)


class NicVm(Receiver):
    """`migrx receive` in a VM with `model`, to be used as a Receiver: ready, wait, report, block.

    `ram` maps block names to the files outside, with their size, into which received RAM is copied when the VM has
    ended. `queues`: poll cores on the NIC's port. `tries`: (name, shell lines, {option: value}) of runs that are
    expected to end by themselves, one after the other, instead of a migration: their output is text("try-NAME.txt").
    """

    def __init__(self, folder, network, model, ram, channels=0, compression="none", extra=(), queues=1, name="nic",
                 tries=()):  # pylint: disable=super-init-not-called
        self.folder, self.network, self.name, self.model = folder, network, name, model
        self.uri = "tcp:%s:%d" % (network.told, PORT)
        self.report_path = os.path.join(folder, name + ".json")
        self.log_path = os.path.join(folder, name + ".log")
        self.dump = os.path.join(folder, name + ".blocks")
        self._ram = {block: option.split(",", 1)[0] for block, option in ram.items()}
        self._scratch = os.path.join(folder, name + ".disk")
        self.status = None
        first = CPUS // NODES * NIC_NODE
        port = ["--port", "$nic", "--address", network.address, "--mtu", str(network.mtu)]
        memory = [word for block, option in ram.items() for word in (
            "--ram", "%s=/dev/hugepages/%s,%s,node=%d" % (block, block, option.split(",", 1)[1], NIC_NODE))]
        receive = [*port, *memory, "--listen", str(PORT), "--report", "/out/report.json", "--dump-blocks",
                   "/out/blocks", "--ready-fd", "3", "--no-handoff", "--poll-cores",
                   ",".join(str(first + i) for i in range(queues))]
        if channels:
            receive += ["--multifd-channels", str(channels), "--multifd-compression", compression]
        receive += extra

        def words(list_):
            return " ".join(word if word == "$nic" else shlex.quote(word) for word in list_)
        init = _INIT.format(hugepages=HUGEPAGES, doctor=words([*port, *memory]), plan=words([*port[:2], *memory]),
                            receive=words(receive), scratch=_SCRATCH, tries="".join(
                                _TRY.format(name=name, before=before, options=words(_changed(receive, changes)))
                                for name, before, changes in tries) + ("cd / && tar -cf %s out && sync; poweroff -f" %
                                                                       _SCRATCH if tries else ""))
        system, kernel = _system()
        initramfs = os.path.join(folder, name + ".initramfs")
        with open(initramfs, "wb") as file:
            file.write(system)
            file.write(newc([("init", init.encode())]))
        with open(self._scratch, "wb") as file:
            file.truncate(64 * MIB + sum(
                int(option.split("size=")[1].split(",")[0]) for option in ram.values()))
        wire = "tap,id=wire,ifname=%s,script=no,downscript=no%s" % (
            INTERFACE, ",queues=%d" % model.taps if model.taps > 1 else "")
        device = model.device
        if isinstance(network, Tagged):  # whose end is a UNIX socket, which QEMU 7.2 knows as "stream"
            wire = "stream,id=wire,addr.type=unix,addr.path=" + network.socket
            device = device.replace(",mq=on", "")
        self.machine = Machine(
            folder, model.version, "q35", [Backend("node%d" % node, NODE_BYTES, "ram") for node in range(NODES)],
            None, network.receiver, vga=0, name=name, cpus="%d,sockets=%d,cores=%d" % (CPUS, NODES, CPUS // NODES),
            extra=["-cpu", "max", "-device", "intel-iommu,intremap=on",
                   "-kernel", kernel, "-initrd", initramfs, "-append",
                   "console=ttyS0 quiet panic=-1 intel_iommu=on iommu=pt",
                   "-drive", "file=%s,format=raw,if=none,id=scratch,cache=unsafe" % self._scratch,
                   "-device", "virtio-blk-pci,drive=scratch",
                   "-device", "pxb-pcie,id=far,bus=pcie.0,bus_nr=128,numa_node=%d" % NIC_NODE,
                   "-device", "pcie-root-port,id=place,bus=far,chassis=1",
                   "-netdev", wire,
                   "-device", "%s,id=card,bus=place,netdev=wire,mac=52:54:00:77:00:02" % device])
        self.process = self.machine.process

    def log(self):
        return self.machine.console().decode(errors="replace").replace("\r", "")

    def wait_ready(self, timeout=240.0):
        """Until migrx in the VM takes connections; False when it, or the VM, ended instead."""
        if not self.network.attach(self.alive, timeout):
            return False
        deadline = time.monotonic() + timeout
        while "\ntold: " not in self.log():
            if not self.alive() or "\nmigrx ended with" in self.log():
                return False
            if time.monotonic() > deadline:
                raise TimeoutError("the VM is not ready after %d s: %s" % (timeout, self.log()[-2000:]))
            time.sleep(0.1)
        return bool(re.search("\ntold: .*[0-9]", self.log()))

    def wait(self, timeout=120.0):
        """Waits until the VM is off; returns migrx's exit status."""
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError("the VM did not end within %d s: %s" % (timeout, self.log()[-2000:])) from None
        self._unpack()
        return self.status

    def text(self, name):
        """A file that the VM wrote: "plan.txt", "doctor.txt", "receive.log"."""
        with open(os.path.join(self.folder, "%s.%s" % (self.name, name)), encoding="utf-8", errors="replace") as file:
            return file.read()

    def _unpack(self):
        os.makedirs(self.dump, exist_ok=True)
        with tarfile.open(self._scratch) as archive:
            for member in archive:
                target = self._target(member.name)
                if not member.isfile() or target is None:
                    continue
                with open(target, "wb") as file:
                    source = archive.extractfile(member)
                    while data := source.read(MIB):
                        file.write(data)
        os.unlink(self._scratch)
        with contextlib.suppress(FileNotFoundError):  # it tried and migrated nothing
            self.status = int(self.text("status"))

    def _target(self, name):
        """Where a file of the archive goes."""
        if name.startswith("dev/hugepages/"):
            return self._ram.get(urllib.parse.unquote(os.path.basename(name)))
        if name.startswith("out/blocks/"):
            return os.path.join(self.dump, os.path.basename(name))
        if name == "out/report.json":
            return self.report_path
        return os.path.join(self.folder, "%s.%s" % (self.name, os.path.basename(name)))

    def set_link(self, up):
        """The NIC's link goes, or comes back."""
        self.machine.qmp.command("set_link", name="card", up=up)

    def close(self):
        self.machine.close()
        if os.path.exists(self._scratch):
            os.unlink(self._scratch)
