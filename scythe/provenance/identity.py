"""The code of an experiment: fingerprint, version and commit."""

from __future__ import annotations

import hashlib
import inspect
import logging
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scythe.provenance.functions import function_digests
from scythe.provenance.project import Module, module_of, project_sources
from scythe.provenance.sources import is_installed, remember_sources

_GIT_SECONDS = 5.0
_MOST_PATHS = 500
_PARENTS = 12  # folders that are searched upwards for pyproject.toml and .git
logger = logging.getLogger("scythe.leaf")


@dataclass(frozen=True, slots=True)
class CodeIdentity:
    """The identity of an experiment's code.

    Attributes:
        fingerprint: 16 hexadecimal digits for the source of the experiment and of the modules of
            its project, wherever they lie; empty where it cannot be told.
        version: The version of its package; empty without one.
        commit: The Git commit, with `-dirty` where these files differ from it; empty outside of
            a repository.
    """

    fingerprint: str = ""
    version: str = ""
    commit: str = ""

    @property
    def text(self) -> str:
        """The identity as one text."""
        return f"{self.fingerprint} {self.version.replace(' ', '_')} {self.commit}".rstrip()


def read_identity(text: str) -> CodeIdentity:
    """Parse the text of an identity."""
    fingerprint, version, commit = [*text.split(" "), "", ""][:3]
    return CodeIdentity(fingerprint, version, commit)


def identify(function: Any) -> CodeIdentity:
    """Return the identity of a function's code. Never raises."""
    try:
        remember_sources()
        plain = inspect.unwrap(function)
        is_inner = "<locals>" in getattr(plain, "__qualname__", "")
        module = None if is_inner else module_of(plain)
        if module is None or module.file is None:
            return CodeIdentity(_fingerprint(function_digests(plain)))
        return _identify_module(module, module.file)
    except Exception as error:  # noqa: BLE001 - a leaf also runs without a fingerprint
        logger.warning(
            "Cannot identify the code of %r, running it without a fingerprint: %r.", function, error
        )
        return CodeIdentity()


def _identify_module(module: Module, file: str) -> CodeIdentity:
    found = list(project_sources(module))
    digests = {f"{one.stem} {source.digest}" for one, source in found if source.digest}
    installed = is_installed(file)
    version = _installed_version(module, file) if installed else _project_version(Path(file))
    if installed:
        digests.add(f"version {version}")  # distinguishes code without source files
    commit = "" if installed else _commit(file, [str(one.file) for one, _ in found])
    return CodeIdentity(_fingerprint(digests), version, commit)


def _fingerprint(digests: set[str]) -> str:
    return hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()[:16]


def _installed_version(module: Module, file: str) -> str:
    from importlib.metadata import Distribution, PackageNotFoundError, packages_distributions

    top = module.name.partition(".")[0]
    try:
        found = Distribution.from_name(top)
        if (
            Path(os.path.realpath(str(found.locate_file(""))))
            in Path(os.path.realpath(file)).parents
        ):
            return found.version
    except PackageNotFoundError:
        pass
    names = packages_distributions().get(top, [])
    return Distribution.from_name(names[0]).version if names else ""


def _project_version(file: Path) -> str:
    """Return the version that a file's project declares, or with which it is installed."""
    from importlib.metadata import PackageNotFoundError, version

    for folder in list(file.absolute().parents)[:_PARENTS]:
        try:
            text = (folder / "pyproject.toml").read_text(encoding="utf-8")
        except (OSError, ValueError):
            continue
        import tomllib

        try:
            project: Any = tomllib.loads(text).get("project", {})
            return str(project.get("version") or version(str(project.get("name", ""))))
        except (PackageNotFoundError, ValueError, AttributeError):
            return ""
    return ""


def _commit(file: str, files: list[str]) -> str:
    """Return the Git commit of a file's repository, and whether these files differ from it."""
    folder = Path(os.path.realpath(file)).parent
    tops = [one for one in [folder, *list(folder.parents)[:_PARENTS]] if (one / ".git").exists()]
    if not tops:
        return ""
    paths = [path for path in map(os.path.realpath, files) if Path(path).is_relative_to(tops[0])]
    plain = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-c", "core.fsmonitor=false", "-C", str(folder), "status"]
    form = ["--porcelain=v2", "--branch", "--untracked-files=all", "--"]
    try:
        answer = subprocess.run(
            [*command, *form, *(paths if len(paths) <= _MOST_PATHS else ["*.py"])],
            env={**plain, "GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
            check=True,
        ).stdout.splitlines()
    except (OSError, subprocess.SubprocessError, ValueError):  # no Git here, or not ours to read
        return ""
    oid = next((line.split()[-1] for line in answer if line.startswith("# branch.oid ")), "")
    if oid in ("", "(initial)"):
        return ""
    return f"{oid}-dirty" if any(not line.startswith("#") for line in answer) else oid
