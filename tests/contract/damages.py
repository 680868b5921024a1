"""All that a leaf can do to its process, and a leaf that would notice."""

from __future__ import annotations

import asyncio
import atexit
import builtins
import ctypes
import decimal
import faulthandler
import gc
import json
import locale
import logging
import mmap
import multiprocessing
import os
import pickle
import random
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scythe.registry import ExperimentRegistry
from tests.contract.experiments import LONG, Number, Task

_kept: list[Any] = []  # what a damage leaves behind


@ExperimentRegistry.Register()
def damages(spec: Task, tempdir: Path) -> Number:
    """Does to its process what its spec says, or is a healthy leaf."""
    if spec.how:
        DAMAGES[spec.how](tempdir)
    else:
        _look_around(tempdir)
    return Number(value=spec.sort_index)


def _look_around(tempdir: Path) -> None:
    """Use what leaves use, and see that it is as in a new process."""
    (tempdir / "file").write_text(json.dumps({"a": [1.5]}))
    assert json.loads((tempdir / "file").read_text()) == {"a": [1.5]}
    assert pickle.loads(pickle.dumps(tempdir)) == tempdir
    assert struct.unpack("d", struct.pack("d", 1.5)) == (1.5,)
    with tempfile.TemporaryFile() as file, socket.socket() as link:
        file.write(b"x")
        assert link.gettimeout() is None
    assert (tempdir / "file").stat().st_mode & 0o777 == 0o644
    assert Path.cwd().is_dir()
    mmap.mmap(-1, 50_000_000).close()
    assert sys.getrecursionlimit() >= 1000
    assert gc.isenabled()
    assert str(decimal.Decimal(1) / 3) == "0.3333333333333333333333333333"
    assert time.localtime(0).tm_hour == _HOUR
    assert locale.setlocale(locale.LC_ALL) == _LOCALE
    assert "DAMAGED" not in os.environ
    assert "/damaged" not in sys.path
    assert multiprocessing.get_start_method(allow_none=True) is None
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL
    with warnings.catch_warnings():
        warnings.warn("of no note", DeprecationWarning, stacklevel=1)
    import colorsys  # which some damages have forgotten

    assert colorsys.rgb_to_hsv(0, 0, 0) == (0, 0, 0)


_HOUR, _LOCALE = time.localtime(0).tm_hour, locale.setlocale(locale.LC_ALL)


def _replace(module: Any, name: str, value: Any = None) -> Callable[[Path], None]:
    return lambda _: setattr(module, name, value)


def _broken(*args: Any, **options: Any) -> Any:
    raise RuntimeError("broken by a leaf")


def _limit(name: str, value: int) -> Callable[[Path], None]:
    def damage(_: Path) -> None:
        resource.setrlimit(getattr(resource, name), (value, value))

    return damage


def _memory(_: Path) -> None:
    """Leave little below a limit of its own."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 30_000_000, hard))


def _more_memory(_: Path) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 30_000_000, hard))
    _kept.append(bytearray(1 << 30))


def _fork(_: Path) -> None:
    """Come back twice."""
    if os.fork():
        os.wait()


def _fork_by_c(_: Path) -> None:
    if ctypes.CDLL(None).fork():
        os.wait()


def _threads(_: Path) -> None:
    for _number in range(5):
        threading.Thread(target=time.sleep, args=(LONG,), daemon=True).start()


def _many_threads(_: Path) -> None:
    for _number in range(100):
        threading.Thread(target=time.sleep, args=(LONG,), daemon=True).start()


def _open_files(_: Path) -> None:
    most, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for _number in range(min(most, 1 << 16) - 200):
        os.dup(0)


def _close_all(_: Path) -> None:
    os.closerange(3, 1 << 16)


def _handlers(_: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGALRM, signal.SIGUSR2, signal.SIGPROF, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def _timers(_: Path) -> None:
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    signal.setitimer(signal.ITIMER_PROF, 0.05)
    signal.setitimer(signal.ITIMER_VIRTUAL, 0.05)


def _later(_: Path) -> None:
    faulthandler.dump_traceback_later(0.1, exit=True)


def _logging(tempdir: Path) -> None:
    logging.basicConfig(filename=tempdir / "log", level=logging.CRITICAL, force=True)
    logging.disable(logging.CRITICAL)
    logging.shutdown()


def _paths(_: Path) -> None:
    sys.path[:] = ["/damaged"]
    sys.meta_path.clear()
    sys.path_hooks.clear()
    sys.path_importer_cache.clear()
    sys.modules.pop("colorsys", None)


def _modules(_: Path) -> None:
    for name in [one for one in sys.modules if one.startswith(("scythe", "json"))]:
        del sys.modules[name]


def _environment(_: Path) -> None:
    os.environ.clear()
    os.environ["DAMAGED"] = "x"
    os.environ["TZ"] = "Asia/Kathmandu"
    time.tzset()
    os.environ = {"DAMAGED": "y"}  # type: ignore[assignment] # noqa: B003


def _folder(tempdir: Path) -> None:
    (tempdir / "gone").mkdir()
    os.chdir(tempdir / "gone")
    (tempdir / "gone").rmdir()
    os.umask(0o777)


def _interpreter(_: Path) -> None:
    sys.setrecursionlimit(60)
    sys.setswitchinterval(10)
    sys.excepthook = sys.unraisablehook = sys.displayhook = _broken
    sys.argv[:] = []
    gc.disable()
    gc.freeze()
    gc.callbacks.append(_broken)


def _audit(_: Path) -> None:
    sys.addaudithook(_broken)


def _traced(_: Path) -> None:
    sys.settrace(_broken)
    sys.setprofile(None)


def _numbers(_: Path) -> None:
    decimal.getcontext().prec = 2
    decimal.getcontext().traps[decimal.Inexact] = True
    random.seed(0)
    warnings.simplefilter("error")


def _locale(_: Path) -> None:
    locale.setlocale(locale.LC_ALL, "C")


def _policies(_: Path) -> None:
    class Policy(asyncio.DefaultEventLoopPolicy):
        new_event_loop = _broken

    asyncio.set_event_loop_policy(Policy())
    multiprocessing.set_start_method("spawn")
    socket.setdefaulttimeout(0.000001)


def _at_exit(_: Path) -> None:
    atexit.register(time.sleep, LONG)
    atexit.register(_broken)


def _streams(_: Path) -> None:
    os.close(0)
    os.close(1)
    sys.stderr.close()
    sys.stdin = None  # type: ignore[assignment]


def _children(_: Path) -> None:
    for _number in range(3):
        subprocess.Popen(["sleep", str(LONG)], start_new_session=True)


def _one_cpu(_: Path) -> None:
    os.sched_setaffinity(0, {0})
    os.nice(10)


def _user(_: Path) -> None:
    if os.geteuid() == 0:
        os.setresuid(65534, 65534, 65534)


# The first ones are those by which leaves were lost that had nothing to do with them.
DAMAGES: dict[str, Callable[[Path], object]] = {
    "json.dumps broken": _replace(json, "dumps", _broken),
    "pickle.dumps None": _replace(pickle, "dumps"),
    "no file may be opened": _limit("RLIMIT_NOFILE", 3),
    "folder above removed": lambda tempdir: shutil.rmtree(tempdir.parent),
    "no file may be written": _limit("RLIMIT_FSIZE", 0),
    "pickle.loads None": _replace(pickle, "loads"),
    "os broken": lambda _: [
        setattr(os, one, _broken) for one in ("open", "getcwd", "_exit", "kill")
    ],
    "socket.socket None": _replace(socket, "socket"),
    "socket.sendall broken": _replace(socket.socket, "send", _broken),
    "logging broken": lambda _: [setattr(logging.Logger, one, _broken) for one in ("info", "_log")],
    "len broken": _replace(builtins, "len", _broken),
    "import broken": _replace(builtins, "__import__", _broken),
    "open None": _replace(builtins, "open"),
    "time.monotonic broken": _replace(time, "monotonic", _broken),
    "signal.setitimer None": _replace(signal, "setitimer"),
    "tempfile.mkdtemp None": _replace(tempfile, "mkdtemp"),
    "threading.Thread None": _replace(threading, "Thread"),
    "open files": _open_files,
    "all files closed": _close_all,
    "memory near a limit": _memory,
    "memory that is not there": _more_memory,
    "no processes": _limit("RLIMIT_NPROC", 1),
    "signal handlers": _handlers,
    "timers": _timers,
    "a timer of faulthandler": _later,
    "threads": _threads,
    "many threads": _many_threads,
    "import path": _paths,
    "modules": _modules,
    "environment": _environment,
    "working directory": _folder,
    "interpreter": _interpreter,
    "audit hook": _audit,
    "trace": _traced,
    "numbers": _numbers,
    "locale": _locale,
    "policies": _policies,
    "logging set up": _logging,
    "at exit": _at_exit,
    "streams": _streams,
    "children": _children,
    "one slow CPU": _one_cpu,
    "another user": _user,
    "a fork that returns": _fork,
    "a fork by C that returns": _fork_by_c,
    "sys.exit": lambda _: sys.exit(3),
    "os._exit": lambda _: os._exit(3),
    "SIGKILL": lambda _: os.kill(os.getpid(), signal.SIGKILL),
    "a crash": lambda _: ctypes.string_at(0),
}
