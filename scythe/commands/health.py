"""Commands that check the machine and its services: `doctor`, `cache`."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Literal

import typer

from scythe import DISTRIBUTION
from scythe.commands import show
from scythe.commands.base import ExitCode, Json, add
from scythe.environment import TOKEN, check_installation, prepare_environment, require_engine
from scythe.errors import ScytheError
from scythe.executor import load_executor_factory
from scythe.settings import CacheSettings, cache_folder, default_storage_settings, store_config
from scythe.storage.cache import cache_size, check_cache, files_folder, shrink
from scythe.storage.layout import RunLayout
from scythe.storage.store import Store, open_store

_LEAST_DISK = 1024**3
_LEAST_SHM = 256 * 1024**2
_CLOCK_SECONDS = 5.0
_SHM = Path("/dev/shm")  # noqa: S108 - it is looked at, not written

State = Literal["good", "warning", "bad"]


@dataclass(frozen=True, slots=True)
class Check:
    """The finding about one thing.

    Attributes:
        name: The thing.
        state: `good`; `warning` where it may do harm later; `bad` where runs do not work.
        text: What it is, or what is wrong and what to do.
    """

    name: str
    state: State
    text: str


class _Finding(Exception):  # noqa: N818 - what a check has found
    def __init__(self, state: State, text: str) -> None:
        super().__init__(text)
        self.state: State = state


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this family."""
    for function in (doctor, cache):
        add(app, function)


def doctor(json: Json = False) -> int:
    """Check all that runs need; each line says what to do."""
    found: list[Check] = []
    for name, check in _CHECKS.items():
        found.append(_checked(name, check))
        if not json:
            one = found[-1]
            mark = {"good": "ok  ", "warning": "warn", "bad": "BAD "}[one.state]
            show.line(f"{mark}  {one.name:<10}{' '.join(one.text.split())}")
            sys.stdout.flush()
    if json:
        show.line(show.as_json(found))
    bad = {one.name for one in found if one.state == "bad"}
    if bad & _SERVICES:
        return ExitCode.NOT_REACHABLE
    return ExitCode.WRONG_USE if bad else ExitCode.GOOD


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove what nobody uses now.")] = False,
    json: Json = False,
) -> None:
    """Show, or clear, the cache of downloaded input files."""
    folder, limit = files_folder(), CacheSettings().MAX_BYTES
    before, files = cache_size(folder)
    removed = 0
    if clear and files:
        shrink(folder, 0)
        after, files = cache_size(folder)
        removed, before = before - after, after
    if json:
        facts = {"folder": str(folder), "bytes": before, "files": files, "limit": int(limit)}
        show.line(show.as_json({**facts, "removed": removed}))
        return
    if clear:
        show.line(f"Removed {show.size(removed)}.")
    show.line(f"{show.size(before)} in {files} files of at most {show.size(limit)}: {folder}")


def _checked(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, "good", check())
    except _Finding as finding:
        return Check(name, finding.state, str(finding))
    except ScytheError as error:
        return Check(name, "bad", str(error))
    except Exception as error:  # noqa: BLE001 - one broken thing must not hide the others
        return Check(name, "bad", f"{type(error).__name__}: {error}")


def _versions() -> str:
    check_installation(warn=_warn)
    found = {"scythe-ray": DISTRIBUTION, "hatchet-sdk": "hatchet-sdk", "ray": "ray"}
    known = [f"Python {platform.python_version()}"]
    for title, name in found.items():
        try:
            known.append(f"{title} {version(name)}")
        except PackageNotFoundError:
            known.append(f"no {title}")
    return ", ".join(known)


def _warn(text: str) -> None:
    raise _Finding("warning", text)


def _token() -> str:
    require_engine()
    local = prepare_environment()
    return f"that of the local stack at {local}" if local else f"from {TOKEN}"


def _engine() -> str:
    from scythe.engine.client import check_engine

    return check_engine()


def _workers() -> str:
    from scythe.engine.lookup import connected_workers

    found = connected_workers()
    if not found:
        raise _Finding("warning", "None is connected: runs wait. Start one: python main.py")
    return f"{len(found)} connected, {sum(one.slots for one in found)} slots"


def _store() -> Store:
    store = open_store(store_config(default_storage_settings())).with_patience(0)
    store.check()
    return store


def _bucket() -> str:
    store = _store()
    prefix = store.config.prefix
    key = RunLayout.below_prefix(prefix, f".claims/doctor-{uuid.uuid4().hex}")
    data = uuid.uuid4().bytes
    store.put_bytes(key, data)
    try:
        if store.get_bytes(key) != data:
            raise _Finding("bad", f"{store.uri(key)} was read back with another content.")
    finally:
        store.delete(key)
    if store.find_bytes(key) is not None:
        raise _Finding("bad", f"{store.uri(key)} is still there after it was deleted.")
    where = store.config.endpoint_url or "AWS"
    return f"{store.uri(prefix)} at {where}: wrote, read and deleted"


def _executor() -> str:
    name = os.environ.get("SCYTHE_WORKER_EXECUTOR") or "local"
    load_executor_factory(name)
    if name == "ray":
        _ = version("ray")
        address = os.environ.get("SCYTHE_RAY_ADDRESS") or os.environ.get("RAY_ADDRESS")
        return f"ray, {address or 'that of this host, else one of its own'}"
    return f"{name}, {len(os.sched_getaffinity(0))} CPUs"


def _clock() -> str:
    before = time.time()
    offset = _store().clock() - before
    if abs(offset) > _CLOCK_SECONDS + (time.time() - before):
        raise _Finding(
            "warning",
            f"This clock and that of the bucket differ by {abs(offset):.0f} s, so times and "
            "waits are wrong: set the clock (NTP).",
        )
    return "agrees with that of the bucket"


def _disk() -> str:
    check_cache()
    texts: list[str] = []
    for what, folder in (("cache", cache_folder()), ("temporary files", tempfile.gettempdir())):
        free = shutil.disk_usage(folder).free
        if free < _LEAST_DISK:
            raise _Finding(
                "warning",
                f"Only {show.size(free)} are free for the {what} in {folder}: free space, or set "
                f"{'SCYTHE_CACHE_DIR' if what == 'cache' else 'TMPDIR'}.",
            )
        texts.append(f"{show.size(free)} free for the {what}")
    return ", ".join(texts)


def _shared_memory() -> str:
    if not _SHM.is_dir():
        raise _Finding("warning", "It is not there: workers share memory through it (Linux).")
    free = shutil.disk_usage(_SHM).free
    if free < _LEAST_SHM:
        raise _Finding(
            "warning",
            f"Only {show.size(free)} are free; Ray wants more: free space, or give the container "
            "more with --shm-size=1g.",
        )
    return f"{show.size(free)} free"


_CHECKS: dict[str, Callable[[], str]] = {
    "versions": _versions,
    "token": _token,
    "engine": _engine,
    "bucket": _bucket,
    "clock": _clock,
    "executor": _executor,
    "workers": _workers,
    "disk": _disk,
    str(_SHM): _shared_memory,
}
_SERVICES = {"token", "engine", "bucket", "clock", "workers"}
