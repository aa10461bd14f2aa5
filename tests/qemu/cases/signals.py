"""How soon a signal is heard, wherever migrx happens to be. No QEMU takes part."""

import contextlib
import itertools
import os
import select
import signal
import socket
import subprocess
import time

from rig.guest import MIB
from rig.machine import die_with_parent
from rig.receiver import migrx_program
from rig.runner import Case, Failure, expect

HEARD_S = 0.2
HEARD = (b"signal heard:", b"ended by a signal", b"SIGTERM:")  # no path has these, as this case's own has "signal"
TRIES = 3  # the best counts: the machine has others to serve
LATE_TRIES = 30  # a phase that was over before the signal came is tried again


def _receive(folder, *extra):
    return [migrx_program(), "receive", "--port", "net_null0", "--address", "192.0.2.2/24", "--no-probe",
            "--runtime-dir", os.path.join(folder, "run"), *extra]


def _probing(folder):
    """With the question whether another host has its address, on a port that floods it with frames (net_null)."""
    return ["unshare", "--net", *(word for word in _receive(folder, "--no-handoff", "--ram", _memory(folder))
                                  if word != "--no-probe")]


def _memory(folder):
    return "mem=%s,size=8M" % os.path.join(folder, "vm0")


def _start(command, **keywords):
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=die_with_parent, **keywords)


@contextlib.contextmanager
def _waits_for_qmp(folder):
    """A QEMU that takes the connection to its QMP socket and says nothing."""
    path = os.path.join(folder, "qmp")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        process = _start(_receive(folder, "--qmp", "unix:" + path, "--handoff", "unix:" + path + ".handoff", "--ram",
                                  _memory(folder)))
        connection, _ = listener.accept()
        with connection:
            yield process
    os.unlink(path)


@contextlib.contextmanager
def _waits_for_a_pipe(folder):
    process = _start([migrx_program(), "load", "-", "--no-handoff", "--ram", _memory(folder)], stdin=subprocess.PIPE)
    time.sleep(0.5)
    yield process


@contextlib.contextmanager
def _sets_ports_up(folder):
    process = _start(_receive(folder, "--no-handoff", "--ram", _memory(folder)))
    while b"prepared" not in process.stdout.readline():
        expect(process.poll() is None, "migrx took no memory")
    time.sleep(0.02)
    yield process
    expect(not os.path.exists(os.path.join(folder, "vm0")), "the file stayed")


@contextlib.contextmanager
def _listens(folder):
    process = _start(_receive(folder, "--no-handoff", "--ram", _memory(folder)))
    while b"ready:" not in process.stdout.readline():
        expect(process.poll() is None, "migrx never got ready")
    yield process


def _says(process, word, seconds):
    """Whether it says so in that time. Nothing is read ahead: what comes then is its reader's."""
    said, deadline = b"", time.monotonic() + seconds
    while word not in said and time.monotonic() < deadline and process.poll() is None:
        if select.select([process.stdout], [], [], 0.01)[0]:
            said += os.read(process.stdout.fileno(), 65536)
    return word in said


@contextlib.contextmanager
def _asks_about_its_address(folder):
    """It asks for a third of a second, after DPDK's start, which takes as long or longer."""
    wait_s = 0.6
    while True:
        process = _start(_probing(folder))
        expect(_says(process, b"prepared", 10), "migrx took no memory")
        if not _says(process, b"ready:", wait_s):
            break
        process.terminate()
        process.stdout.read()
        process.wait()
        wait_s *= 0.8  # too late
        expect(wait_s > 0.1, "ready at once")
    yield process


@contextlib.contextmanager
def _listens_in_a_flood(folder):
    process = _start(_probing(folder))
    expect(_says(process, b"ready:", 10), "never ready in a flood")
    yield process


@contextlib.contextmanager
def _populates(folder):
    """Two GiB, of which the first pages are there."""
    mount = os.path.join(folder, "ram")
    os.mkdir(mount)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2G", "none", mount], check=True)
    path = os.path.join(mount, "vm0")
    try:
        process = _start(_receive(folder, "--no-handoff", "--ram", "mem=%s,size=2G" % path))
        while not os.path.exists(path) or os.stat(path).st_blocks * 512 < 64 * MIB:
            if process.poll() is not None:
                raise Failure("migrx ended: %s" % process.stdout.read().decode(errors="replace"))
            time.sleep(0.001)
        yield process
        expect(not os.path.exists(path), "the file stayed")
    finally:
        subprocess.run(["umount", "-l", mount], check=False)
        os.rmdir(mount)


def _heard_after(phase, folder, status):
    """Seconds; None when migrx was ready before it heard the signal that is meant for a phase before that."""
    with phase(folder) as process:
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        text = b""
        for line in process.stdout:  # until it says so, or ends
            text += line
            if any(words in line for words in HEARD):
                break
        took = time.monotonic() - begun
        text += process.stdout.read()
        if b"ready:" in text and process.wait(30) != status:
            return None
        expect(process.wait(30) == status, "exit status %d: %s", process.returncode, text.decode(errors="replace"))
        return took


def _heard(folder):
    told = []
    for name, phase, status in (("QMP", _waits_for_qmp, 2), ("a pipe", _waits_for_a_pipe, 2),
                                ("memory", _populates, 2), ("its ports", _sets_ports_up, 2),
                                ("an answer about its address", _asks_about_its_address, 2), ("its source", _listens, 1),
                                ("its source in a flood", _listens_in_a_flood, 1)):
        tries = (took for took in (_heard_after(phase, folder, status) for _ in range(LATE_TRIES)) if took is not None)
        best = min(itertools.islice(tries, TRIES), default=None)
        expect(best is not None, "no signal came while migrx waits for %s", name)
        expect(best <= HEARD_S, "while it waits for %s a signal was heard after %.3f s", name, best)
        told.append("%s %.0f ms" % (name, best * 1e3))
    return ", ".join(told)


def cases():
    """The cases of this file."""
    yield Case("signals-heard", _heard, True, 120)
