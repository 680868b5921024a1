"""Propagates capacity changes to labels and slots."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from scythe.errors import EngineError
from scythe.executor import Capacity
from scythe.worker_processes.process_spec import ProcessReady, ProcessSpec

_SETTLED = 5.0  # seconds without a change after which slots follow; nodes come in groups
_AGAIN = 30.0
_LABELS_AGAIN = 2.0

logger = logging.getLogger("scythe.worker")


def offer_of(capacity: Capacity, plan: ProcessSpec) -> ProcessReady:
    """Return the message that reports a capacity to the supervisor."""
    return ProcessReady(
        capacity.slots,
        capacity.source,
        {**plan.labels, **capacity.labels},
        capacity.place,
        dict(capacity.shared),
        dict(capacity.environment),
    )


class CapacityWatch:
    """Updates labels in Hatchet, and reports changes of slots to the supervisor.

    Hatchet can change the labels of a worker, but not its slots.

    Args:
        plan: The work of this process.
        update_labels: Changes the labels of its Hatchet worker, or raises `EngineError`.
        registered: The capacity with which it registered.
    """

    def __init__(
        self,
        plan: ProcessSpec,
        update_labels: Callable[[dict[str, str]], None],
        registered: ProcessReady,
    ) -> None:
        self._plan = plan
        self._registered = registered
        self._update_labels = update_labels
        self._capacity: Capacity | None = None
        self._labels = registered.labels
        self._said = registered
        self._labels_due = self._settled = self._due = 0.0

    def changed(self, capacity: Capacity) -> ProcessReady | None:
        """Return the message for the supervisor, or None if nothing has changed."""
        now = time.monotonic()
        offer = offer_of(capacity, self._plan)
        self._follow_labels(offer.labels, now)
        if self._capacity is None or capacity.slots != self._capacity.slots:
            self._settled = now + _SETTLED
        self._capacity = capacity
        if now < self._settled and offer.shared == self._said.shared:
            return None
        overdue = offer.slots != self._registered.slots and now >= self._due
        if offer == self._said and not overdue:
            return None
        self._said = offer
        self._due = now + _AGAIN
        return offer

    def _follow_labels(self, labels: dict[str, str], now: float) -> None:
        if labels == self._labels or now < self._labels_due:
            return
        try:
            self._update_labels(labels)
        except EngineError as error:
            self._labels_due = now + _LABELS_AGAIN
            logger.warning(
                "Cannot update the labels of %s, trying again: %s", self._plan.name, error
            )
            return
        self._labels = labels
        said = ", ".join(f"{name}={value}" for name, value in labels.items())
        logger.info("Labels of %s: %s.", self._plan.name, said or "none")
