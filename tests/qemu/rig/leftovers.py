"""What a process of the rig takes down at its end, and the folder that all processes of one run share."""

import atexit
import contextlib
import fcntl
import os
import tempfile

_duties = []  # (process, function, arguments): a forked child leaves its parent's alone
_run = {"folder": None}


def at_end(function, *arguments):
    """`function` is called at the end of this process, of the last given first."""
    _duties.append((os.getpid(), function, arguments))


@atexit.register
def take_down():
    """A forked child that leaves with os._exit() has to call it itself."""
    while _duties:
        process, function, arguments = _duties.pop()
        if process == os.getpid():
            with contextlib.suppress(OSError):
                function(*arguments)


def set_run_folder(folder):
    """Of this process and those that it forks; whoever calls this removes the folder."""
    _run["folder"] = folder


def made_once(name, make, remove):
    """The path of a folder that `make(path)` has filled: once for all processes of a run, or for this one alone."""
    if _run["folder"] is None:
        path = tempfile.mkdtemp(prefix="migrx-%s-" % name)
        at_end(remove, path)
        make(path)
        return path
    path = os.path.join(_run["folder"], name)
    with open(path + ".lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.isdir(path):
            os.makedirs(path + ".new", exist_ok=True)
            make(path + ".new")
            os.rename(path + ".new", path)
    return path
