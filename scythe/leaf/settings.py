"""Process settings that user code may change and that can be restored."""

from __future__ import annotations

import asyncio
import contextlib
import decimal
import faulthandler
import gc
import locale
import logging
import multiprocessing
import os
import resource
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

_LIMITS = [
    getattr(resource, f"RLIMIT_{name}")
    for name in ("AS", "CORE", "CPU", "DATA", "FSIZE", "MEMLOCK", "NOFILE", "NPROC", "STACK")
    if hasattr(resource, f"RLIMIT_{name}")
]


class _Setting(NamedTuple):
    """A process setting: how user code changes it, and the functions to read and restore it.

    The functions are references from before user code ran.
    """

    name: str
    get: Callable[[], Any]
    put: Callable[[Any], object]


def _rules(context: decimal.Context) -> tuple[int, str, int, int]:
    """Return the settings of a decimal context, without the flags that calculations set."""
    return context.prec, context.rounding, context.Emin, context.Emax


class ProcessSettings:
    """A snapshot of all process settings.

    Attributes:
        changed: Whether the last restore found a change.
    """

    def __init__(self) -> None:
        self.changed = False
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        self._context = decimal.getcontext().copy()
        self._rules = _rules(self._context)
        self._were = [(setting, setting.get()) for setting in _SETTINGS]

    def restore(self) -> list[str]:
        """Restore changed settings; return the names of those that could not be restored."""
        left: list[str] = []
        self.changed = False
        for setting, was in self._were:
            try:
                if setting.get() != was:
                    self.changed = True
                    setting.put(was)
            except Exception:  # noqa: BLE001 - whatever it is, the process is damaged
                left.append(setting.name)
        if _set_umask(self._umask) != self._umask or _rules(_get_context()) != self._rules:
            self.changed = True
        _set_context(self._context.copy())
        _cancel_dump()
        return left


def _lists(name: str, *spaces: Any) -> list[_Setting]:
    """Return settings for the list of this name in each of these modules."""

    def setting(space: Any) -> _Setting:
        own: list[Any] = getattr(space, name)

        def put(was: list[Any]) -> None:
            own[:] = was
            setattr(space, name, own)

        return _Setting(f"{space.__name__}.{name}", lambda: list(getattr(space, name)), put)

    return [setting(space) for space in spaces]


def _values(space: Any, *names: str) -> list[_Setting]:
    """Return settings for plain attributes of a module or an object."""

    def setting(name: str) -> _Setting:
        def get() -> Any:
            return getattr(space, name)

        return _Setting(f"{space.__name__}.{name}", get, lambda was: setattr(space, name, was))

    return [setting(name) for name in names if hasattr(space, name)]


def _put_limits(were: list[tuple[int, int]]) -> None:
    for limit, was in zip(_LIMITS, were, strict=True):
        _set_limit(limit, was)


def _put_collector(was: tuple[Any, ...]) -> None:
    enabled, threshold, debug = was
    gc.set_threshold(*threshold)
    gc.set_debug(debug)
    (gc.enable if enabled else gc.disable)()


def _put_filters(was: list[Any]) -> None:
    warnings.resetwarnings()  # also invalidates the C cache of filters
    warnings.filters[:] = was  # pyright: ignore[reportIndexIssue]


def _logging_now() -> tuple[Any, ...]:
    root = logging.getLogger()
    return root.level, list(root.handlers), root.manager.disable, list(root.filters)


def _put_logging(was: tuple[Any, ...]) -> None:
    root = logging.getLogger()
    level, root.handlers, root.manager.disable, root.filters = was[0], *map(_copied, was[1:])
    root.setLevel(level)


def _copied(value: Any) -> Any:
    return list[Any](value) if isinstance(value, list) else value


def _put_locale(was: str) -> None:
    with contextlib.suppress(locale.Error):  # a locale's own name is not always accepted
        locale.setlocale(locale.LC_ALL, was)


def _refuse(was: Any) -> None:
    raise PermissionError(f"it cannot be made {was} again")


def _audit_hooks() -> Callable[[], int]:
    """Return a function that counts audit hooks added from now on, which cannot be removed."""
    count = 0
    add = sys.addaudithook

    def noted(hook: Callable[[str, tuple[Any, ...]], Any]) -> None:
        nonlocal count
        count += 1
        add(hook)

    sys.addaudithook = noted
    return lambda: count


_set_umask = os.umask
_get_context = decimal.getcontext
_set_context = decimal.setcontext
_cancel_dump = faulthandler.cancel_dump_traceback_later
_get_limit = resource.getrlimit
_set_limit = resource.setrlimit
_asyncio_state = vars(asyncio.events)
_priority = os.getpriority
_set_priority = os.setpriority
_THIS = os.PRIO_PROCESS
_set_start_method: Any = multiprocessing.set_start_method
_SETTINGS = [
    _Setting("resource.setrlimit", lambda: [_get_limit(one) for one in _LIMITS], _put_limits),
    _Setting("sys.setrecursionlimit", sys.getrecursionlimit, sys.setrecursionlimit),
    _Setting("sys.setswitchinterval", sys.getswitchinterval, sys.setswitchinterval),
    _Setting("sys.settrace", sys.gettrace, sys.settrace),
    _Setting("sys.setprofile", sys.getprofile, sys.setprofile),
    *_lists("path", sys),
    *_lists("argv", sys),
    *_lists("meta_path", sys),
    *_lists("path_hooks", sys),
    *_lists("callbacks", gc),
    *_values(sys, "stdin", "excepthook", "unraisablehook", "displayhook", "breakpointhook"),
    *_values(threading, "excepthook"),
    *_values(logging, "lastResort", "raiseExceptions"),
    _Setting("logging", _logging_now, _put_logging),
    _Setting("logging.setLoggerClass", logging.getLoggerClass, logging.setLoggerClass),
    _Setting(
        "logging.setLogRecordFactory", logging.getLogRecordFactory, logging.setLogRecordFactory
    ),
    _Setting("gc", lambda: (gc.isenabled(), gc.get_threshold(), gc.get_debug()), _put_collector),
    _Setting("warnings.filters", lambda: list(warnings.filters), _put_filters),
    _Setting("socket.setdefaulttimeout", socket.getdefaulttimeout, socket.setdefaulttimeout),
    _Setting("locale.setlocale", lambda: locale.setlocale(locale.LC_ALL), _put_locale),
    _Setting("time.tzset", lambda: (time.tzname, time.timezone), lambda _: time.tzset()),
    _Setting(
        "asyncio.set_event_loop_policy",
        lambda: _asyncio_state.get("_event_loop_policy"),
        getattr(asyncio, "set_event_loop_policy"),  # noqa: B009 - deprecated in 3.14
    ),
    _Setting(
        "multiprocessing.set_start_method",
        lambda: multiprocessing.get_start_method(allow_none=True),
        lambda was: _set_start_method(was, force=True),
    ),
    _Setting("os.nice", lambda: _priority(_THIS, 0), lambda was: _set_priority(_THIS, 0, was)),
    _Setting("os.setuid", lambda: (os.getresuid(), os.getresgid()), _refuse),
    _Setting("sys.addaudithook", _audit_hooks(), _refuse),
]
if sys.platform == "linux":
    _cpus = os.sched_getaffinity
    _set_cpus = os.sched_setaffinity
    _SETTINGS.append(
        _Setting("os.sched_setaffinity", lambda: _cpus(0), lambda was: _set_cpus(0, was))
    )
