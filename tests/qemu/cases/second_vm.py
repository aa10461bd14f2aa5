"""Another VM of the same host that is migrated to the port of a migration, by mistake: without -uuid, with any number of channels."""

import contextlib
import dataclasses
import os
import random
import time

from rig.compare import expect_same_files
from rig.guest import MIB
from rig.machine import Backend, Machine
from rig.network import Network
from rig.receiver import Receiver
from rig.runner import Case, expect
from rig.transfer import FAST, SLOW, Transfer, need

ROUNDS = 3


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
        other.wait_cleaned_up()
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
                    machine.migrate(receiver.uri)
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
                    machine.wait_cleaned_up()
                    expect(machine.running(), "round %d: a guest does not run on", number)
                for path in files.values():
                    if os.path.exists(path):
                        os.unlink(path)
        return "%d rounds, %d completed" % (ROUNDS, completed)
    return body


def _bare_source(folder, stack, network, name, channels, seed):
    """A machine without a guest that is there in a moment, its RAM full of bytes of its own."""
    path = os.path.join(folder, name + ".mem")
    with open(path, "wb") as file:
        file.write(random.Random(seed).randbytes(8 * MIB))
        file.truncate(32 * MIB)
    machine = stack.enter_context(Machine(folder, "10", "pc", [Backend("mem", 32 * MIB, path=path)], None,
                                          network.source, name=name, vga=0))
    machine.set_capabilities(return_path=True, multifd=bool(channels))
    machine.set_parameters(max_bandwidth=FAST, downtime_limit=2000, **({"multifd_channels": channels} if channels else {}))
    return machine


def _pair(folder, number, network):
    """Two machines without -uuid begin within 10 ms; returns how far apart, and the name of which completed."""
    with contextlib.ExitStack() as stack:
        channels = number % 4
        both = [_bare_source(folder, stack, network, name, channels, "%s%d" % (name, number)) for name in ("a", "b")]
        path = os.path.join(folder, "received")
        receiver = stack.enter_context(Receiver(folder, network, {"mem": "%s,size=%d" % (path, 32 * MIB)}, channels))
        expect(receiver.wait_ready(120), "migrx never got ready: %s", receiver.log()[-2000:])
        begun = []
        for machine in both if number % 8 < 4 else reversed(both):
            machine.migrate(receiver.uri)
            begun.append(time.monotonic())
        for machine in both:
            machine.wait_migration(("completed", "failed"), timeout=120)
        completed = [machine for machine in both if machine.migration()["status"] == "completed"]
        status = receiver.wait(120)
        expect(len(completed) <= 1 and (status == 0) == bool(completed), "%d completed, migrx ended with %d: %s",
               len(completed), status, receiver.log()[-1500:])
        for machine in both:
            if machine in completed:
                expect_same_files("mem", path, machine.backends[0].path)
            else:
                machine.wait_cleaned_up()
                expect(machine.running(), "the guest of %s does not run on", machine.name)
        return begun[1] - begun[0], completed[0].name if completed else None


def often(pairs):
    """So many pairs that begin within 10 ms, one after another, each of machines that were just started. A busy machine
    holds some apart for longer: those are looked at, and do not count."""
    def body(folder, stack):
        network = stack.enter_context(Network(1500))
        close, completed = 0, []
        while close < pairs and len(completed) < 3 * pairs:
            seconds, name = _pair(folder, len(completed), network)
            close += seconds < 0.01
            completed.append(name)
        expect(close >= pairs, "only %d of %d pairs began within 10 ms", close, len(completed))
        return "%d pairs, %d within 10 ms, %d times one completed" % (
            len(completed), close, len(completed) - completed.count(None))
    return body


def _case(name, body, quick=True, timeout=240):
    def run(folder):
        with contextlib.ExitStack() as stack:
            return body(folder, stack)
    return Case(name, run, quick, timeout)


def cases():
    for version in ("7.2", "10", "newest"):
        newest = version == "10"
        yield _case("second-vm-under-way-%s" % version, under_way(version, 4, 4), newest)
        yield _case("second-vm-under-way-more-channels-%s" % version, under_way(version, 2, 5), False)
        yield _case("second-vm-under-way-precopy-%s" % version, under_way(version, 0, 0), not newest)
        yield _case("second-vm-at-once-%s" % version, at_once(version, 2, 2), newest)
        yield _case("second-vm-at-once-unlike-%s" % version, at_once(version, 3, 2), not newest)
    yield _case("second-vm-4-pairs-10", often(4), True, 120)
    yield _case("second-vm-200-pairs-10", often(200), False, 3600)
