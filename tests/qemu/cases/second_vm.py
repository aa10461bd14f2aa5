"""Another VM of the same host that is migrated to the port of a migration, by mistake: without -uuid, with any number of channels."""

import contextlib
import dataclasses
import os
import time

from rig.compare import expect_same_files
from rig.guest import MIB
from rig.network import Network
from rig.qmp import QmpError
from rig.runner import Case, expect
from rig.transfer import FAST, SLOW, Transfer, need

ROUNDS = 1  # a source that failed while it connected may take minutes until it can begin again


def _two_sources(transfer, other_channels, folder, stack):
    need(transfer.version)
    network = stack.enter_context(Network(transfer.mtu))
    source = transfer.start_source(folder, stack, network)
    second_folder = os.path.join(folder, "second")
    os.makedirs(second_folder)
    other = dataclasses.replace(transfer, channels=other_channels).start_source(second_folder, stack, network)
    return network, source, other


def under_way(version, channels, other_channels):
    """The second VM's connections are refused, its guest runs on, and the first one's migration completes."""
    def body(folder, stack):
        transfer = Transfer(version=version, dirty_s=1.0, channels=channels, parameters={"max_bandwidth": SLOW // 2})
        network, source, other = _two_sources(transfer, other_channels, folder, stack)
        options, files = transfer.ram_files(folder, source)
        receiver = transfer.start_receiver(folder, stack, network, options)
        source.migrate(receiver.uri)
        deadline = time.monotonic() + 30
        while source.migration().get("ram", {}).get("transferred", 0) < MIB:
            expect(time.monotonic() < deadline, "the migration never got going: %s", source.migration())
            time.sleep(0.05)
        other.migrate(receiver.uri)
        other.wait_migration(("failed",), timeout=30)
        expect(other.running(), "the second VM's guest does not run on")
        expect(source.migration()["status"] == "active", "the first migration ended: %s", source.migration())
        source.set_parameters(max_bandwidth=FAST, downtime_limit=2000)
        source.wait_migration(timeout=60)
        expect(receiver.wait(60) == 0, "migrx failed: %s", receiver.log()[-2000:])
        for backend in source.backends:
            expect_same_files(backend.id, files[backend.id], backend.path)
        report = receiver.report()
        expect(any("refused" in warning for warning in report["warnings"]), "no warning: %s", report["warnings"])
        return "; ".join(warning for warning in report["warnings"] if "refused" in warning)
    return body


def _migrate(machine, uri):
    """Again, too: QEMU 10 cleans up after a failed migration a moment later ("duplicate yank instance")."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return machine.migrate(uri)
        except QmpError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def at_once(version, channels, other_channels):
    """Both begin within milliseconds: one completes or none, never both, and whoever does not runs on."""
    def body(folder, stack):
        transfer = Transfer(version=version, channels=channels)
        network, source, other = _two_sources(transfer, other_channels, folder, stack)
        completed = 0
        for number in range(ROUNDS):
            with contextlib.ExitStack() as round_stack:
                round_folder = os.path.join(folder, "round%d" % number)
                os.makedirs(round_folder)
                options, files = transfer.ram_files(round_folder, source)
                receiver = transfer.start_receiver(round_folder, round_stack, network, options)
                both = (source, other) if number % 2 == 0 else (other, source)
                for machine in both:
                    _migrate(machine, receiver.uri)
                for machine in both:
                    machine.wait_migration(("completed", "failed"), timeout=60)
                states = [machine.migration()["status"] for machine in both]
                expect(states.count("completed") <= 1, "round %d: both completed", number)
                status = receiver.wait(60)
                expect((status == 0) == ("completed" in states), "round %d: migrx ended with %d, the sources %s: %s",
                       number, status, states, receiver.log()[-1500:])
                for machine, state in zip(both, states):
                    if state == "completed":
                        completed += 1
                        for backend in machine.backends:
                            expect_same_files(backend.id, files[backend.id], backend.path)
                        machine.qmp.command("cont")
                    expect(machine.running(), "round %d: a guest does not run on", number)
                for path in files.values():
                    if os.path.exists(path):
                        os.unlink(path)
        return "%d rounds, %d completed" % (ROUNDS, completed)
    return body


def _case(name, body, quick=True):
    def run(folder):
        with contextlib.ExitStack() as stack:
            return body(folder, stack)
    return Case(name, run, quick, 240)


def cases():
    for version in ("7.2", "10", "newest"):
        newest = version == "10"
        yield _case("second-vm-under-way-%s" % version, under_way(version, 4, 4), newest)
        yield _case("second-vm-under-way-more-channels-%s" % version, under_way(version, 2, 5), False)
        yield _case("second-vm-under-way-precopy-%s" % version, under_way(version, 0, 0), not newest)
        yield _case("second-vm-at-once-%s" % version, at_once(version, 2, 2), newest)
        yield _case("second-vm-at-once-unlike-%s" % version, at_once(version, 3, 2), not newest)
