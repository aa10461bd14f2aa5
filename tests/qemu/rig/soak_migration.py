"""One migration of the soak: its processes, what is done to them, what must hold afterwards."""

import contextlib
import os
import signal
import subprocess
import threading
import time

from .compare import expect_same_files, expect_same_small_blocks
from .guest import MIB, BusyGuest, console_lines
from .machine import Backend, Machine, die_with_parent, in_namespace
from .network import SECOND_INTERFACE, SECOND_NEAR, Network
from .qmp import QmpError
from .receiver import Receiver
from .runner import expect
from .transfer import FAST, SLOW

SECONDS = 120  # a migration that takes longer has failed
ENDED = ("completed", "failed", "cancelled")


class Migration:
    """One migration: processes, what is done to them, what must hold afterwards."""

    def __init__(self, plan, folder, hugetlb, stack):
        self.plan, self.folder, self.over = plan, folder, threading.Event()
        stack.callback(self.over.set)
        self.replaced = []  # (path, inode of the file that took the other's place)
        self.network = stack.enter_context(Network(plan.mtu, plan.congestion, plan.impair))
        backends = plan.backends()
        for backend in backends:
            backend.path = os.path.join(folder, "source." + backend.id)
        self.files = {backend.id: os.path.join(folder, "received." + backend.id) for backend in backends}
        if plan.hugepages and hugetlb:
            self.files = {backend.id: os.path.join(hugetlb, "%d.%s" % (plan.seed, backend.id)) for backend in backends}
            stack.callback(remove_files, self.files.values())  # when all that map them have ended
        # The receiver first: it gets ready while the guest fills its memory.
        handoff = "unix:" + os.path.join(folder, "handoff.sock") if plan.has_destination() else None
        self.destination = self._start_destination(stack, backends, handoff) if handoff else None
        if plan.old_bytes:
            for backend in backends:
                with open(self.files[backend.id], "wb") as file:
                    file.write(b"\xa5" * backend.size)
        if plan.end == "file replaced before":
            replace(self.files[backends[0].id])
        options = {backend.id: self.prefix_free(backend) for backend in backends}
        self.receiver = stack.enter_context(Receiver(
            folder, self.network, options, plan.channels, plan.compression, plan.receiver_capabilities,
            plan.receiver_extra, handoff=handoff, two_ports=plan.two_ports))
        self.source = self._start_source(stack, folder, backends)
        self.other = self._start_other(stack, backends) if plan.end == "second VM" else None
        expect(self.receiver.wait_ready(), "migrx never got ready: %s", self.receiver.log()[-2000:])

    def prefix_free(self, backend):
        return "%s,size=%d" % (self.files[backend.id], backend.size)

    def _start_destination(self, stack, backends, address):
        plan = self.plan
        mine = [Backend(backend.id, backend.size, path=self.files[backend.id]) for backend in backends]
        destination = stack.enter_context(Machine(self.folder, plan.destination, plan.machine, mine,
                                                  namespace=self.network.source, incoming="defer", vga=0,
                                                  name="destination"))
        destination.qmp.command("migrate-incoming", uri=address)
        return destination

    def _start_other(self, stack, backends):
        """A second VM of the same host, made alike."""
        folder = os.path.join(self.folder, "other")
        os.makedirs(folder)
        mine = [Backend(backend.id, backend.size, path=os.path.join(folder, "source." + backend.id))
                for backend in backends]
        return self._start_source(stack, folder, mine)

    def _start_source(self, stack, folder, backends):
        plan = self.plan
        guest = BusyGuest(plan.fill, fill_end=sum(plan.sizes) - 2 * MIB, dirty_start=8 * MIB, dirty_end=plan.dirty_end,
                          pages_per_tick=plan.pages_per_tick, ticks_per_line=20)
        source = stack.enter_context(Machine(folder, plan.version, plan.machine, backends, guest,
                                             self.network.source, vga=int(plan.small_blocks)))
        source.set_capabilities(return_path=plan.return_path, multifd=plan.channels > 0, **plan.capabilities)
        parameters = dict(plan.parameters, max_bandwidth=SLOW if plan.dirty_s else FAST,
                          downtime_limit=1 if plan.dirty_s else 2000)
        if plan.channels:
            parameters.update(multifd_channels=plan.channels, multifd_compression=plan.compression)
        source.set_parameters(**parameters)
        source.wait_console(b"filled")
        return source

    def run(self):
        plan = self.plan
        self.source.migrate(self.receiver.uri)
        if plan.end in ("complete", "handoff"):
            if plan.dirty_s:
                time.sleep(plan.dirty_s)
                self.source.set_parameters(max_bandwidth=FAST, downtime_limit=2000)
            return self.must_succeed()
        # The guest may or may not have moved when the mishap comes.
        if plan.seed % 2:
            self.source.set_parameters(max_bandwidth=FAST, downtime_limit=2000)
        time.sleep(plan.mishap_s)
        if plan.end == "second VM":
            return self.with_a_second_vm()
        harm = {"outage": self.cut, "second receiver": self.receive_again, "file replaced": self.replace_files}
        if plan.end in harm:
            harm[plan.end]()
            self.source.set_parameters(max_bandwidth=FAST, downtime_limit=2000)
            how = self.must_succeed(plan.outage_s)
            return self.expect_again_harmless() if plan.end == "second receiver" else how
        if plan.end == "file replaced before":
            return self.must_fail("the destination has another file")
        self.harm()
        return self.one_guest_at_most()

    def cut(self):
        self.network.set_away(True)
        time.sleep(self.plan.outage_s)
        expect(self.receiver.alive() or self.receiver.process.returncode == 0, "migrx gave up: %s",
               self.receiver.log()[-2000:])
        self.network.set_away(False)

    def receive_again(self):
        """The command once more, as an operator's shell has it in its history, with another port."""
        changed = {"--port": "net_tap7,iface=mig7", "--address": "10.83.0.2/24", "--ready-fd": None, "--gateway": None,
                   "--report": os.path.join(self.folder, "again.json")}
        words, command = iter(self.receiver.command), []
        for word in words:
            if word not in changed:
                command.append(word)
                continue
            next(words)
            value = changed[word]
            if value and word not in command:
                command += [word, value]
        self.again_log = os.path.join(self.folder, "again.log")
        with open(self.again_log, "wb") as log:
            self.again = subprocess.Popen(in_namespace(self.network.receiver, command), stdin=subprocess.DEVNULL,
                                          stdout=log, stderr=log, preexec_fn=die_with_parent)

    def expect_again_harmless(self):
        """It is refused while the first one is at work. One that claims the files after that waits for a source and
        writes nothing, since the destination has not shown that it waits for a guest: it runs one."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.again.wait(6)
        self.again.terminate()
        status = self.again.wait(20)
        with open(self.again_log, encoding="utf-8", errors="replace") as log:
            said = log.read()
        expect(status == 2 and "process" in said or status == 1 and "ended by a signal" in said,
               "a second receiver ended with %d: %s", status, said[-2000:])
        before = len(self.destination.counts())
        deadline = time.monotonic() + 20
        while len(self.destination.counts()) < before + 5:
            expect(time.monotonic() < deadline, "the guest stands still after a second receiver: %s", said[-2000:])
            time.sleep(0.05)
        expect(all(bad == 0 for _count, _pass, bad in self.destination.counts()), "the guest found wrong memory")
        return "handed on"

    def replace_files(self):
        self.replaced = [replace(path) for path in self.files.values()]

    def must_fail(self, why):
        """The source keeps its guest, and the files that took the others' place are as they were."""
        status = self.source_status()
        expect(status == "failed", "%s, and the source's migration is %s", why, status)
        ended = self.receiver.wait(40)
        expect(ended == 1, "%s, and migrx ended with %d: %s", why, ended, self.receiver.log()[-2000:])
        expect(self.source.goes_on(), "the source's guest does not go on")
        expect(not self.destination.counts(), "the guest runs at the destination, too")
        return "refused"

    def with_a_second_vm(self):
        """It migrates to the same port: one of the two moves or none, and the other runs on."""
        both = (self.source, self.other)
        with contextlib.suppress(QmpError):  # the first one has moved, and nobody listens any more
            self.other.migrate(self.receiver.uri)
        self.source.set_parameters(max_bandwidth=FAST, downtime_limit=2000)
        states = []
        for machine in both:
            deadline = time.monotonic() + 60
            while machine.migration().get("status") not in ENDED:
                expect(time.monotonic() < deadline, "a source's migration is %s: %s", machine.migration(),
                       self.receiver.log()[-2000:])
                if not self.receiver.alive() and machine.migration().get("status") in (None, "none", "setup"):
                    machine.qmp.command("migrate_cancel")  # nobody is there to refuse it
                    break
                time.sleep(0.05)
            states.append(machine.migration().get("status"))
        expect(states.count("completed") <= 1, "both guests have moved")
        if "completed" not in states:
            self.let_nobody_in()
        ended = self.receiver.wait(40)
        expect((ended == 0) == ("completed" in states), "migrx ended with %d, the sources %s: %s", ended, states,
               self.receiver.log()[-2000:])
        for machine, state in zip(both, states):
            if state == "completed":
                for backend in machine.backends:
                    expect_same_files(backend.id, self.files[backend.id], backend.path)
            else:
                expect(machine.goes_on(), "a guest does not go on (%s)", state)
                expect(all(bad == 0 for _count, _pass, bad in machine.counts()), "a guest found wrong memory")
        return {(1, 0): "first moved", (0, 1): "second moved"}.get(tuple(state == "completed" for state in states),
                                                                  "neither moved")

    def must_succeed(self, patience=0):
        """`patience`: seconds more, for a source whose retransmissions have backed off."""
        if self.source.wait_migration(("active", "device", "completed"), timeout=10 + patience)["status"] == "active":
            self.let_converge(patience)
        self.source.wait_migration(timeout=SECONDS // 2 + patience)
        status = self.receiver.wait(30)
        expect(status == 0, "migrx ended with %d: %s", status, self.receiver.log()[-2000:])
        report = self.receiver.report()
        expect(report["outcome"] == "complete", "outcome %s: %s", report["outcome"], report.get("error"))
        if self.destination:
            return self.runs_on()
        if self.plan.end != "file replaced":
            self.same_memory()
        if self.plan.small_blocks:
            expect_same_small_blocks(self.source, self.receiver, self.folder)
        return "complete"

    def let_converge(self, patience=0):
        """A source that compresses more slowly than its guest writes is granted a longer pause, as an operator would."""
        deadline = time.monotonic() + 15 + patience
        while self.source.migration().get("status") == "active":
            if time.monotonic() > deadline:
                self.source.set_parameters(downtime_limit=60_000)
                return
            time.sleep(0.02)

    def runs_on(self):
        """The guest goes on at the destination, where the source's console ends; it checks its own memory."""
        deadline = time.monotonic() + 30
        while len(self.destination.counts()) < 5 and time.monotonic() < deadline:
            expect(self.destination.alive(), "the destination ended: %s", self.destination.log())
            time.sleep(0.02)
        expect(self.destination.running() and not self.source.running(), "not exactly one guest runs")
        lines = console_lines(self.source.console() + self.destination.console())
        counts = [count for count, _pass, _bad in lines]
        expect(counts == list(range(counts[0], counts[0] + len(counts))), "the console has a gap: %r", counts)
        expect(all(bad == 0 for _count, _pass, bad in lines), "the guest found wrong memory: %r", lines[-3:])
        expect(len(self.destination.counts()) >= 5, "the guest does not go on at the destination")
        for path, inode in self.replaced:
            expect(os.stat(path).st_ino == inode and os.stat(path).st_blocks == 0, "the file that took the other's place "
                   "was touched: %s", path)
        return "handed on"

    def same_memory(self):
        for backend in self.source.backends:
            expect_same_files(backend.id, self.files[backend.id], backend.path)

    def harm(self):
        end = self.plan.end
        if end == "cancel":
            self.source.qmp.wait_longer(60)  # a QEMU 11 in its setup answers when migrx has given it up
            self.source.qmp.command("migrate_cancel")
        elif end == "source killed":
            self.source.process.kill()
            self.source.process.wait()
        elif end == "receiver SIGTERM":
            self.receiver.signal()
        elif end == "destination killed":
            self.destination.process.kill()
            self.destination.process.wait()
        elif end == "worker killed":
            for child in self.receiver.children():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            # A source that is sending its last bytes answers nobody before its connections are reset.
            threading.Thread(target=self._keep_attached, daemon=True).start()

    def _keep_attached(self):
        """The interfaces of a killed worker come back with whoever takes its place, and are set up as a host's network
        manager would: that process outlives migrx's, and stays until the source's host has said that its connections
        are gone."""
        deadline = time.monotonic() + SECONDS
        while not self.over.wait(0.1) and time.monotonic() < deadline:
            with contextlib.suppress(Exception):
                self.network.attach(lambda: not self.over.is_set(), 0.5)
            if self.plan.two_ports:
                with contextlib.suppress(Exception):
                    self.network.attach(lambda: not self.over.is_set(), 0.5, SECOND_INTERFACE, SECOND_NEAR)

    def source_status(self):
        """How the source's migration ended."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            status = self.source.migration().get("status")
            if status in ENDED:
                return status
            if status == "setup" and not self.receiver.alive() and time.monotonic() > deadline - 25:
                # The receiver ended before it saw the SYN, and its port with it: nobody is there to refuse it, and
                # the source's kernel goes on trying for two minutes. Its operator need not wait for that.
                self.source.qmp.command("migrate_cancel")
            if (status == "active" and self.plan.version == "7.2" and self.plan.channels and not self.receiver.alive()
                    and time.monotonic() > deadline - 10):
                # A QEMU 7.2 whose multifd channel was refused while it connected hangs with its guest running
                # (docs/limits.md), whoever refused it: its operator cancels it.
                self.source.qmp.command("migrate_cancel")
            time.sleep(0.02)
        expect(False, "the source's migration is %s half a minute after the mishap", self.source.migration())
        return ""

    def let_nobody_in(self):
        """Ends a receiver whose source ended before it said a word: it waits for another one, for ever."""
        deadline = time.monotonic() + 10
        while self.receiver.alive():
            if time.monotonic() > deadline:
                if self.receiver.log().rstrip().endswith("listening  ch 0/%d" % (self.plan.channels + 1)):
                    self.receiver.signal()
                return
            time.sleep(0.1)

    def one_guest_at_most(self):
        """After a mishap: either the guest has moved, whole, or it goes on at the source."""
        alive = self.plan.end != "source killed"
        status = self.source_status() if alive else "killed"
        if status in ("killed", "cancelled"):
            self.let_nobody_in()
        # Main of a source killed before its channels came was closed in good order: they have their time.
        ended = self.receiver.wait(100 if status == "killed" else 40)
        complete = ended == 0
        if complete:
            expect(self.receiver.report()["outcome"] == "complete", "exit status 0, but the report says otherwise")
        if alive and complete:
            expect(status == "completed", "migrx says complete, the source %s", status)
        if status == "completed":
            # A worker killed behind its last word, or a destination killed when it had the guest: it has moved.
            expect(complete or self.plan.end == "worker killed", "the source says completed, migrx ended with %d: %s",
                   ended, self.receiver.log()[-1000:])
            if complete and not self.destination:
                self.same_memory()
            return "moved before the mishap"
        if alive:
            expect(self.source.goes_on(), "the source's guest does not go on (%s)", status)
            expect(all(bad == 0 for _count, _pass, bad in self.source.counts()), "the guest found wrong memory")
        if not complete and self.plan.end != "worker killed":
            error = self.receiver.report()["error"]
            expect(error and error["message"], "migrx failed without a reason")
        if self.destination and self.destination.alive():
            expect(not self.destination.counts(), "the guest runs at the destination, too")
        return status


def replace(path):
    """Somebody removes the file and makes another one of that name; returns the path and the new one's inode."""
    size = os.path.getsize(path)
    os.unlink(path)
    with open(path, "wb") as file:
        file.truncate(size)
        return path, os.fstat(file.fileno()).st_ino


def remove_files(paths):
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
