"""Import the modules of an example or an app as its scripts do, and leave no trace of them."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from scythe.registry import ExperimentRegistry

EXAMPLES = Path(__file__).parent.parent / "examples"


@contextmanager
def example_on_path(name: str) -> Generator[Path]:
    """Let modules of `examples/<name>` be imported."""
    with folder_on_path(EXAMPLES / name):
        yield EXAMPLES / name


@contextmanager
def folder_on_path(folder: Path) -> Generator[None]:
    """Let modules of a folder be imported; several of them have a package `experiments`."""
    registries = (ExperimentRegistry._experiments, ExperimentRegistry._included)
    before = [dict(registry) for registry in registries]
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for module, loaded in list(sys.modules.items()):
            if str(getattr(loaded, "__file__", None) or "").startswith(f"{folder}/"):
                del sys.modules[module]
        for registry, entries in zip(registries, before, strict=True):
            registry.clear()
            registry.update(entries)
