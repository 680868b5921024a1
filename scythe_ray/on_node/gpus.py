"""The GPUs that a leaf sees, and whether a process may run another leaf with them. Needs no Ray."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager

from scythe.outcomes import BatchResult, LeafFailure, LeafOutcome

_VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")


class ProcessGpus:
    """The state in which leaves have left the GPUs of this process.

    A library that has seen a GPU keeps to it, and keeps some of its memory, until the process
    ends; after some errors it refuses all further work.
    """

    def __init__(self) -> None:
        self._seen: tuple[str | None, ...] | None = None
        self._is_sound = True

    def suit(self) -> bool:
        """Return whether a leaf may run here with the GPUs that Ray shows this process now."""
        return self._is_sound and self._seen in (None, _shown())

    def used_by(self, outcome: LeafOutcome) -> None:
        """Note that a leaf, or a batch of leaves, has run with the GPUs shown now."""
        self._seen = _shown()
        failed = outcome.n_failed if isinstance(outcome, BatchResult) else 0
        if failed or isinstance(outcome, LeafFailure):
            self._is_sound = False


@contextmanager
def gpus_hidden() -> Generator[None]:
    """Hide all GPUs from a leaf that asked for none: Ray by itself would show it all of them."""
    before: Mapping[str, str | None] = {name: os.environ.get(name) for name in _VISIBLE}
    os.environ.update(dict.fromkeys(_VISIBLE, ""))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _shown() -> tuple[str | None, ...]:
    return tuple(map(os.environ.get, _VISIBLE))
