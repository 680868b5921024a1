"""The options of an experiment, and the definition of its Hatchet task."""

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
    """The options of an experiment; `ExperimentRegistry.Register` describes them."""

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
    reusable: bool = True
    max_running: int | None = None
    task_config: Mapping[str, Any] = field(default_factory=dict[str, Any])


class LeafDefinition(Protocol):
    """The data from which the Hatchet task of an experiment's leaves is made."""

    @property
    def name(self) -> str:
        """The name of the task."""
        ...

    @property
    def description(self) -> str:
        """The description of the experiment."""
        ...

    @property
    def options(self) -> ExperimentOptions:
        """The options of the experiment."""
        ...

    @property
    def execution_timeout(self) -> timedelta:
        """The time limit of one attempt of a leaf."""
        ...

    @property
    def schedule_timeout(self) -> timedelta:
        """The time for which a leaf may wait for a slot."""
        ...
