"""Controls the GPUs that a leaf sees, and the reuse of a process with GPUs. Needs no Ray."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager

from scythe.outcomes import BatchResult, LeafFailure, LeafOutcome

_VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")


class ProcessGpus:
    """The state in which leaves have left the GPUs of this process.

    A GPU library is bound to the GPUs that it saw first, and keeps some of their memory until the
    process ends. After some errors it refuses all further work.
    """

    def __init__(self) -> None:
        self._seen: tuple[str | None, ...] | None = None
        self._is_sound = True

    def suit(self) -> bool:
        """Return whether a leaf may run here with the GPUs that Ray now assigns to this process."""
        return self._is_sound and self._seen in (None, _shown())

    def used_by(self, outcome: LeafOutcome) -> None:
        """Record that a leaf or batch has run with the present GPUs."""
        self._seen = _shown()
        failed = outcome.n_failed if isinstance(outcome, BatchResult) else 0
        if failed or isinstance(outcome, LeafFailure):
            self._is_sound = False


@contextmanager
def gpus_hidden() -> Generator[None]:
    """Hide all GPUs from a leaf that asked for none; Ray would show it all of them."""
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
