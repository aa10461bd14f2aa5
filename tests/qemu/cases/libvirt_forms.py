"""What virsh's options, a guest's kind of memory and mishaps make of a migration between two libvirt daemons."""

import contextlib
import json
import os
import re
import signal
import time

from rig.guest import MIB, console_lines, expect_unbroken
from rig.hugepages import hugetlb_folder
from rig.libvirt import GUEST
from rig.libvirt_hosts import SIZE, URI, Background, Hosts
from rig.network import RECEIVER, _ip
from rig.runner import Case, expect

_HUGE = "<memoryBacking><hugepages/><access mode='shared'/></memoryBacking>"
_FILE = "<memoryBacking><source type='file'/><access mode='shared'/></memoryBacking>"
_CELL = "<cell id='%d' %smemory='%d' unit='MiB' memAccess='shared'/>"
_MEMFD = "<memoryBacking><source type='memfd'/></memoryBacking>"
_TWO_CELLS = _MEMFD + "<cpu><numa>" + _CELL % (0, "cpus='0' ", 40) + _CELL % (1, "", 24) + "</numa></cpu>"
_DIMM = "<memory model='dimm'><target><size unit='MiB'>128</size><node>0</node></target></memory>"
_WITH_DIMM = (_MEMFD + "<features><acpi/></features><maxMemory slots='2' unit='MiB'>512</maxMemory><cpu><numa>" + _CELL % (0, "cpus='0' ", 64) +
              "</numa></cpu>")


def _through(*options, memory=None, channels=0, persistent=False, then=None, **settings):
    """Migrates with these options; `then` looks at the hosts when the guest is there and runs."""
    def run(folder):
        with contextlib.ExitStack() as stack:
            if memory is not None:
                settings["memory"] = memory
            hosts = Hosts(folder, stack, **settings)
            if persistent:
                hosts.source.virsh("define", os.path.join(folder, "domain.xml"))
            hosts.migrate(*options, *URI)
            report = hosts.expect_came_through_migrx(channels)
            hosts.wait_lines(20)
            if then is not None:
                then(hosts, report)
            return "%d lines without a gap" % len(hosts.wait_lines(1))
    return run


def _is_persistent_here_alone(hosts, _report):
    expect("Persistent:     yes" in hosts.destination.virsh("dominfo", GUEST).stdout, "it is not persistent")
    expect(hosts.source.virsh("dominfo", GUEST, check=False).returncode != 0, "its source knows it still")


def _blocks(*names):
    def look(_hosts, report):
        there = [block["id"] for block in report["blocks"] if block.get("path")]
        expect(sorted(there) == sorted(names), "blocks in shared memory: %s", there)
    return look


def _switched(_hosts, report):
    numbers = report.get("postcopy")
    expect(numbers and numbers["discarded_pages"] > 0, "it did not end by postcopy: %r", numbers)


def _switched_by_virsh(folder):
    """The guest writes faster than the migration may send, until the operator has had enough."""
    with contextlib.ExitStack() as stack:
        hosts = Hosts(folder, stack)
        hosts.source.virsh("migrate-setmaxdowntime", GUEST, "1", check=False)
        migration = stack.enter_context(contextlib.closing(Background(
            hosts, "--postcopy", "--bandwidth", "8", "--postcopy-bandwidth", "8", *URI)))
        time.sleep(6)
        hosts.source.virsh("migrate-postcopy", GUEST)
        expect(migration.wait() == 0, "virsh migrate failed: %s", hosts.destination.receiver_log())
        _switched(hosts, hosts.expect_came_through_migrx(0, least=MIB))
        hosts.wait_lines(20)
        return "%d lines without a gap" % len(hosts.wait_lines(1))


def _huge(folder):
    """Hugepages of both QEMUs, from a mount of the rig's own."""
    path = hugetlb_folder(2 * SIZE)
    return _through(memory=_HUGE, lines=lambda daemon: ('hugetlbfs_mount = "%s"' % path,))(folder)


def _on_tmpfs(daemon):
    path = os.path.join(daemon.folder, "ram")  # the rig's folders lie on a tmpfs
    os.makedirs(path)
    return ('memory_backing_dir = "%s"' % path,)


def _paused(option):
    """It stands still when it arrives, by --suspend or since it did before, and goes on when it is told."""
    def run(folder):
        with contextlib.ExitStack() as stack:
            hosts = Hosts(folder, stack)
            if not option:
                hosts.source.virsh("suspend", GUEST)
            hosts.migrate(*option, *URI)
            expect(hosts.destination.state() == "paused" and hosts.source.state() == "", "the guest is %r, and %r at its "
                   "source", hosts.destination.state(), hosts.source.state())
            before = len(console_lines(hosts.console()))
            time.sleep(1)
            expect(len(console_lines(hosts.console())) == before, "it runs")
            hosts.destination.virsh("resume", GUEST)
            hosts.wait_lines(20)
            hosts.expect_came_through_migrx(0)
            return "%d lines without a gap" % len(hosts.wait_lines(1))
    return run


def _migrate_in_rounds(hosts, *options):
    """Held down for a while, so that pages are sent again and again; virsh's exit status."""
    with contextlib.closing(Background(hosts, "--bandwidth", "32", *options, *URI)) as migration:
        time.sleep(6)
        hosts.source.virsh("migrate-setmaxdowntime", GUEST, "2000", check=False)
        hosts.source.virsh("migrate-setspeed", GUEST, "4096", check=False)
        return migration.wait()


def _compressed(method, options):
    """With pages that have been compressed; `options`: what the hook's migrx must be told of it."""
    def run(folder):
        with contextlib.ExitStack() as stack:
            hosts = Hosts(folder, stack, options=options)
            status = _migrate_in_rounds(hosts, "--comp-methods", method)
            expect(status == 0, "virsh ended with %d: %s", status, hosts.destination.receiver_log())
            hosts.expect_came_through_migrx(0)
            hosts.wait_lines(20)
            told = hosts.destination.virsh("domjobinfo", "--completed", GUEST).stdout
            pages = re.search(r"Compressed pages: +([0-9]+)", told)
            expect(method != "xbzrle" or (pages and int(pages.group(1)) > 0), "no page was compressed: %s", told)
            return "%s pages, %d lines without a gap" % (pages.group(1) if pages else "?", len(hosts.wait_lines(1)))
    return run


def _not_told(method, says):
    """A compression that the hook's migrx was not told of: refused, and the guest runs on at its source."""
    def run(folder):
        with contextlib.ExitStack() as stack:
            hosts = Hosts(folder, stack)
            expect(_migrate_in_rounds(hosts, "--comp-methods", method) != 0, "it went through: %s",
                   hosts.destination.receiver_log())
            with open(hosts.destination.report_path, encoding="utf-8") as file:
                error = json.load(file)["error"]["message"]
            hosts.expect_stays()
            expect(says in error, "migrx does not say %r: %s", says, error)
            return error
    return run


def _terminate(hosts):
    os.kill(hosts.destination.receiver_process(), signal.SIGTERM)


def _kill_worker(hosts):
    process = hosts.destination.receiver_process()
    with open("/proc/%d/task/%d/children" % (process, process), encoding="ascii") as file:
        os.kill(int(file.read().split()[0]), signal.SIGKILL)


def _kill_qemu(hosts):
    with open(os.path.join(hosts.destination.folder, "run/qemu", GUEST + ".pid"), encoding="ascii") as file:
        os.kill(int(file.read()), signal.SIGKILL)


def _struck(strike):
    """While the guest's memory is on its way: virsh fails, and the guest runs on where it is."""
    def run(folder):
        with contextlib.ExitStack() as stack:
            hosts = Hosts(folder, stack)
            migration = stack.enter_context(contextlib.closing(Background(hosts, "--bandwidth", "8", *URI)))
            time.sleep(3)
            expect(hosts.destination.receiver_process() is not None, "migrx does not run")
            strike(hosts)
            begun = time.monotonic()
            expect(migration.wait() != 0, "it went through")
            took = time.monotonic() - begun
            return "virsh failed after %.1f s, %d lines without a gap" % (took, len(hosts.expect_stays()))
    return run


def _unit(folder):
    """Where systemd runs the host migrx is a unit of its own: a stand-in plays systemd-run and systemctl here."""
    with contextlib.ExitStack() as stack:
        hosts = Hosts(folder, stack, systemd=True)
        # One that does not start: its words are in virsh's message, and nothing is left.
        conf = os.path.join(hosts.destination.folder, "etc/migrx.conf")
        with open(conf, encoding="utf-8") as file:
            good = file.read()
        with open(conf, "w", encoding="utf-8") as file:
            file.write(good.replace("OPTIONS=", "OPTIONS=--allow nonsense "))
        done = hosts.migrate(*URI, check=False)
        expect(done.returncode != 0 and "nonsense" in done.stderr, "virsh says: %s", done.stderr)
        hosts.expect_stays()
        with open(conf, "w", encoding="utf-8") as file:
            file.write(good)
        # One that is aborted: `release end` stops the unit.
        migration = stack.enter_context(contextlib.closing(Background(hosts, "--bandwidth", "8", *URI)))
        time.sleep(3)
        process = hosts.destination.receiver_process()
        expect(process is not None, "there is no unit: %s", hosts.destination.receiver_log())
        expect(not os.path.exists(os.path.join(hosts.destination.folder, "state", GUEST + ".pid")), "it is no unit")
        hosts.source.virsh("domjobabort", GUEST)
        expect(migration.wait() != 0, "it went through")
        hosts.expect_stays()
        os.unlink(hosts.destination.report_path)
        hosts.migrate(*URI)
        hosts.expect_came_through_migrx(0)
        return "%d lines without a gap" % len(hosts.wait_lines(20))


def _hops(count):
    """There and back again and again, each time through a migrx of that host, which its hook starts."""
    def run(folder):
        back = "10.77.0.4"
        with contextlib.ExitStack() as stack:
            hosts = Hosts(folder, stack, lines=lambda daemon: ('migration_host = "%s"' % (
                RECEIVER if daemon.name == "destination" else back),))
            # The kernel's own address on the link where the destination's migrx is, for the way back.
            _ip("-n", hosts.network.receiver, "addr", "add", "10.77.0.3/24", "dev", "mig0")
            hosts.source.install_hook(hosts.network, port="net_af_packet0,iface=near0", address=back)
            with open(os.path.join(hosts.source.folder, "pid"), encoding="ascii") as file:
                os.kill(int(file.read()), signal.SIGHUP)  # it looks for hooks anew
            time.sleep(1)
            here, there = hosts.source, hosts.destination
            for hop in range(count):
                options = ("--parallel", "--parallel-connections", "2") if hop % 3 == 2 else ()
                here.virsh("migrate", "--live", *options, GUEST, there.uri, timeout=200)
                expect(there.state() == "running" and here.state() == "", "hop %d: not exactly one guest runs", hop)
                deadline = time.monotonic() + 20
                while there.receiver_process() is not None:
                    expect(time.monotonic() < deadline, "hop %d: migrx does not end: %s", hop, there.receiver_log())
                    time.sleep(0.05)
                expect("complete: " in there.receiver_log(), "hop %d: %s", hop, there.receiver_log())
                hosts.wait_lines(10)
                here, there = there, here
            return "%d hops, %d lines without a gap" % (count, len(expect_unbroken([hosts.console()])))
    return run


def cases():
    """None of them is quick: what they add to libvirt.py's is seldom touched."""
    for case in (
            Case("libvirt-p2p", _through("--p2p", "--persistent", "--undefinesource", "--auto-converge", persistent=True,
                                         then=_is_persistent_here_alone)),
            Case("libvirt-xbzrle", _compressed("xbzrle", "")),
            Case("libvirt-mt", _compressed("mt", "--capability compress")),
            Case("libvirt-mt-not-told", _not_told("mt", "the capability compress is off here")),
            Case("libvirt-suspend", _paused(("--suspend",))),
            Case("libvirt-paused", _paused(())),
            Case("libvirt-hugepages", _huge),
            Case("libvirt-tmpfs", _through(memory=_FILE, lines=_on_tmpfs)),
            Case("libvirt-two-cells", _through(memory=_TWO_CELLS, then=_blocks("ram-node0", "ram-node1"))),
            Case("libvirt-dimm", _through(memory=_WITH_DIMM, devices=_DIMM, more=128 * MIB,
                                          then=_blocks("memdimm0", "ram-node0"))),
            Case("libvirt-migrx-terminated", _struck(_terminate)),
            Case("libvirt-migrx-killed", _struck(_kill_worker)),
            Case("libvirt-destination-killed", _struck(_kill_qemu)),
            Case("libvirt-postcopy", _through("--postcopy", "--postcopy-after-precopy", "--bandwidth", "8",
                                              "--postcopy-bandwidth", "8", then=_switched)),
            Case("libvirt-postcopy-later", _switched_by_virsh),
            Case("libvirt-unit", _unit),
            Case("libvirt-ten-hops", _hops(10))):
        case.quick, case.seconds = False, 400
        yield case
