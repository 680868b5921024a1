"""Access to the SDK's `Standalone`, the object of a single-task workflow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scythe.engine.client import client, engine_explained

_ATTRIBUTES = ("_client", "_config", "_task", "_workflow")  # set on its instances


def has_attribute(name: str) -> bool:
    """Return whether a `Standalone` has an attribute of this name."""
    from hatchet_sdk.runnables.workflow import Standalone

    return name in _ATTRIBUTES or hasattr(Standalone, name)


def start_many(standalone: Any, items: Sequence[Any]) -> list[Any]:
    """Start runs, and return the SDK's references to them.

    Raises:
        EngineError: The engine cannot be reached, or refuses it.
    """
    with engine_explained():
        started = standalone.run_many(list(items), wait_for_result=False)
    return [run_reference(run.workflow_run_id) for run in started]


def run_reference(workflow_run_id: str) -> Any:
    """Return the SDK's reference to a run."""
    return client().runs.get_run_ref(workflow_run_id)


def run_input(workflow_run_id: str) -> dict[str, Any]:
    """Return the input with which a run was started."""
    return dict(client().runs.get(workflow_run_id).run.input["input"])


def is_in_durable_task() -> bool:
    """Return whether this runs in a durable task of the user's, so that waits are durable."""
    from hatchet_sdk.runnables.contextvars import ctx_durable_context

    return ctx_durable_context.get() is not None


async def durable_outputs(standalone: Any, items: Sequence[Any]) -> list[dict[str, Any]]:
    """Start runs and wait durably for them, in a durable task; an error becomes `{"error": …}`."""
    workflow = standalone._workflow  # noqa: SLF001 - the `Standalone` itself would convert the results
    outputs = await workflow.aio_run_many(list(items), return_exceptions=True)
    return [
        output if isinstance(output, dict) else {"error": "\n".join(map(str, _causes(output)))}
        for output in outputs
    ]


def _causes(error: BaseException) -> Sequence[BaseException]:
    return getattr(error, "exceptions", None) or (error,)
