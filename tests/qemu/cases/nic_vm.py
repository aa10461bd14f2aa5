"""PCI NICs: migrx on the PCI address of an emulated NIC, inside a VM with an IOMMU and two NUMA nodes.

A source QEMU outside migrates to it over the NIC's netdev. docs/nic-vm.md has what the models differ in.
"""

import contextlib
import dataclasses
import os
import re
import time

from rig.guest import MIB
from rig.network import Network, Tagged
from rig.nic_vm import MODELS, NIC_NODE, NicVm
from rig.runner import Case, expect
from rig.transfer import Transfer, need

VLAN = 7
FLAP_S = 5.0


@dataclasses.dataclass
class NicTransfer(Transfer):
    """A migration into a VM. `model`: a name of MODELS; `vlan`: frames bear that tag; `flap`: the NIC loses its link
    for some seconds in precopy."""

    version: str = "10"
    channels: int = 2
    dirty_s: float = 1.0
    model: str = "virtio"
    vlan: int = 0
    flap: bool = False
    timeout: int = 120

    def queues(self):
        """Poll cores; virtio has several queues with a netdev of several alone, as taps are."""
        return 1 if self.vlan and MODELS[self.model].taps > 1 else MODELS[self.model].queues

    def make_network(self, folder):
        if self.vlan:
            return Tagged(folder, self.mtu, self.ipv6, self.vlan)
        return Network(self.mtu, ipv6=self.ipv6)

    def start_receiver(self, folder, stack, network, options):
        model = MODELS[self.model]
        need(model.version)
        extra = (*self.receiver_extra, *(("--vlan", str(self.vlan)) if self.vlan else ()))
        vm = stack.enter_context(NicVm(folder, network, model, options, self.channels, self.compression, extra,
                                       self.queues()))
        begun = time.monotonic()
        expect(vm.wait_ready(), "migrx never got ready in the VM: %s", vm.log()[-3000:])
        vm.taken_s = time.monotonic() - begun
        self.vm = vm
        return vm

    def converge(self, source):
        if self.flap:
            deadline = time.monotonic() + 60
            while source.migration().get("ram", {}).get("transferred", 0) < MIB:
                expect(time.monotonic() < deadline, "the migration never got going: %s", source.migration())
                time.sleep(0.05)
            self.vm.set_link(False)
            time.sleep(FLAP_S)
            self.vm.set_link(True)
        super().converge(source)


def _checked(report, transfer):
    """What must be so beside equal memory; and what the run was like, in a few words."""
    vm = transfer.vm
    model = MODELS[transfer.model]
    bound = re.search(r"^nic (\S+) \S*/(\S+) node (\d+) group \S+/\d+$", vm.log(), re.MULTILINE)
    expect(bound, "the NIC is not bound: %s", vm.log()[:2000])
    expect(bound.group(2, 3) == ("vfio-pci", str(NIC_NODE)), "bound as %s", bound.group(0))
    queues = transfer.queues()
    plan = vm.text("plan.txt")
    expect("node %d: the port's node" % NIC_NODE in plan, "the plan does not know the NIC's node: %s", plan)
    expect(re.search(r"^doctor ended with 0$", vm.log(), re.MULTILINE), "doctor: %s", vm.text("doctor.txt"))
    polls = [core for core in report["cores"] if core["role"] == "poll"]
    expect(len(polls) == queues and all(core["node"] == NIC_NODE for core in polls), "poll cores: %s", polls)
    expect(report["blocks"][0]["node"] == NIC_NODE and report["blocks"][0]["huge_mapped_bytes"] == transfer.size,
           "block: %s", report["blocks"][0])
    (port,) = report["ports"]
    expect(port["driver"] == model.driver and port["node"] == NIC_NODE and port["mtu"] == transfer.mtu and
           port["queues"] == queues, "port: %s", port)
    expect(port["link"].startswith("up"), "link: %s", port["link"])
    polled, counted = report["dataplane"]["poll.frames"], report["dataplane"].get("port.rx_packets", 0)
    expect(counted >= polled, "the device counts %d frames, the poll cores %d", counted, polled)
    peers = {channel["peer"].rsplit(":", 1)[0] for channel in report["channels"]}
    expect(peers == {"[%s]" % vm.network.near_6 if transfer.ipv6 else vm.network.near}, "channels came from %s", peers)
    if transfer.flap:
        changes = [event["up"] for event in report["links"]]
        expect(changes == [False, True], "links: %s", changes)
    if transfer.vlan:
        counts = vm.network.counts()
        expect(counts["dropped"] == 0 and counts["tagged"] > 0 and counts["untagged"] > 0, "the switch: %s", counts)
    used = len({channel["poll_core"] for channel in report["channels"]})
    return ("ready in %.0f s, %.0f MiB at %.0f MiB/s, channels on %d of %d queues, %d of %d segments checked in software, "
            "%s, %d+%d descriptors, link %s" % (
                vm.taken_s, report["wire_bytes"] / MIB, report["throughput"]["wire_bytes_per_s"] / MIB, used, queues,
                report["dataplane"].get("poll.checksums_in_software", 0), report["dataplane"]["wire.segment_ok"],
                " ".join(port["offloads"]) or "no offloads", port["rx_descriptors"], port["tx_descriptors"],
                port["link"]))


# What an operator may do wrong with a card: (name, shell lines before, options instead, words of the refusal).
MISUSES = (
    ("mtu", "", {"--mtu": "9001"}, ("its largest MTU is 9000",)),
    ("three-queues", "", {"--poll-cores": "1-3"}, ("1, 2, 4 or 8 queue pairs", "--poll-cores")),
    ("unbound", "echo $nic > /sys/bus/pci/drivers/vfio-pci/unbind", {}, ("dpdk-devbind.py -b vfio-pci",)),
    ("no-card", "", {"--port": "0000:82:00.0"}, ("no PCI function 0000:82:00.0", "lspci")),
    ("no-hugepages", "for i in 0 1; do echo 0 > /sys/devices/system/node/node$i/hugepages/hugepages-2048kB/nr_hugepages;"
     " done", {"--ram": "mem=/tmp/mem,size=16M"}, ("packets of a PCI port need hugepages", "migrx doctor")),
)


def misused(folder, stack):
    """What goes wrong with a card on its first day is refused, with what to do, before anything is touched."""
    need("7.2")
    network = stack.enter_context(Network(9000))
    tries = [(name, before, options) for name, before, options, _words in MISUSES]
    vm = stack.enter_context(NicVm(folder, network, MODELS["vmxnet3"], {"mem": "%s,size=%d" % (
        os.path.join(folder, "mem"), 16 * MIB)}, queues=2, tries=tries))
    expect(vm.network.attach(vm.alive), "the VM ended: %s", vm.machine.log())
    vm.wait(300)
    for name, _before, _options, words in MISUSES:
        text = vm.text("try-%s.txt" % name)
        expect(re.search(r"^try %s ended with 2$" % name, vm.log(), re.MULTILINE), "%s: %s", name, vm.log()[-3000:])
        for word in words:
            expect(word in text, "%s: no %r in: %s", name, word, text)
    return ""


def _case(name, body, quick, timeout):
    def run(folder):
        with contextlib.ExitStack() as stack:
            return body(folder, stack)
    return Case(name, run, quick, timeout)


def cases():
    for model in MODELS:
        plain = NicTransfer(model=model, check=_checked)
        yield Case("nic-vm-%s" % model, plain.run, model == "virtio", 400)
        tagged = NicTransfer(model=model, vlan=VLAN, mtu=1500, ipv6=True, check=_checked)
        yield Case("nic-vm-%s-vlan-ipv6-1500" % model, tagged.run, False, 400)
        flapping = NicTransfer(model=model, flap=True, check=_checked)
        yield Case("nic-vm-%s-link-flap" % model, flapping.run, False, 400)
    yield _case("nic-vm-misused", misused, False, 400)
