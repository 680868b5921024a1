"""How the leaves of an experiment are run, and what Hatchet must know of an experiment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, Protocol

from scythe.outcomes import LeafResources

LocalFileLocation = Literal["cache", "copied-to-tempdir"]
# What `Register` hands on to Hatchet: the other keywords of the SDK's `hatchet.task`.
TASK_OPTIONS = frozenset(
    {
        *{"on_events", "on_crons", "cron_input", "version", "sticky", "default_priority"},
        *{"concurrency", "rate_limits", "backoff_factor", "backoff_max_seconds", "slot_cost"},
        *{"default_filters", "default_additional_metadata", "idempotency"},
    }
)


@dataclass(frozen=True, slots=True)
class ExperimentOptions:
    """How the leaves of an experiment are run; see `ExperimentRegistry.Register`."""

    description: str | None = None
    desired_worker_labels: Mapping[str, Any] | None = None
    schedule_timeout: timedelta | str | None = None
    execution_timeout: timedelta | str | None = None
    retries: int = 1
    inject_workflow_run_id: bool = True
    auto_fetch_files: bool = True
    local_file_location: LocalFileLocation = "cache"
    resources: LeafResources = field(default_factory=LeafResources)
    batch_size: int | Literal["auto"] | None = None
    task_config: Mapping[str, Any] = field(default_factory=dict[str, Any])


class LeafDefinition(Protocol):
    """What the Hatchet task of an experiment's leaves is made of."""

    @property
    def name(self) -> str:
        """The name of the task."""
        ...

    @property
    def description(self) -> str:
        """What the experiment does."""
        ...

    @property
    def options(self) -> ExperimentOptions:
        """How its leaves are run."""
        ...

    @property
    def execution_timeout(self) -> timedelta:
        """How long one try of a leaf may run."""
        ...

    @property
    def schedule_timeout(self) -> timedelta:
        """How long a leaf may wait for a slot."""
        ...
