"""Import an example's modules as its scripts do, and leave no trace of them."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from scythe.registry import ExperimentRegistry

EXAMPLES = Path(__file__).parent.parent / "examples"


@contextmanager
def example_on_path(name: str) -> Generator[Path]:
    """Let modules of `examples/<name>` be imported; both examples have a package `experiments`."""
    folder = EXAMPLES / name
    registered = dict(ExperimentRegistry._experiments)
    sys.path.insert(0, str(folder))
    try:
        yield folder
    finally:
        sys.path.remove(str(folder))
        for module, loaded in list(sys.modules.items()):
            if str(getattr(loaded, "__file__", None) or "").startswith(f"{folder}/"):
                del sys.modules[module]
        ExperimentRegistry._experiments.clear()
        ExperimentRegistry._experiments.update(registered)
