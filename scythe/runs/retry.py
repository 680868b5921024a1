"""Run some leaves of a run that is over again: a new run, with the tables of all leaves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scythe.errors import NothingToRetryError, RunGoesOnError, SpecError
from scythe.runs.advice import is_own_failure
from scythe.runs.prepared import Prepared
from scythe.runs.reuse import FinishedRun, no_such_leaf, with_experiment_id
from scythe.status import RunStatus
from scythe.storage.artifacts import InputArtifacts
from scythe.storage.layout import RunLayout
from scythe.storage.store import Store

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class RetryChoice:
    """Which leaves run again.

    Attributes:
        failed: Those whose own code failed, crashed, took too long or too much memory.
        missing: The others without a result: cancelled, not begun, or their place was lost.
        leaves: Those with these numbers, also if they ended well.
    """

    failed: bool
    missing: bool
    leaves: frozenset[int]

    @classmethod
    def of(cls, failed: bool | None, missing: bool, leaves: Iterable[int] | None) -> RetryChoice:
        """Return a choice; see `ExperimentRun.retry`."""
        is_default = leaves is None and not missing
        return cls(is_default if failed is None else failed, missing, frozenset(leaves or ()))

    def mask(self, run: FinishedRun) -> Any:
        """Return for each leaf of a run whether it runs again.

        Leaves with one number run again together: their rows cannot be told apart.

        Raises:
            SpecError: The run has none of these leaves.
            NothingToRetryError: No leaf is chosen.
        """
        import numpy as np

        numbers = run.numbers
        unknown = sorted(self.leaves.difference(numbers.tolist()))
        if unknown:
            raise no_such_leaf(run.layout, *unknown)
        is_chosen = np.isin(numbers, list(self.leaves))
        is_user = np.asarray(_is_users(run.errors), bool)
        is_chosen[~run.is_done] |= np.where(is_user, self.failed, self.missing)
        if not is_chosen.any():
            n_failed, n_missing = int(is_user.sum()), int((~is_user).sum())
            raise NothingToRetryError(run.layout.experiment_id, n_failed, n_missing)
        return np.isin(numbers, numbers[is_chosen])


def check_has_manifest(store: Store, layout: RunLayout) -> None:
    """Raise if the allocation or the deletion of a run was interrupted, or goes on.

    Raises:
        SpecError: It has no manifest.
    """
    if store.find_bytes(layout.manifest) is None:
        name = layout.experiment_id
        raise SpecError(
            f"Run {name} has no manifest: its allocation or its deletion goes on, or was "
            f"interrupted. Allocate its specs again; `scythe rm {name}` removes what is left."
        )


def check_is_over(layout: RunLayout, status: RunStatus) -> None:
    """Raise unless leaves of a run can be run again.

    Raises:
        RunGoesOnError: It is not over.
        SpecError: It was never started.
    """
    name = layout.experiment_id
    if not status.is_over:
        raise RunGoesOnError(
            f"Run {name} is {status.state}, so that it is not known which leaves to run again. "
            "Wait for it, or cancel it first."
        )
    if status.state == "not_started":
        raise SpecError(f"Run {name} was never started. Allocate its specs again.")


def _is_users(errors: pa.Table) -> list[bool]:
    """Return for each failed leaf whether its own code, or what that needs, ended it."""
    return [is_own_failure(row) for row in errors.select(["kind", "type"]).to_pylist()]


def prepare_retry(source: FinishedRun, is_chosen: Any, layout: RunLayout, folder: Path) -> Prepared:
    """Prepare a run of some leaves of another run, which takes the others over.

    Args:
        source: The other run.
        is_chosen: For each of its leaves, whether it runs again.
        layout: The keys of the new run.
        folder: Where its files are kept meanwhile.
    """
    import numpy as np

    specs = folder / "specs.pq"
    with_experiment_id(source.specs, specs, source.layout.experiment_id, layout.experiment_id)
    n_leaves = len(is_chosen)
    return Prepared(
        first=None,
        file=specs,
        n_specs=n_leaves,
        io_spec=source.io_spec,
        artifacts=InputArtifacts(layout),  # none: those of the other run are used
        reuse=source.give(np.where(is_chosen, -1, np.arange(n_leaves)), specs),
        input_artifacts=source.manifest.input_artifacts,
    )
