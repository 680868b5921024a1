"""What every program in a process relies on, and whether user code has replaced any of it."""

from __future__ import annotations

import builtins
import importlib
import io
import json
import logging
import os
import pathlib
import pickle
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from operator import itemgetter
from types import ModuleType
from typing import Any

_MODULES: tuple[ModuleType, ...] = (
    *(builtins, importlib, io, json, json.decoder, json.encoder, logging, os, os.path, pathlib),
    *(pickle, select, shutil, signal, socket, struct, subprocess, sys, tempfile, threading, time),
    traceback,
)
# What has a function of its own to set it; `scythe.leaf.settings` puts some of it back.
_SETTABLE = {
    *("excepthook", "unraisablehook", "displayhook", "breakpointhook"),
    *("_logRecordFactory", "_loggerClass"),
}
_OWN = ("scythe.", "scythe_ray.")
_HEAP_TYPE = 1 << 9  # of a class that Python code has defined, in which methods can be replaced


class Watch:
    """The functions and classes of these modules, and the modules, as they are now."""

    def __init__(self) -> None:
        self._names: list[tuple[str, Mapping[str, Any], tuple[str, ...]]] = []
        self._looks: list[tuple[Callable[[Any], Any], Mapping[str, Any], Any]] = []
        for module in _MODULES:
            self._add(module.__name__, vars(module))
            for name, value in list(vars(module).items()):
                own = getattr(value, "__module__", None) == module.__name__
                if isinstance(value, type) and own and value.__flags__ & _HEAP_TYPE:
                    self._add(f"{module.__name__}.{name}", vars(value))
        loaded = [name for name in sys.modules if name.startswith(_OWN)]
        self._modules = {name: sys.modules[name] for name in loaded}
        self._keep("sys.modules", sys.modules, [*(one.__name__ for one in _MODULES), *loaded])

    def replaced(self) -> list[str]:
        """Return the names of what is not as it was; takes tens of microseconds."""
        for look, space, was in self._looks:
            try:
                if look(space) == was:
                    continue
            except Exception:  # noqa: BLE001 - it was deleted, or compares in its own way
                return self._replaced()
            return self._replaced()
        return []

    def _replaced(self) -> list[str]:
        """Return all names; let what this process still sends be as its reader knows it."""
        missing = object()
        found = [
            f"{where}.{name}"
            for (where, space, names), (_, _, was) in zip(self._names, self._looks, strict=True)
            for name, value in zip(names, was, strict=True)
            if space.get(name, missing) is not value
        ]
        sys.modules.update(self._modules)
        return found

    def _add(self, where: str, space: Mapping[str, Any]) -> None:
        found = [name for name, value in space.items() if callable(value)]
        self._keep(where, space, [name for name in found if name not in _SETTABLE])

    def _keep(self, where: str, space: Mapping[str, Any], names: list[str]) -> None:
        if len(names) > 1:  # of one name, `itemgetter` returns no tuple
            look = itemgetter(*names)
            self._names.append((where, space, tuple(names)))
            self._looks.append((look, space, look(space)))
