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

    def worker(
        self,
        name: str,
        slots: int | None = 100,
        durable_slots: int | None = 1000,
        **options: Any,
    ) -> Any:
        """Make a Hatchet worker, with slots for leaves and for scatter nodes unless told otherwise.

        What it serves may be registered later, so that the SDK cannot know which it needs.
        """
        make = self.__getattr__("worker")
        return make(name, slots=slots, durable_slots=durable_slots, **options)


hatchet: Any = LazyHatchet()
