"""End a run from outside: cancel it, or finish one whose root is gone."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta

from scythe.engine.lookup import answered
from scythe.errors import RunGoesOnError
from scythe.outcomes import FailureKind
from scythe.runs.folder import minutes_claimed
from scythe.scatter.finish import finish_run
from scythe.scatter.known_leaves import RunPlace
from scythe.scatter.stop import StopRequest, is_being_ended, put_stop
from scythe.status import RunStatus
from scythe.storage.files import split_s3_uri
from scythe.storage.layout import RunLayout
from scythe.storage.manifest import from_yaml
from scythe.storage.store import Store

_ROOT_SECONDS = 8.0  # for a root that runs to begin with the end of its run
_PAUSE = 0.3
_GONE = {
    "CANCELLED": "the run was cancelled in Hatchet, by somebody, or because no worker took its "
    "root within its schedule timeout",
    "FAILED": "the root of the run failed in Hatchet, whose dashboard has its log",
}


def run_place(store: Store, layout: RunLayout, *, with_taken: bool = False) -> RunPlace:
    """Return a run, by its manifest.

    Args:
        store: The bucket of the run.
        layout: Its keys.
        with_taken: Whether its specs are those of all leaves, also of those that it takes from
            another run.
    """
    data = store.find_bytes(layout.manifest)
    fields = from_yaml(data) if data else {}
    uri = fields.get("specs_uri")
    specs = split_s3_uri(str(uri))[1] if uri else layout.specs
    if fields.get("sources") and not with_taken:
        specs = layout.specs_to_run
    run = RunPlace(store, store.config, layout, specs, fields.get("workflow_run_id"))
    if run.root_id is None and (status := run.status()):
        return replace(run, root_id=status.workflow_run_id)  # allocate was killed as it started it
    return run


def cancel_run(store: Store, layout: RunLayout, grace: timedelta) -> RunStatus:
    """Cancel a run and see it to its end; see `ExperimentRun.cancel`."""
    from scythe.engine.client import run_state

    run = run_place(store, layout)
    if run.is_over():
        store.delete_all(layout.intermediate)  # left where the process that ended it was killed
        return _status(run)
    stop = StopRequest(
        state="cancelled",
        kind=FailureKind.CANCELLED,
        message="the run was cancelled",
        grace=grace.total_seconds(),
    )
    stop = put_stop(store, layout, stop)
    deadline = time.monotonic() + _ROOT_SECONDS
    while run.root_id and run_state(run.root_id) == "RUNNING" and time.monotonic() < deadline:
        if is_being_ended(store, layout):
            break
        if run.is_over():
            return _status(run)
        time.sleep(_PAUSE)
    with answered():
        return finish_run(run, stop)


def delete_run(store: Store, layout: RunLayout, status: RunStatus) -> None:
    """Delete all that the bucket has of a run; what is left of an earlier try, too.

    Its manifest and status go first: from then on nothing takes the rest for a run.

    Raises:
        RunGoesOnError: It is not over, or is being allocated.
    """
    name = layout.experiment_id
    if not status.is_over:
        raise RunGoesOnError(
            f"Run {name} is {status.state}, so it is not deleted. Cancel it first: scythe cancel "
            f"{name}"
        )
    minutes = 0 if status.workflow_run_id else minutes_claimed(store, layout)
    if minutes:
        raise RunGoesOnError(
            f"Run {name} is being allocated, or was until that process died, so it is not deleted. "
            f"Try again in {minutes} min, when that is certain."
        )
    for key in (layout.manifest, layout.status):
        store.delete(key)
    store.delete_all(layout.prefix)
    store.delete_all(layout.claims)


def finish_lost_run(store: Store, layout: RunLayout, state: str) -> RunStatus:
    """Write the final tables of a run whose root is over in Hatchet and has not done so.

    Args:
        store: The bucket of the run.
        layout: Its keys.
        state: Hatchet's state of the root.
    """
    run = run_place(store, layout)
    stop = StopRequest(
        state="cancelled" if state == "CANCELLED" else "failed",
        kind=FailureKind.CANCELLED,
        message=_GONE.get(state, f"the run is {state.lower()} in Hatchet and wrote no tables"),
    )
    with answered():
        return finish_run(run, put_stop(store, layout, stop))


def _status(run: RunPlace) -> RunStatus:
    status = run.status()
    assert status is not None
    return status
