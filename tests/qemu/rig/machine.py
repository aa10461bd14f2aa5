"""QEMU processes: which there are on this machine, how to start one, how to ask it to migrate."""

import ctypes
import dataclasses
import functools
import os
import re
import signal
import subprocess
import time

from .guest import MIB, console_lines
from .qmp import Qmp, QmpError

_CACHE = os.environ.get("MIGRX_CACHE", "/var/cache/migrx")
# The system's own, and what scripts/install unpacks beside it.
_FOLDERS = ("/usr/bin", *(os.path.join(_CACHE, name) for name in ("qemu7", "qemu10", "qemu-newest")))
# Which numbers a name stands for: from the first on, below the second.
_RANGES = {"7.2": ((7, 2), (7, 3)), "10": ((10,), (11,)), "newest": ((11,), (10 ** 6,))}
_libc = ctypes.CDLL(None, use_errno=True)
GUEST_BYTES = 32 * MIB  # of RAM, where a case does not say
# Nested hosts announce MSR 0x10a (IA32_ARCH_CAPABILITIES) and may refuse to set it, at which QEMU aborts.
KVM_CPU = "host,arch-capabilities=off"


@functools.lru_cache(maxsize=None)
def _programs(target):
    """{path: (10, 0, 2)} of the QEMUs on this machine for `target`."""
    found = {}
    for folder in _FOLDERS:
        path = os.path.join(folder, "qemu-system-" + target)
        try:
            text = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            continue
        match = re.search(r" version (\d+)\.(\d+)(?:\.(\d+))?", text)
        if match:
            found[path] = tuple(int(word or 0) for word in match.groups())
    return found


@functools.lru_cache(maxsize=None)
def qemu_program(version, target="x86_64"):
    """Path of the QEMU that `version` stands for, or None when this machine has none: "7.2", "10" (any 10.x), or
    "newest", which is whatever is newer than those. Of several it is the latest."""
    least, beyond = _RANGES[version]
    known = [(number, path) for path, number in _programs(target).items() if least <= number < beyond]
    return max(known)[1] if known else None


def qemu_number(version, target="x86_64"):
    """(11, 1, 3) of that QEMU, which is there."""
    return _programs(target)[qemu_program(version, target)]


@functools.lru_cache(maxsize=None)
def kvm_refusal(version):
    """Why that QEMU cannot start a machine with KVM here; empty: it can."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "there is no /dev/kvm"
    command = [qemu_program(version), "-nodefaults", "-display", "none", "-accel", "kvm", "-cpu", KVM_CPU, "-S", "-qmp",
               "stdio"]
    probe = subprocess.run(command, input='{"execute":"qmp_capabilities"}{"execute":"quit"}', capture_output=True,
                           text=True, check=False, timeout=60)
    return "" if probe.returncode == 0 else (probe.stderr.strip().splitlines() or ["it ended"])[-1]


def die_with_parent():
    """For Popen's preexec_fn: the child is killed when the rig ends, however it ends."""
    _libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def in_namespace(namespace, command):
    """`command` as run inside a network namespace; None is the present one."""
    return command if namespace is None else ["nsenter", "--net=/run/netns/" + namespace, *command]


def cpu_seconds(process):
    """CPU time of a process, all its threads, so far."""
    with open("/proc/%d/stat" % process, encoding="ascii") as file:
        words = file.read().rsplit(")", 1)[1].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


@dataclasses.dataclass
class Backend:
    """One memory backend of a machine. kind: file (at `path`, shared), private (the same, not shared), memfd
    (shared) or ram (private)."""

    id: str
    size: int
    kind: str = "file"
    path: str = ""
    prealloc: bool = False

    def option(self):
        if self.kind == "file":
            return "memory-backend-file,id=%s,size=%d,share=on,mem-path=%s%s" % (
                self.id, self.size, self.path, ",prealloc=on" if self.prealloc else "")
        if self.kind == "private":
            return "memory-backend-file,id=%s,size=%d,share=off,mem-path=%s" % (self.id, self.size, self.path)
        if self.kind == "memfd":
            return "memory-backend-memfd,id=%s,size=%d,share=on" % (self.id, self.size)
        return "memory-backend-ram,id=%s,size=%d" % (self.id, self.size)


class Machine:
    """One QEMU process with its QMP connection, console file and memory files, all inside `folder`.

    `vga`: MiB of video memory, which has no file; 0: no video device.
    """

    def __init__(self, folder, version="10", machine="pc", backends=None, guest=None, namespace=None,
                 accel=None, incoming=None, vga=1, extra=(), name="source", cpus=1, prefix=(),
                 target="x86_64"):
        self.folder, self.version, self.name, self.namespace = folder, version, name, namespace
        self._migrate_mark = 0  # of the events, those before the migration begun last
        self._twin = {"machine": machine, "accel": accel, "vga": vga, "extra": extra, "cpus": cpus,
                      "target": target}
        self.target, self.vga = target, vga
        self.backends = backends or [Backend("mem", GUEST_BYTES)]
        for backend in self.backends:
            if backend.kind == "file" and not backend.path:
                backend.path = os.path.join(folder, name + "." + backend.id)
        self.console_path = os.path.join(folder, name + ".console")
        self.log_path = os.path.join(folder, name + ".log")
        self._qmp_path = os.path.join(folder, name + ".qmp")
        # TCG by default: it is there on every machine, and some hosts' KVM runs nothing but 64-bit Linux well.
        self.accel = accel or os.environ.get("MIGRX_ACCEL", "tcg")
        size = sum(backend.size for backend in self.backends)
        command = [qemu_program(version, target), "-nodefaults", "-display", "none", "-no-user-config", "-name", name,
                   "-accel", self.accel, "-smp", str(cpus), "-m", "%dk" % (size // 1024),
                   "-qmp", "unix:%s,server=on,wait=off" % self._qmp_path,
                   "-chardev", "file,id=console,path=%s,append=on" % self.console_path,
                   "-serial", "chardev:console"]
        if self.accel == "kvm":
            command += ["-cpu", KVM_CPU]
        for backend in self.backends:
            command += ["-object", backend.option()]
        if len(self.backends) == 1:
            machine += ",memory-backend=" + self.backends[0].id
        else:
            for node, backend in enumerate(self.backends):
                command += ["-numa", "node,nodeid=%d,memdev=%s" % (node, backend.id)]
        command += ["-machine", machine]
        if vga:
            command += ["-vga", "std", "-global", "VGA.vgamem_mb=%d" % vga]
        if guest is not None:
            command += guest.arguments(folder)
        if incoming:
            command += ["-incoming", incoming]
        command += list(extra)
        self._log = open(self.log_path, "wb")
        self.process = subprocess.Popen(in_namespace(namespace, [*prefix, *command]), stdin=subprocess.DEVNULL,
                                        stdout=self._log, stderr=self._log, preexec_fn=die_with_parent)
        try:
            self.qmp = Qmp(self._qmp_path)
            self.qmp.command("migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}])
        except BaseException as error:
            self.close()
            if not isinstance(error, Exception):  # Ctrl-C
                raise
            raise RuntimeError("%s did not start: %s" % (name, self.log())) from error

    def twin(self, name, backends, version=None, **changes):
        """Another machine of the same make in the same namespace, which waits for `migrate-incoming`."""
        settings = {**self._twin, "namespace": self.namespace, **changes}
        return Machine(self.folder, version or self.version, backends=backends, incoming="defer", name=name,
                       **settings)

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def console(self):
        with open(self.console_path, "rb") as file:
            return file.read()

    def counts(self):
        """What the busy guest printed: (count, pass, bad) of each line."""
        return console_lines(self.console())

    def goes_on(self, timeout=20.0):
        """Whether the busy guest prints more, however slow the machine is just now. A QEMU whose migration failed
        says so before it lets the guest run again."""
        deadline = time.monotonic() + timeout
        before = len(self.counts())
        while time.monotonic() < deadline:
            if len(self.counts()) > before:
                return True
            time.sleep(0.05)
        return False

    def wait_console(self, text, timeout=60.0):
        deadline = time.monotonic() + timeout
        while text not in self.console():
            if self.process.poll() is not None:
                raise RuntimeError("%s ended: %s" % (self.name, self.log()))
            if time.monotonic() > deadline:
                raise TimeoutError("%s never printed %r; it printed %r" % (self.name, text, self.console()[-400:]))
            time.sleep(0.02)

    def set_capabilities(self, **states):
        """set_capabilities(multifd=True, return_path=True); underscores become hyphens."""
        self.qmp.command("migrate-set-capabilities", capabilities=[
            {"capability": name.replace("_", "-"), "state": state} for name, state in states.items()])

    def set_parameters(self, **parameters):
        self.qmp.command("migrate-set-parameters", **parameters)

    def migrate(self, uri):
        """Begins a migration, after QEMU has cleaned up after the one before."""
        self.wait_cleaned_up()
        self._migrate_mark = len(self.qmp.events)
        return self.qmp.command("migrate", uri=uri)

    def wait_cleaned_up(self, timeout=10.0):
        """Waits until QEMU could begin another migration.

        QEMU says "failed" a moment before that. A `migrate` in this moment is refused with "duplicate yank instance",
        and leaves the state "setup" behind, so that QEMU refuses every later one (migrate_prepare comes before
        yank_register_instance in qmp_migrate). And where a multifd thread left with a SYNC still to send, the moment
        never comes (loader/session/channel.h).
        """
        deadline = time.monotonic() + timeout
        while any(instance["type"] == "migration" for instance in self.qmp.command("query-yank")):
            if time.monotonic() > deadline:
                raise RuntimeError("%s can never migrate again: %s" % (self.name, self.migration()))
            time.sleep(0.02)

    def migration(self):
        return self.qmp.command("query-migrate")

    def running(self):
        return self.qmp.command("query-status")["running"]

    def wait_migration(self, states=("completed",), timeout=120.0, ended=("completed", "failed", "cancelled")):
        """Waits until the migration's status is one of `states`; an unwanted end is an error."""
        deadline = time.monotonic() + timeout
        while True:
            info = self.migration()
            status = info.get("status")
            if status in states:
                return info
            if status in ended or time.monotonic() > deadline:
                raise RuntimeError("migration of %s is %s, expected %s: %s %s" % (
                    self.name, status, "/".join(states), info.get("error-desc", ""), self.log()))
            time.sleep(0.02)

    def wait_migration_event(self, timeout=120.0):
        """Waits for the end of the migration begun last, without asking: questions would add to its downtime."""
        def ends(event):
            return event["event"] == "MIGRATION" and event["data"]["status"] in ("completed", "failed", "cancelled")
        return self.qmp.wait_event(ends, self._migrate_mark, timeout)["data"]["status"]

    def event_times(self, name):
        """When QEMU says that the events called `name` were, in seconds of the host's clock."""
        self.running()  # Its answer comes behind all events so far.
        return [event["timestamp"]["seconds"] + event["timestamp"]["microseconds"] * 1e-6
                for event in self.qmp.events if event["event"] == name]

    def capture_small_blocks(self, path):
        """Writes to `path` a stream that holds every block but the shared ones, from the stopped machine.

        A machine that has migrated must be continued before it may migrate again; it is stopped at once, so
        guest RAM may differ from then on, but ROMs and video memory, which these guests do not touch, do not.
        """
        if self.qmp.command("query-status")["status"] == "postmigrate":
            self.qmp.command("cont")
        self.qmp.command("stop")
        off = {entry["capability"]: False for entry in self.qmp.command("query-migrate-capabilities")
               if entry["state"] and entry["capability"] != "events"}
        self.set_capabilities(**off)
        self.set_capabilities(x_ignore_shared=True)
        self.set_parameters(max_bandwidth=1 << 40)
        self.set_parameters(tls_creds="")  # a pipe shakes no hands
        self.migrate("exec:cat > " + path)
        self.wait_migration()

    def alive(self):
        return self.process.poll() is None

    def close(self):
        """Ends the process and removes its memory files; safe to call twice."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._log.close()
        if hasattr(self, "qmp"):
            self.qmp.close()
        for backend in self.backends:
            if backend.kind == "file" and os.path.exists(backend.path):
                os.unlink(backend.path)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()


__all__ = ["Backend", "Machine", "QmpError", "cpu_seconds", "die_with_parent", "in_namespace", "kvm_refusal",
           "qemu_number", "qemu_program"]
