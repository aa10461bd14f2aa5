"""A build folder of meson's: set up once, with ccache where it is installed, then built target by target."""

import contextlib
import json
import os
import shutil
import subprocess


def set_up(path, source, options, compiler=("gcc", "g++")):
    """Configures the folder unless it is, with these options; raises CalledProcessError when that fails. CXX of the
    environment wins in a new folder."""
    told = os.path.join(path, "migrx-options.json")
    environment, again = dict(os.environ), []
    if os.path.exists(os.path.join(path, "build.ninja")):
        with contextlib.suppress(OSError, ValueError), open(told, encoding="utf-8") as file:
            if json.load(file) != list(options):
                again = ["--reconfigure"]
        if not again:
            return
    elif "CXX" not in environment:
        ccache = "ccache " if shutil.which("ccache") else ""
        environment.update(CC=ccache + compiler[0], CXX=ccache + compiler[1])
    subprocess.run(["meson", "setup", *again, path, source, *options], env=environment, check=True,
                   stdout=subprocess.DEVNULL)
    with open(told, "w", encoding="utf-8") as file:
        json.dump(list(options), file)


def _introspect(path, what):
    return json.loads(subprocess.run(["meson", "introspect", path, what], capture_output=True, check=True,
                                     text=True).stdout)


def tests(path):
    """{name: program} of the folder's tests."""
    return {test["name"]: test["cmd"][0] for test in _introspect(path, "--tests")}


def executables(path):
    """Paths of all that can be built and run in the folder."""
    return [name for target in _introspect(path, "--targets") if target["type"] == "executable"
            for name in target["filename"]]


def make(path, programs=(), **keywords):
    """Builds these programs of the folder, or all of it; returns the CompletedProcess."""
    # Another clone's objects will do: paths are relative but for the folder in the debug information.
    return subprocess.run(["ninja", "--quiet", "-C", path, *(os.path.relpath(program, path) for program in programs)],
                          env=dict(os.environ, CCACHE_NOHASHDIR="1"), check=False, **keywords)
