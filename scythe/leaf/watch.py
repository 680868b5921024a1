"""Detection of functions that user code has replaced in a leaf's process."""

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
# Attributes with their own setter; `scythe.leaf.settings` restores some of them.
_SETTABLE = {
    *("excepthook", "unraisablehook", "displayhook", "breakpointhook"),
    *("_logRecordFactory", "_loggerClass"),
}
_OWN = ("scythe.", "scythe_ray.")
_HEAP_TYPE = 1 << 9  # set for classes defined in Python code, whose methods can be replaced


class Watch:
    """A snapshot of these modules and of their functions and classes."""

    def __init__(self) -> None:
        self._names: list[tuple[str, Any, tuple[str, ...]]] = []
        # With the size of each class, because an added method overrides an inherited one.
        self._looks: list[tuple[int, Callable[[Any], Any], Mapping[str, Any], tuple[Any, ...]]] = []
        self._members: dict[int, set[str]] = {}
        for module in _MODULES:
            self._add(module.__name__, module)
            for name, value in list(vars(module).items()):
                own = getattr(value, "__module__", None) == module.__name__
                if isinstance(value, type) and own and value.__flags__ & _HEAP_TYPE:
                    self._add(f"{module.__name__}.{name}", value)
        loaded = [name for name in sys.modules if f"{name}.".startswith(_OWN)]
        names = [*(one.__name__ for one in _MODULES), *loaded]
        self._keep("sys.modules", sys.modules, sys.modules, names)

    def replaced(self) -> list[str]:
        """Return the names of what was replaced; takes tens of microseconds."""
        for size, look, space, was in self._looks:
            try:
                if look(space) == was and size in (0, len(space)):
                    continue
            except Exception:  # noqa: BLE001 - it was deleted, or has its own comparison
                return self._put_back()
            return self._put_back()
        return []

    def _put_back(self) -> list[str]:
        """Restore all, so that this process can still send messages; return the names."""
        found: list[str] = []
        missing = object()
        for (where, owner, names), (_, _, space, was) in zip(self._names, self._looks, strict=True):
            for name in space.keys() - self._members.get(id(owner), space.keys()):
                found.append(f"{where}.{name}")
                delattr(owner, name)
            for name, value in zip(names, was, strict=True):
                if space.get(name, missing) is not value:
                    found.append(f"{where}.{name}")
                    if owner is space:
                        owner[name] = value
                    else:
                        setattr(owner, name, value)
        return found

    def _add(self, where: str, owner: Any) -> None:
        found = [name for name, value in vars(owner).items() if callable(value)]
        self._keep(where, owner, vars(owner), [one for one in found if one not in _SETTABLE])

    def _keep(self, where: str, owner: Any, space: Mapping[str, Any], names: list[str]) -> None:
        if len(names) > 1:  # for one name, `itemgetter` returns no tuple
            look = itemgetter(*names)
            self._names.append((where, owner, tuple(names)))
            size = 0
            if isinstance(owner, type):
                size, self._members[id(owner)] = len(space), set(space)
            self._looks.append((size, look, space, look(space)))
