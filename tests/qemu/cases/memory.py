"""Memory that the host, a file system or a control group does not have, or gives slowly: refused with the figures
before the first page, and a signal is heard while it is taken."""

import contextlib
import json
import os
import signal
import stat
import subprocess
import time

from rig.guest import MIB
from rig.hugepages import free_bytes, reserve
from rig.machine import die_with_parent
from rig.network import Network
from rig.receiver import STREAM_HEAD, Receiver, migrx_program, stream_file
from rig.runner import Case, Skip, expect

PACKET_PAGES = 216 * MIB  # for the packets of one receiver with 17 connections, and not of two


def _command(folder, ram, extra=()):
    return [migrx_program(), "receive", "--port", "net_null0", "--address", "192.0.2.2/24", "--no-handoff",
            "--runtime-dir", os.path.join(folder, "run"), "--ram", "mem=" + ram, *extra]


@contextlib.contextmanager
def _tmpfs(folder, size):
    mount = os.path.join(folder, "ram")
    os.mkdir(mount)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=%d" % size, "none", mount], check=True)
    try:
        yield mount
    finally:
        subprocess.run(["umount", "-l", mount], check=False)


@contextlib.contextmanager
def _memory_group(limit):
    """A folder of a control group with a limit, below this process's own."""
    for root, name in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        group = os.path.join(root, "migrx-test-%d" % os.getpid())
        with contextlib.suppress(OSError):
            os.mkdir(group)
        if not os.path.exists(os.path.join(group, name)):
            with contextlib.suppress(OSError):
                os.rmdir(group)
            continue
        with open(os.path.join(group, name), "w", encoding="ascii") as file:
            file.write(str(limit))
        try:
            yield group
        finally:
            for _ in range(50):
                with contextlib.suppress(OSError):
                    os.rmdir(group)
                    break
                time.sleep(0.1)
        return
    raise Skip("no memory control group can be made here")


def _run(command, group=None):
    if group:
        command = ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', group, *command]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)


def _expect_refused(done, path, *words):
    expect(done.returncode == 2, "status %d: %s", done.returncode, done.stderr)
    for word in words:
        expect(word in done.stderr, "no %r in: %s", word, done.stderr)
    expect(not os.path.exists(path), "the file stayed")


def _file_system_full(folder):
    with _tmpfs(folder, 64 * MIB) as mount:
        path = os.path.join(mount, "vm0")
        _expect_refused(_run(_command(folder, path + ",size=65M")), path, "64 MiB free, 65 MiB are needed")


def _group_full(folder):
    with _tmpfs(folder, 1024 * MIB) as mount, _memory_group(96 * MIB) as group:
        path = os.path.join(mount, "vm0")
        _expect_refused(_run(_command(folder, path + ",size=256M"), group), path, "are left below " + group,
                        "--no-memory-check")


def _group_full_unchecked(folder):
    """The kernel's worst hits the child that takes the pages, and migrx says so."""
    with _tmpfs(folder, 1024 * MIB) as mount, _memory_group(96 * MIB) as group:
        path = os.path.join(mount, "vm0")
        _expect_refused(_run(_command(folder, path + ",size=256M", ("--no-memory-check",)), group), path,
                        "was killed", "out of memory")


def _another_group_pays(folder):
    with _tmpfs(folder, 1024 * MIB) as mount, _memory_group(96 * MIB) as group:
        path = os.path.join(mount, "vm0")
        _expect_refused(_run(_command(folder, path + ",size=256M", ("--memory-cgroup", group))), path,
                        "are left below " + group)
        _expect_refused(_run(_command(folder, path + ",size=256M", ("--memory-cgroup", "/tmp"))), path,
                        "not a control group")


def _signal_while_taking(folder):
    """Half of a gigabyte of old bytes is cleared meanwhile."""
    size = 512 * MIB
    with _tmpfs(folder, 600 * MIB) as mount:
        path = os.path.join(mount, "vm0")
        with open(path, "wb") as file:
            for _ in range(size // MIB):
                file.write(b"x" * MIB)
        process = subprocess.Popen(_command(folder, path), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, text=True, preexec_fn=die_with_parent)
        # Until its first page is cleared.
        deadline = time.monotonic() + 30
        with open(path, "rb") as file:
            while os.pread(file.fileno(), 1, 0) == b"x":
                expect(time.monotonic() < deadline and process.poll() is None, "nothing was cleared")
                time.sleep(0.001)
            process.terminate()
            begin = time.monotonic()
            status = process.wait(30)
            took = time.monotonic() - begin
            rest = os.pread(file.fileno(), 1, size - 1)
        words = process.stderr.read()
        expect(status == 2 and "ended by a signal" in words, "status %d: %s", status, words)
        expect(os.path.exists(path), "a file that is not migrx's was removed")
        if rest != b"x":
            raise Skip("it was done before the signal")
        return "heard after %.0f ms" % (took * 1000)


def _mode_and_owner(folder):
    """The file is as it was asked for while migrx waits; unlike the umask would have it."""
    with _tmpfs(folder, 64 * MIB) as mount:
        path = os.path.join(mount, "vm0")
        command = _command(folder, path + ",size=32M,mode=0660,owner=64055:36")
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, text=True, umask=0o077, preexec_fn=die_with_parent)
        try:
            deadline = time.monotonic() + 30
            while True:
                if os.path.exists(path):
                    status = os.stat(path)
                    if (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o660, 64055, 36):
                        break
                expect(time.monotonic() < deadline and process.poll() is None, "mode and owner were not set: %s",
                       process.poll())
                time.sleep(0.01)
        finally:
            process.terminate()
            process.wait(30)
        expect(not os.path.exists(path), "the file stayed")


def _load_killed(folder):
    """A load that waits for its pipe, in the middle of the stream, is killed; its file goes with it."""
    with _tmpfs(folder, 64 * MIB) as mount:
        path = os.path.join(mount, "vm0")
        process = subprocess.Popen([migrx_program(), "load", "-", "--no-handoff", "--ram", "mem=" + path + ",size=32M"],
                                   stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                   preexec_fn=die_with_parent)
        process.stdin.write(STREAM_HEAD)
        process.stdin.flush()
        deadline = time.monotonic() + 30
        while not os.path.exists(path) or os.stat(path).st_blocks * 512 < 32 * MIB:
            expect(time.monotonic() < deadline and process.poll() is None, "no memory was taken")
            time.sleep(0.01)
        with open("/proc/%d/task/%d/children" % (process.pid, process.pid), encoding="ascii") as file:
            workers = [int(word) for word in file.read().split()]
        expect(len(workers) == 1, "workers: %r", workers)
        os.kill(workers[0], signal.SIGKILL)
        expect(process.wait(30) == 1 and b"was killed" in process.stderr.read(), "status %d", process.returncode)
        expect(not os.path.exists(path), "the file stayed")


def _descriptor_not_passed_on(folder):
    """--ready-fd names a descriptor that sudo, or a script, did not pass on: no file that migrx opens later is written to,
    as guest RAM would be. Nor when the standard descriptors are closed, to which messages go."""
    with _tmpfs(folder, 64 * MIB) as mount:
        path = os.path.join(mount, "vm0")
        for number in range(3, 13):
            done = _run(_command(folder, path + ",size=8M", ("--ready-fd", str(number))))
            _expect_refused(done, path, "no such descriptor was passed on")
        process = subprocess.Popen(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *_command(folder, path + ",size=8M", ("--no-probe",))],
                                   preexec_fn=die_with_parent)
        try:
            deadline = time.monotonic() + 30
            while _blocks(path) < 8 * MIB:
                expect(time.monotonic() < deadline and process.poll() is None, "no memory was taken")
                time.sleep(0.01)
            time.sleep(1.0)  # the ready line has been said
            with open(path, "rb") as file:
                expect(file.read() == bytes(8 * MIB), "a message was written into the guest's memory")
        finally:
            process.terminate()
            process.wait(30)


def _saved_guest(folder):
    """A file that holds a saved guest is neither taken for RAM, nor cleared before it is loaded, nor replaced by a report."""
    with _tmpfs(folder, 64 * MIB) as mount:
        path = os.path.join(mount, "vm0.save")
        saved = b"QEVM" + bytes(range(256)) * (4 * MIB // 256) + bytes(MIB - 4)

        def expect_whole(command, *words, status=2):
            done = _run(command)
            expect(done.returncode == status, "status %d: %s", done.returncode, done.stderr)
            for word in words:
                expect(word in done.stderr, "no %r in: %s", word, done.stderr)
            with open(path, "rb") as file:
                expect(file.read() == saved, "the saved guest is damaged")

        with open(path, "wb") as file:
            file.write(saved)
        load = [migrx_program(), "load", path, "--no-handoff", "--ram"]
        other = "mem=" + os.path.join(mount, "vm0") + ",size=8M"
        expect_whole(_command(folder, path), "holds a migration stream")
        expect_whole([*load, "mem=" + path], "is the file that is to be loaded")
        expect_whole([*load, other, "--report", path], "holds something else than a report")
        expect_whole([*load, other, "--capability", "xbzlre"], "is unknown")
        os.link(path, os.path.join(mount, "vm0"))
        expect_whole([migrx_program(), "load", stream_file(folder), "--no-handoff", "--ram", other.split(",", 1)[0]],
                     "holds a migration stream")


def _wrong_input(folder):
    """What cannot be loaded costs the file nothing that it would have been loaded into."""
    with _tmpfs(folder, 64 * MIB) as mount:
        path = os.path.join(mount, "vm0")
        before = bytes(range(256)) * (8 * MIB // 256)
        with open(path, "wb") as file:
            file.write(before)
        empty = os.path.join(folder, "empty")
        with open(empty, "wb"):
            pass
        for wrong in (os.path.join(folder, "none"), folder, empty, "/etc/passwd", "/dev/zero"):
            done = _run([migrx_program(), "load", wrong, "--no-handoff", "--ram", "mem=" + path])
            expect(done.returncode == 2 and wrong in done.stderr, "%s: status %d: %s", wrong, done.returncode,
                   done.stderr)
            with open(path, "rb") as file:
                expect(file.read() == before, "load of %s changed the file", wrong)


def _huge_mapped(folder):
    """How much of a block the kernel holds by huge pages is in the report."""
    with open("/sys/kernel/mm/transparent_hugepage/enabled", encoding="ascii") as file:
        if "[never]" in file.read():
            raise Skip("this host has no transparent hugepages")
    size = 64 * MIB
    for huge, least in (("advise", size // 2), ("never", 0)):
        with _tmpfs(folder, 128 * MIB) as mount:
            subprocess.run(["mount", "-o", "remount,huge=" + huge, mount], check=True)
            report = os.path.join(folder, huge + ".json")
            _run([migrx_program(), "load", stream_file(folder), "--no-handoff", "--report", report, "--ram",
                  "mem=%s,size=%d" % (os.path.join(mount, "vm0"), size)])
            with open(report, encoding="ascii") as file:
                mapped = json.load(file)["blocks"][0]["huge_mapped_bytes"]
            expect(least <= mapped <= (size if least else 0), "huge=%s: %d bytes are mapped huge", huge, mapped)
        os.rmdir(mount)


def _packets_at_once(folder):
    """Two that start together, and hugepages for the packets of one: the other one does without, as it would later."""
    reserve(PACKET_PAGES)
    for number in range(3):
        with contextlib.ExitStack() as stack:
            receivers = [stack.enter_context(Receiver(
                folder, stack.enter_context(Network(9000)), {"mem": "%s/mem%s,size=16M" % (folder, name)}, 16, name=name))
                for name in ("one", "other")]
            for receiver in receivers:
                expect(receiver.wait_ready(), "round %d: not ready: %s", number, receiver.log())
            used = PACKET_PAGES - free_bytes()
            expect(0 < used < PACKET_PAGES, "%d MiB of hugepages are in use", used // MIB)


def _blocks(path):
    with contextlib.suppress(OSError):
        return os.stat(path).st_blocks * 512
    return 0


def cases():
    for name, run in (("file-system-full", _file_system_full), ("group-full", _group_full),
                      ("group-full-unchecked", _group_full_unchecked), ("another-group-pays", _another_group_pays),
                      ("signal-while-taking", _signal_while_taking), ("mode-and-owner", _mode_and_owner),
                      ("load-killed", _load_killed),
                      ("descriptor-not-passed-on", _descriptor_not_passed_on), ("saved-guest", _saved_guest),
                      ("wrong-input", _wrong_input), ("huge-mapped", _huge_mapped),
                      ("packets-at-once", _packets_at_once)):
        yield Case("memory-" + name, run, True, 90)
