"""Two real libvirt daemons on one machine, each with its own configuration, sockets, mounts and network namespace."""

import contextlib
import glob
import os
import shutil
import signal
import subprocess
import time

from .guest import BusyGuest
from .machine import die_with_parent
from .receiver import migrx_program
from .network import RECEIVER, _ip
from .runner import Skip, expect

_ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", ".."))
HOOK = os.path.join(_ROOT, "scripts", "libvirt", "hook")
# Beside migrx' link: the way of migrations that do not go through migrx, and of nothing else.
KERNEL = {"source": "10.79.0.1", "destination": "10.79.0.2"}
GUEST = "busy"

_DOMAIN = """<domain type='qemu'>
  <name>%(name)s</name><uuid>5ad0f0c5-1b0f-4c1a-8a6b-3f0e8a7c%(number)04x</uuid>
  <memory unit='B'>%(total)d</memory>
  %(memory)s
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='%(machine)s'>hvm</type><kernel>%(kernel)s</kernel></os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <serial type='file'><source path='%(console)s' append='on'/><target port='0'/></serial>
    <memballoon model='none'/>%(devices)s
  </devices>
  <seclabel type='none'/>
</domain>
"""
# Of each daemon its own, under one name: its /var/lib/libvirt is.
DISK = "/var/lib/libvirt/disk.img"
_DISK = """
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/><source file='%s'/><target dev='hda' bus='ide'/>
    </disk>"""
MEMFD = "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>"
PRIVATE = ""


def need_libvirt():
    for program in ("libvirtd", "virsh"):
        if shutil.which(program) is None:
            raise Skip("%s is not installed: scripts/install" % program)


class Daemon:
    """One libvirtd. `name` is its host's name; `lines` go into its qemu.conf."""

    def __init__(self, folder, name, namespace, lines=()):
        self.name, self.folder = name, os.path.join(folder, name)
        for part in ("etc/hooks/qemu.d", "lib", "log", "cache", "run", "sockets", "state"):
            os.makedirs(os.path.join(self.folder, part))
        self.socket = os.path.join(self.folder, "sockets", "libvirt-sock")
        self.uri = "qemu+unix:///system?socket=" + self.socket
        number = {"source": 1, "destination": 2}[name]
        self._write("etc/libvirtd.conf", 'unix_sock_dir = "%s"\nauth_unix_rw = "none"\nauth_unix_ro = "none"\n'
                    'host_uuid = "%08d-1111-4222-8333-444444444444"\n' % (os.path.dirname(self.socket), number))
        self._lines = tuple(lines)
        self.configure()
        self._systemd = ""  # the folder of the stand-ins
        self._namespace, self._process = namespace, None

    def _write(self, name, text, mode=0o644):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, mode)

    def configure(self, lines=()):
        """Further lines of its qemu.conf; before it is started."""
        self._lines += tuple(lines)
        self._write("etc/qemu.conf", "\n".join((
            'user = "root"', 'group = "root"', 'security_driver = "none"', "namespaces = []", "cgroup_controllers = []",
            'stdio_handler = "file"', "remember_owner = 0", *self._lines)) + "\n")

    def install_hook(self, network, options="", port=None, address=RECEIVER):
        """What scripts/libvirt/install does, for this daemon alone. `port`: DPDK's, where it is not the network's."""
        shutil.copy(HOOK, os.path.join(self.folder, "etc/hooks/qemu.d/migrx"))
        os.chmod(os.path.join(self.folder, "etc/hooks/qemu.d/migrx"), 0o755)
        self.report_path = os.path.join(self.folder, "migrx.json")
        self._write("etc/migrx.conf", "PORT=%s\nADDRESS=%s/24\nMIGRX=%s\nOPTIONS=--mtu %d --report %s %s\n" % (
            port or network.port, address, migrx_program(), network.mtu, self.report_path, options))

    def stand_in_for_systemd(self):
        """To its hooks this host looks as if systemd ran it; before it is started."""
        self._systemd = os.path.join(self.folder, "bin")
        shutil.copytree(os.path.join(_ROOT, "tests", "qemu", "standin"), self._systemd)

    def _name_user(self, file, line):
        """The daemon's own /etc/passwd or group, with the user that libvirtd asks for: the host has it only when
        libvirt-daemon-system was installed, which brings services that nobody needs here."""
        with open(os.path.join("/etc", file), encoding="utf-8") as host:
            text = host.read()
        self._write(file, text if "\nlibvirt-qemu:" in text else text.rstrip("\n") + "\n" + line + "\n")
        return "mount --bind '%s' /etc/%s" % (os.path.join(self.folder, file), file)

    def start(self):
        binds = [self._name_user("passwd", "libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin"),
                 self._name_user("group", "libvirt-qemu:x:64055:")]
        for part, place in (("etc", "/etc/libvirt"), ("lib", "/var/lib/libvirt"), ("log", "/var/log/libvirt"),
                            ("cache", "/var/cache/libvirt"), ("run", "/run/libvirt"), ("state", "/run/migrx-libvirt")):
            os.makedirs(place, exist_ok=True)
            binds.append("mount --bind '%s' %s" % (os.path.join(self.folder, part), place))
        if self._systemd:
            os.makedirs("/run/systemd", exist_ok=True)
            binds += ["mount -t tmpfs none /run/systemd", "mkdir /run/systemd/system", "export PATH='%s':$PATH" % self._systemd]
        script = " && ".join([*binds, "hostname migrx-" + self.name, "exec libvirtd -f /etc/libvirt/libvirtd.conf -p '%s'" %
                              os.path.join(self.folder, "pid")])
        with open(os.path.join(self.folder, "libvirtd.log"), "wb") as log:
            self._process = subprocess.Popen(
                ["nsenter", "--net=/run/netns/" + self._namespace, "unshare", "--mount", "--uts", "sh", "-c", script],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=die_with_parent)
        deadline = time.monotonic() + 60
        while self.virsh("version", check=False).returncode != 0:
            expect(self._process.poll() is None and time.monotonic() < deadline, "libvirtd did not start: %s", self.log())
            time.sleep(0.2)
        return self

    @property
    def disk(self):
        """The path of DISK as this process sees it."""
        return os.path.join(self.folder, "lib", os.path.basename(DISK))

    def log(self):
        with open(os.path.join(self.folder, "libvirtd.log"), encoding="utf-8", errors="replace") as file:
            return file.read()[-2000:]

    def virsh(self, *words, check=True, timeout=120):
        done = subprocess.run(["virsh", "-c", self.uri, *words], capture_output=True, text=True, timeout=timeout,
                              check=False)
        if check:
            expect(done.returncode == 0, "virsh %s: %s", words[0], done.stderr.strip())
        return done

    def state(self, guest=GUEST):
        """running, paused, shut off; empty: it is not known here."""
        return self.virsh("domstate", guest, check=False).stdout.strip()

    def receiver_log(self, guest=GUEST):
        path = os.path.join(self.folder, "state", guest + ".log")
        if not os.path.exists(path):
            return ""
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def receiver_process(self, guest=GUEST):
        """Of the migrx that the hook started; None: there is none."""
        try:
            path = os.path.join(self.folder, "state", guest + ".pid")
            if self._systemd:
                path = os.path.join(self._systemd, "migrx-libvirt-%s.service" % guest)
            with open(path, encoding="ascii") as file:
                process = int(file.read())
            with open("/proc/%d/cmdline" % process, "rb") as file:
                return process if b"\0receive\0" in file.read() else None
        except (OSError, ValueError):
            return None

    def close(self):
        """Ends the daemon, its guests and a migrx that is left."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        # Now that nobody starts or forgets any.
        processes = [self.receiver_process()]
        for path in glob.glob(os.path.join(self.folder, "run/qemu/*.pid")):
            if os.path.basename(path) != "driver.pid":
                with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as file:
                    processes.append(int(file.read()))
        for process in filter(None, processes):
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()


def join_kernels(network):
    """A second link between the two daemons' namespaces, for what does not go through migrx."""
    _ip("-n", network.source, "link", "add", "back0", "type", "veth", "peer", "name", "back0", "netns", network.receiver)
    for namespace, side in ((network.source, "source"), (network.receiver, "destination")):
        _ip("-n", namespace, "addr", "add", KERNEL[side] + "/24", "dev", "back0")
        _ip("-n", namespace, "link", "set", "back0", "up")


def domain(folder, size, memory=MEMFD, machine="pc-i440fx-7.2", name=GUEST, number=0x1d2e, disk_sectors=0,
           devices="", more=0):
    """A domain with the busy guest; returns the paths of its XML and of its console. `folder` is its own.

    `disk_sectors`: it has the disk DISK, and writes to its first so many sectors, one with each line. `devices`: further
    XML of devices, which bring `more` bytes of memory.
    """
    mib = 1 << 20
    guest = BusyGuest("mixed", fill_end=size - 2 * mib, dirty_start=8 * mib, dirty_end=24 * mib, pages_per_tick=16,
                      disk_sectors=disk_sectors)
    path, console = os.path.join(folder, "domain.xml"), os.path.join(folder, "guest.console")
    with open(path, "w", encoding="utf-8") as file:
        file.write(_DOMAIN % {"name": name, "number": number, "total": size + more, "memory": memory, "machine": machine,
                              "kernel": guest.build(folder), "console": console,
                              "devices": devices + (_DISK % DISK if disk_sectors else "")})
    return path, console
