"""Build the Hatchet engine from its Go module, once for each version."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from scythe.errors import StackError
from scythe.stack.files import tail
from scythe.stack.locks import locked
from scythe.stack.paths import cache_root
from scythe.stack.programs import Go, go

_MODULE = Path(__file__).with_name("engine_module")
_HATCHET = "github.com/hatchet-dev/hatchet"
_BUILD_LIMIT = 3600.0  # seconds; about 150 on two cores
_REPORT_EVERY = 15.0  # seconds
_PROGRAM = "scythe-engine"


def engine_version() -> str:
    """Return the version of Hatchet that the stack runs, for example `v0.104.7`."""
    return _line_of_module(rf"^\s*(?:require )?{re.escape(_HATCHET)} (v\S+)")


def engine_program(report: Callable[[str], None]) -> Path:
    """Return the engine's program, built now if this version has not been built yet.

    Args:
        report: Called with lines that say how far the build is.

    Raises:
        StackError: It cannot be built.
    """
    program = _place()
    if program.is_file():
        return program

    def wait() -> None:
        report("waiting for another process that builds the Hatchet engine")

    with locked(program.parent / "build.lock", timeout=_BUILD_LIMIT, waiting=wait):
        if not program.is_file():
            _build(program, report)
    return program


def _place() -> Path:
    sources = hashlib.sha256()
    for file in [*sorted(_MODULE.glob("*.go")), _MODULE / "go.mod", _MODULE / "go.sum"]:
        sources.update(file.read_bytes())
    system = f"{sys.platform}-{platform.machine().lower()}"
    name = f"{engine_version()}-{system}-{sources.hexdigest()[:10]}"
    return cache_root() / "engine" / name / _PROGRAM


def _build(program: Path, report: Callable[[str], None]) -> None:
    toolchain = go(_line_of_module(r"^go (\S+)"))
    report(
        f"building the Hatchet engine {engine_version()} with Go {toolchain.version}: "
        "once, a few minutes"
    )
    began = time.monotonic()
    log = program.parent / "build.log"
    for left in program.parent.glob("build-*"):  # by a build that was killed
        shutil.rmtree(left, ignore_errors=True)
    # In the same folder, so that the program can be moved into place in one step.
    with tempfile.TemporaryDirectory(dir=program.parent, prefix="build-") as folder:
        made = Path(folder) / _PROGRAM
        _compile(toolchain, made, log, report)
        _check(made)
        made.replace(program)
    if toolchain.from_wheel:
        shutil.rmtree(_go_cache(), ignore_errors=True)
    report(f"built the Hatchet engine in {time.monotonic() - began:.0f} s")


def _compile(toolchain: Go, target: Path, log: Path, report: Callable[[str], None]) -> None:
    command = [
        str(toolchain.program),
        "build",
        "-C",
        str(_MODULE),
        "-v",
        "-trimpath",
        "-buildvcs=false",  # the sources may lie in a repository that is not ours
        f"-ldflags=-s -w -X main.Version={engine_version()}",
        "-o",
        str(target),
        ".",
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=_go_environment(toolchain),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            code = _follow(process, log, report)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if code:
        raise StackError(
            "The Hatchet engine could not be built. If modules could not be downloaded, check "
            f"GOPROXY and try again.\nThe end of {log}:\n{tail(log)}"
        )


def _follow(process: subprocess.Popen[bytes], log: Path, report: Callable[[str], None]) -> int:
    began = time.monotonic()
    while True:
        try:
            return process.wait(timeout=_REPORT_EVERY)
        except subprocess.TimeoutExpired:
            passed = time.monotonic() - began
            if passed > _BUILD_LIMIT:
                raise StackError(
                    f"The build of the Hatchet engine was not done after {passed:.0f} s. "
                    f"Its log is {log}."
                ) from None
            lines = log.read_bytes().splitlines()
            loaded = sum(line.startswith(b"go: downloading") for line in lines)
            report(
                f"building the Hatchet engine: {passed:.0f} s, {loaded} modules downloaded, "
                f"{len(lines) - loaded} packages compiled"
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
    }
    for name in ("GOOS", "GOARCH", "GOROOT", "GOEXPERIMENT"):
        env.pop(name, None)
    if toolchain.from_wheel:
        # Somebody without Go has no use for its caches, which are large.
        for name, folder in _go_caches().items():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            env[name] = str(folder)
        env["GOFLAGS"] += " -modcacherw"
    return env


def _go_caches() -> dict[str, Path]:
    root = _go_cache()
    return {"GOCACHE": root / "build", "GOMODCACHE": root / "modules"}


def _go_cache() -> Path:
    return cache_root() / "go"


def _check(program: Path) -> None:
    try:
        answer = subprocess.run(
            [program, "version"], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.SubprocessError) as err:
        raise StackError(f"The engine that was built does not run: {err}.") from err
    if answer.stdout.strip() != engine_version():
        raise StackError(
            f"The engine that was built calls itself {answer.stdout.strip()!r}, not "
            f"{engine_version()}: {answer.stderr.strip()}"
        )


def _line_of_module(pattern: str) -> str:
    found = re.search(pattern, (_MODULE / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise StackError(f"{_MODULE / 'go.mod'} is damaged. Install Scythe again.")
    return found[1]
