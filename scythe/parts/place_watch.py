"""Follows what the place of a part's leaves offers while the part serves."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from scythe.errors import EngineError
from scythe.executor import Capacity
from scythe.parts.plan import PartPlan, PartReady

_SETTLED = 5.0  # seconds without a change after which slots follow: nodes come in groups
_AGAIN = 30.0
_LABELS_AGAIN = 2.0

logger = logging.getLogger("scythe.worker")


def offer_of(capacity: Capacity, plan: PartPlan) -> PartReady:
    """Return what a part says of its place."""
    return PartReady(
        capacity.slots,
        capacity.source,
        {**plan.labels, **capacity.labels},
        capacity.place,
        dict(capacity.shared),
        dict(capacity.environment),
    )


class PlaceWatch:
    """Brings labels to Hatchet at once; slots, which only a new worker can have, to the supervisor.

    Args:
        plan: The part's.
        update_labels: Gives its Hatchet worker other labels, or raises `EngineError`.
        registered: What the engine was told.
    """

    def __init__(
        self,
        plan: PartPlan,
        update_labels: Callable[[dict[str, str]], None],
        registered: PartReady,
    ) -> None:
        self._plan = plan
        self._registered = registered
        self._update_labels = update_labels
        self._capacity: Capacity | None = None
        self._labels = registered.labels
        self._said = registered
        self._labels_due = self._settled = self._due = 0.0

    def changed(self, capacity: Capacity) -> PartReady | None:
        """Return what the supervisor should know now, or None if that is nothing new."""
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
            logger.warning("The labels of %s cannot be changed now: %s", self._plan.name, error)
            return
        self._labels = labels
        said = ", ".join(f"{name}={value}" for name, value in labels.items())
        logger.info("%s has the labels %s now.", self._plan.name, said or "of no resource")
