"""Fingerprints of functions without a source file, such as those of a notebook."""

from __future__ import annotations

import hashlib
import types
from collections.abc import Iterator
from typing import Any

from scythe.provenance.project import module_of, project_sources
from scythe.provenance.sources import MAIN_NAMES, is_installed, is_of_scythe

_PLAIN = (str, bytes, int, float, complex, bool, type(None))
_ITEMS = (tuple, list, set, frozenset, dict)


def function_digests(function: Any) -> set[str]:
    """Return digests of a function and of all that it uses: functions, classes, modules, values."""
    return set(_Walk().digests(function))


class _Walk:
    def __init__(self) -> None:
        self._known: set[int] = set()

    def digests(self, value: Any, label: str = "") -> Iterator[str]:
        """Yield digests of a value that code uses under a name."""
        if id(value) in self._known:
            return
        if isinstance(value, _PLAIN):
            yield _hash(label, type(value).__name__, repr(value))
            return
        self._known.add(id(value))
        if isinstance(value, types.ModuleType):
            yield from _project(value.__name__, value)
        elif isinstance(value, types.FunctionType):
            yield from self._function(value)
        elif isinstance(value, type):
            yield from self._class(value)
        elif isinstance(value, _ITEMS):
            items = list(value.items()) if isinstance(value, dict) else list(value)
            for number, item in enumerate(items):
                ordered = not isinstance(value, (set, frozenset))
                yield from self.digests(item, f"{label}[{number if ordered else ''}]")
        elif isinstance(getattr(value, "fn", None), types.FunctionType):
            yield from self.digests(value.fn)
        else:
            yield _hash(label, type(value).__qualname__)

    def _function(self, value: types.FunctionType) -> Iterator[str]:
        if _has_file(value):
            yield from _project(value.__module__, value)
            return
        yield _hash(_code(value.__code__))
        for default in [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]:
            yield from self.digests(default, "default")
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=False):
            yield from self.digests(_content(cell), name)
        for name in sorted(_names(value.__code__)):
            if name in value.__globals__:
                yield from self.digests(value.__globals__[name], name)

    def _class(self, value: type) -> Iterator[str]:
        if _has_file(value):
            yield from _project(value.__module__, value)
            return
        yield _hash(value.__name__, *(base.__qualname__ for base in value.__bases__))
        for name, member in vars(value).items():
            plain = getattr(member, "__func__", None) or getattr(member, "fget", None) or member
            if isinstance(plain, types.FunctionType) and plain.__module__ == value.__module__:
                yield from self.digests(plain, name)


def _has_file(value: Any) -> bool:
    return value.__module__ not in MAIN_NAMES and "<locals>" not in value.__qualname__


def _project(name: str, value: Any) -> Iterator[str]:
    """Yield digests of the module that a value is or comes from, if it belongs to the user."""
    probe = types.SimpleNamespace(__module__=name)
    module = None if is_of_scythe(name) else module_of(probe)
    if module is None or module.file is None or is_installed(module.file):
        yield _hash(name, getattr(value, "__qualname__", ""))
        return
    for one, source in project_sources(module):
        yield _hash(one.stem, source.digest)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is not set yet
        return None


def _names(code: types.CodeType) -> set[str]:
    inner = [one for one in code.co_consts if isinstance(one, types.CodeType)]
    return set(code.co_names).union(*map(_names, inner))


def _code(code: types.CodeType) -> str:
    """Return a code object as text, without files, lines and addresses."""
    consts = [
        _code(one)
        if isinstance(one, types.CodeType)
        else repr(sorted(map(repr, one)) if isinstance(one, frozenset) else one)
        for one in code.co_consts
    ]
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    return repr((code.co_name, code.co_code, consts, names, code.co_argcount, code.co_flags))


def _hash(*parts: str) -> str:
    return hashlib.sha256(repr(parts).encode("utf-8", "surrogatepass")).hexdigest()
