"""Reads the sources of modules as they were at import, reduced to what affects behaviour."""

from __future__ import annotations

import ast
import hashlib
import os
import re
import sys
import sysconfig
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

MAIN_NAMES = ("__main__", "__mp_main__")
_OWN = ("scythe", "scythe_ray")
_TREE_BYTES = 1 << 20  # longer sources count as text: a syntax tree takes 50 times their memory
_IMPORT_LINE = re.compile(rb"^[ \t]*(?:import|from)[ \t].*$", re.MULTILINE)
_PASSED_OVER = frozenset({"ctx", "type_comment", "kind"})
_VALUES = (ast.Constant, ast.MatchSingleton)


@dataclass(frozen=True)
class Import:
    """One import statement.

    Attributes:
        module: What is imported, or from which module.
        names: What is imported from it.
        level: The dots of a relative import.
    """

    module: str
    names: tuple[str, ...] = ()
    level: int = 0


@dataclass
class Source:
    """The source of one module."""

    data: bytes = field(repr=False)

    @property
    def digest(self) -> str:
        """Digest of its syntax tree, without comments and layout; empty if it has no code."""
        return self._parsed[0]

    @property
    def imports(self) -> list[Import]:
        """The modules that it imports, also inside of functions."""
        return self._parsed[1]

    @cached_property
    def _parsed(self) -> tuple[str, list[Import]]:
        tree = _tree(self.data)
        if tree is None:
            text = self.data.replace(b"\r\n", b"\n")
            return hashlib.sha256(text).hexdigest(), _imports_by_line(text)
        if not any(_acts(statement) for statement in tree.body):
            return "", []
        canonical, imports = _walk(tree)
        return hashlib.sha256(canonical).hexdigest(), imports


_sources: dict[str, Source] = {}  # by file, as it was when its module was imported
_imported: dict[str, Any] = {}  # by module, its spec: one that is reloaded gets another
_passed: dict[str, int] = {}  # by module, the id of one that is not the user's


def remember_sources() -> None:
    """Read the sources of the user's modules that were imported since the last call.

    Called soon after imports, because a file may be edited later.
    """
    for name, module in list(sys.modules.items()):
        if _passed.get(name) == id(module):
            continue
        spec, file = _origin(module)
        if file is None or is_of_scythe(name) or is_installed(file):
            _passed[name] = id(module)
        elif name not in _imported or _imported[name] is not spec:
            _imported[name] = spec
            with suppress(OSError):
                _sources[file] = Source(_read(file, spec))


def source_of(file: str, spec: Any = None) -> Source | None:
    """Return the source of a module, at its import if possible, else now; None if it has none."""
    if file not in _sources:
        try:
            return Source(_read(file, spec))
        except OSError:
            return None
    return _sources[file]


def is_installed(file: str) -> bool:
    """Return whether a file belongs to Python or to an installed package."""
    return "site-packages" in file or "dist-packages" in file or file.startswith(_folders())


def is_of_scythe(name: str) -> bool:
    """Return whether a module belongs to Scythe."""
    return name.partition(".")[0] in _OWN


def _origin(module: Any) -> tuple[Any, str | None]:
    """Return the spec and the Python file of a module, without running its code."""
    content = module.__dict__ if isinstance(module, type(sys)) else {}
    spec = content.get("__spec__")
    file = getattr(spec, "origin", None) or content.get("__file__")
    return spec, file if isinstance(file, str) and file.endswith((".py", ".pyw")) else None


def _read(file: str, spec: Any) -> bytes:
    with suppress(OSError):
        return Path(file).read_bytes()
    return bytes(spec.loader.get_data(file)) if hasattr(spec, "loader") else b""  # in a zip file


@cache
def _folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    found = {os.path.join(paths[name], "") for name in names}  # noqa: PTH118 - a prefix of texts
    return tuple(found | {os.path.join(os.path.realpath(one), "") for one in found})  # noqa: PTH118


def _tree(data: bytes) -> ast.Module | None:
    if len(data) > _TREE_BYTES:
        return None
    try:
        return ast.parse(data)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # a template, another Python
        return None


def _acts(statement: ast.stmt) -> bool:
    """Return whether a statement is more than a docstring or `pass`."""
    is_text = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return not (is_text or isinstance(statement, ast.Pass))


def _walk(tree: ast.Module) -> tuple[bytes, list[Import]]:
    """Encode a syntax tree independently of the Python version, and find its imports.

    Without recursion: a sum of a thousand terms is as deep.
    """
    written: list[bytes] = []
    imports: list[Import] = []
    stack: list[ast.AST | bytes] = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, bytes):
            written.append(node)
            continue
        written.append(_name_of(type(node)))
        if isinstance(node, _VALUES):
            written.append(_constant(node.value))
            continue
        if isinstance(node, ast.Import):
            imports += [Import(alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = tuple(alias.name for alias in node.names)
            imports.append(Import(node.module or "", names, node.level))
        elif isinstance(node, ast.Call):
            imports += _dynamic_import(node)
        stack.append(b")")
        for name in reversed(node._fields):
            value: Any = getattr(node, name, None)
            if value is None or value == [] or name in _PASSED_OVER:
                continue
            if isinstance(value, list):
                stack.append(b"]")
                stack += [_item(one) for one in reversed(value)]
            else:
                stack.append(_item(value))
            stack.append(b"(" + name.encode())
    return b"\n".join(written), imports


@cache
def _name_of(kind: type) -> bytes:
    return kind.__name__.encode()


def _item(value: Any) -> ast.AST | bytes:
    return value if isinstance(value, ast.AST) else _constant(value)


def _constant(value: Any) -> bytes:
    if isinstance(value, str):
        data = value.encode("utf-8", "surrogatepass")
    elif isinstance(value, bytes):
        data = value
    elif type(value) is int:
        data = b"%x" % value  # `repr` refuses very long ones
    else:
        data = repr(value).encode()
    return b"%s %d %s" % (type(value).__name__.encode(), len(data), data)


def _dynamic_import(call: ast.Call) -> list[Import]:
    """Return what `import_module("name")` imports."""
    name = getattr(call.func, "attr", None) or getattr(call.func, "id", None)
    first = call.args[0] if call.args else None
    if name not in ("import_module", "__import__") or not isinstance(first, ast.Constant):
        return []
    text = first.value
    if not isinstance(text, str):
        return []
    return [Import(text.lstrip("."), level=len(text) - len(text.lstrip(".")))]


def _imports_by_line(text: bytes) -> list[Import]:
    imports: list[Import] = []
    for line in _IMPORT_LINE.findall(text):
        with suppress(SyntaxError, ValueError):
            imports += _walk(ast.parse(line.strip()))[1]
    return imports
