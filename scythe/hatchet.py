"""The Hatchet client of this process, built on first use."""

from __future__ import annotations

from typing import Any


class LazyHatchet:
    """Stands for the Hatchet client, and makes it when something of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        from scythe.engine.client import client

        return getattr(client(), name)


hatchet: Any = LazyHatchet()
