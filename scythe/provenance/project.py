"""Finds the user's own modules that a module imports, directly or indirectly."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scythe.provenance.sources import (
    MAIN_NAMES,
    Import,
    Source,
    is_installed,
    is_of_scythe,
    source_of,
)


@dataclass(frozen=True)
class Module:
    """A module, imported or not.

    Attributes:
        name: Its full name; that of a script is the name by which it could be imported.
        file: Its file, None for a namespace package.
        package: The package for its relative imports.
        search: Where its submodules are looked for.
        spec: How it is imported.
    """

    name: str
    file: str | None
    package: str = ""
    search: tuple[str, ...] | None = None
    spec: Any = None

    @property
    def stem(self) -> str:
        """The last step of its name, whatever name it was imported by."""
        path = Path(self.file or "")
        return path.parent.name if path.stem == "__init__" else path.stem


def module_of(function: Any) -> Module | None:
    """Return the module that defines a function; None where it has no file, as in a notebook."""
    name = str(function.__module__)
    if name not in MAIN_NAMES:
        return _Finder().find(name)
    code = getattr(function, "__code__", None)
    file = code.co_filename if code is not None else ""
    for main in MAIN_NAMES:
        content: dict[str, Any] = vars(sys.modules[main]) if main in sys.modules else {}
        path = content.get("__file__")
        if path and Path(path).name == Path(file).name and Path(path).is_file():
            spec: Any = content.get("__spec__")
            if spec is None or spec.name in MAIN_NAMES:  # it is run by its path
                return Module(Path(path).stem, path)
            return Module(spec.name, path, spec.parent, None, spec)
    return Module(Path(file).stem, file) if Path(file).is_file() else None


def find_module(name: str) -> Module | None:
    """Return a module by its full name, without importing it.

    None if it does not exist, or is not the user's Python code.
    """
    return _Finder().find(name)


def project_sources(root: Module) -> Iterator[tuple[Module, Source]]:
    """Yield a module, its packages, and the project modules that they import, with sources.

    Installed packages are left out, except the one that the module belongs to.
    """
    finder = _Finder()
    top = root.name.partition(".")[0]
    found: set[str] = set()
    waiting = [root, *finder.packages(root)]
    while waiting:
        module = waiting.pop()
        if module.file is None or (real := os.path.realpath(module.file)) in found:
            continue
        is_own_package = module.name.partition(".")[0] == top
        if module is not root and is_installed(module.file) and not is_own_package:
            continue
        found.add(real)
        source = source_of(module.file, module.spec)
        if source is None:
            continue
        yield module, source
        for statement in source.imports:
            waiting += finder.imported(statement, module.package)


class _Finder:
    """Finds modules by name without importing any."""

    def __init__(self) -> None:
        self._known: dict[str, Module | None] = {}

    def find(self, name: str) -> Module | None:
        """Return a module; None if it does not exist, or is not the user's Python code."""
        if name not in self._known:
            self._known[name] = self._look_for(name)
        return self._known[name]

    def packages(self, module: Module) -> list[Module]:
        """Return the packages that a module is in."""
        steps = module.name.split(".")[:-1]
        names = [".".join(steps[:count]) for count in range(1, len(steps) + 1)]
        return [one for one in map(self.find, names) if one is not None]

    def imported(self, statement: Import, package: str) -> list[Module]:
        """Return the modules that an import statement may import, with their packages."""
        base = statement.module
        if statement.level:
            steps = package.split(".")
            kept = steps[: len(steps) - statement.level + 1]
            base = ".".join([*kept, *([base] if base else [])])
        if not base or base.partition(".")[0] in sys.stdlib_module_names:
            return []
        module = self.find(base)
        if module is None:
            return []
        names = [f"{base}.{name}" for name in statement.names] if module.search else []
        inner = [one for one in map(self.find, names) if one is not None]
        return [*self.packages(module), module, *inner]

    def _look_for(self, name: str) -> Module | None:
        if not name or is_of_scythe(name):
            return None
        spec = getattr(sys.modules.get(name), "__spec__", None) or self._spec(name)
        if spec is None:
            # Python finds a namespace package inside of another only when that is imported.
            parent, _, last = name.rpartition(".")
            above = self.find(parent) if parent else None
            paths = [Path(one, last) for one in (above and above.search) or ()]
            folders = tuple(str(path) for path in paths if path.is_dir())
            return Module(name, None, name, folders) if folders else None
        search = getattr(spec, "submodule_search_locations", None)
        if search is not None:
            # Those of a namespace package look at its parent's, which need not be imported.
            search = tuple(getattr(search, "_path", search))
        file = spec.origin if str(spec.origin).endswith((".py", ".pyw")) else None
        package = name if search is not None else name.rpartition(".")[0]
        return Module(name, file, package, search, spec)

    def _spec(self, name: str) -> Any:
        parent, _, _ = name.rpartition(".")
        path = None
        if parent:
            package = self.find(parent)
            if package is None or not package.search:
                return None
            path = package.search
        for finder in sys.meta_path:
            with suppress(Exception):  # a finder of somebody else's
                spec = finder.find_spec(name, path, None)
                if spec is not None:
                    return spec
        return None
