"""Run a run again, or some of its leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any, Literal, Self, TypedDict

from scythe.errors import ExperimentRunNotFoundError, RegistrationError
from scythe.experiment import Experiment
from scythe.runs.allocate import Allocation
from scythe.runs.allocation_options import AllocationOptions
from scythe.runs.reading import RunReader
from scythe.runs.retry import RetryChoice, check_has_manifest, check_is_over
from scythe.runs.reuse import read_leaf_spec
from scythe.single import mock_single
from scythe.specs.codec import decode_spec
from scythe.storage.fetch import set_default_store
from scythe.storage.layout import RunLayout
from scythe.tables.gather import LEAVES


class RunOptions(TypedDict, total=False):
    """Further keywords of `allocate`; see there."""

    reuse: RunRepeats | str | None
    description: str
    tags: Iterable[str]
    priority: Literal[1, 2, 3] | None
    max_failures: float | None


class RunRepeats(RunReader):
    """Adds the running of leaves to a class that reads a run."""

    @property
    def runnable(self) -> Any:
        """The experiment, or the Hatchet task or workflow."""
        raise NotImplementedError

    def another(self) -> Any:
        """Return a run of the same version that is allocated now."""
        raise NotImplementedError

    def retry(
        self,
        failed: bool | None = None,
        missing: bool = False,
        leaves: Iterable[int] | None = None,
        s3_client: Any = None,
    ) -> Self:
        """Run some leaves again, with the code that the workers have now.

        They run as a new run of the same version, whose tables have all leaves. This run stays as
        it is; it must be kept as long as the new one, which uses its files.

        Args:
            failed: Whether leaves run again whose own code failed, crashed, or took too long; by
                default if nothing else is asked for.
            missing: Whether leaves run again that have no result for another reason: the run was
                cancelled or reached its limit, a worker or a machine was lost, or they never began.
            leaves: Numbers of further leaves that run again, as in the column `leaf` of `errors()`.
            s3_client: A boto3 client to use instead of Scythe's own.

        Returns:
            The new run.

        Raises:
            RunGoesOnError: The run is not over.
            NothingToRetryError: There is nothing to run again.
        """
        store = self.store(s3_client)
        check_has_manifest(store, self.layout)
        check_is_over(self.layout, self.status())
        allocation = Allocation(self.runnable, store, AllocationOptions())
        choice = RetryChoice.of(failed, missing, leaves)
        run, _ = allocation.start_again(self.layout, choice, self.another())
        return run

    async def aio_retry(
        self,
        failed: bool | None = None,
        missing: bool = False,
        leaves: Iterable[int] | None = None,
        s3_client: Any = None,
    ) -> Self:
        """Run some leaves again; see `retry`."""
        return await asyncio.to_thread(self.retry, failed, missing, leaves, s3_client)

    def call_here(self, leaf: int) -> Any:
        """Call the experiment with the spec of one leaf in this process, for a debugger.

        Its input files are fetched first. What it raises is raised here. Nothing is stored: output
        files are gone when this returns.

        Args:
            leaf: The number of the leaf, as in the column `leaf` of `errors()`.

        Returns:
            What the experiment returned, with its tables.

        Raises:
            SpecError: The run has no such leaf.
            RegistrationError: It is a run of a Hatchet task of the user's own.
        """
        experiment: Any = self.runnable
        cls = experiment.input_validator_type  # raises where the code is not imported here
        if not isinstance(experiment, Experiment):
            raise RegistrationError(
                f"{experiment.name} is a Hatchet task of your own. Call its function directly."
            )
        store = self.store()
        spec = decode_spec(cls, read_leaf_spec(store, self.layout, leaf))
        set_default_store(store.config)
        return mock_single(experiment, spec)


def find_reused(base: Any, reuse: Any, s3_client: Any) -> RunLayout | None:
    """Return the run whose leaves are taken over; None where there is none yet.

    Args:
        base: The experiment in the bucket.
        reuse: What `allocate` was given.
        s3_client: See there.

    Raises:
        ExperimentRunNotFoundError: There is no such run.
        RunGoesOnError: It is not over.
    """
    if reuse is None:
        return None
    if reuse == "latest":
        return next(finished_runs(base, s3_client), None)
    run = _find_run(base, reuse, s3_client) if isinstance(reuse, str) else reuse
    run.manifest()  # raises where it is not there
    check_is_over(run.layout, run.status())
    return run.layout


def finished_runs(base: Any, s3_client: Any) -> Iterator[RunLayout]:
    """Yield the runs of an experiment that have the tables of all leaves, the latest first."""
    versions = sorted(base.list_versions(s3_client), key=lambda one: one.version, reverse=True)
    for version in versions:
        runs = version.list_runs(s3_client)
        for run in sorted(runs, key=lambda one: one.timestamp, reverse=True):
            key = run.layout.final_table(LEAVES)
            if run.status().is_over and any(run.store(s3_client).list_keys(key)):
                yield run.layout


def _find_run(base: Any, experiment_id: str, s3_client: Any) -> Any:
    """Return a run by its id, also one below another `run_name`."""
    name, version, time = ["", "", *experiment_id.rsplit("/", 2)][-3:]
    versions = base.model_copy(update={"run_name": name}).list_versions(s3_client) if name else []
    for one in versions:
        for run in one.list_runs(s3_client):
            if run.experiment_id == experiment_id:
                return run
    raise ExperimentRunNotFoundError(name, version, time)
