"""The guest runs on: a destination QEMU on the files that migrx fills, and what is true when it has taken over."""

import dataclasses
import os

SOCKET = "handoff.sock"


def start_destination(source, paths, stack, name="destination", version=None, change=lambda backend: backend,
                      prepare=lambda destination: None, **settings):
    """A QEMU made like `source` that waits for its device state on a UNIX socket; its RAM is in the files `paths`.

    `paths`: backend id -> file; `change` makes a wrong backend of a right one; `prepare(destination)`: before it
    waits. Returns the machine and what --handoff wants.
    """
    backends = [change(dataclasses.replace(backend, kind="file", path=paths[backend.id]))
                for backend in source.backends]
    destination = stack.enter_context(source.twin(name, backends, version, **settings))
    prepare(destination)
    address = "unix:" + os.path.join(source.folder, name + "." + SOCKET)
    destination.qmp.command("migrate-incoming", uri=address)
    return destination, address


def downtime_s(source, destination):
    """Seconds in which the guest ran nowhere: from the source's event STOP to the destination's RESUME."""
    return destination.event_times("RESUME")[0] - source.event_times("STOP")[-1]
