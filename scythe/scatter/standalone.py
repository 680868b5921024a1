"""The methods of Hatchet's `Standalone`, for tasks whose payloads Scythe encodes."""

from __future__ import annotations

import asyncio
import inspect
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Generic, Literal, TypeVar, overload
from weakref import WeakKeyDictionary

from pydantic import BaseModel

from scythe.engine.client import client
from scythe.engine.standalone import (
    durable_outputs,
    has_attribute,
    is_in_durable_task,
    run_reference,
    start_many,
)
from scythe.messages import find_payload
from scythe.scatter.references import RunRef

ResultT = TypeVar("ResultT")
_TAKE_INPUT = ("create_bulk_run_item", "schedule", "aio_schedule", "create_cron", "aio_create_cron")
_made: WeakKeyDictionary[Any, tuple[Any, Any]] = WeakKeyDictionary()  # apart: tasks are pickled


class HatchetTask(Generic[ResultT]):
    """A task with the interface of Hatchet's `Standalone`.

    Everything that is not defined here is delegated to the SDK's object, made on first use.

    Attributes:
        name: The name of the task in Hatchet.
    """

    name: str

    def make_standalone(self) -> Any:
        """Make the SDK's object; a worker made with Hatchet's SDK runs its function."""
        raise NotImplementedError

    def make_known(self) -> None:
        """Register the task with the engine, if no worker has done so."""
        raise NotImplementedError

    def payload(self, given: Any) -> BaseModel:
        """Encode an input for Hatchet."""
        raise NotImplementedError

    def metadata(self, payload: Any) -> dict[str, Any]:
        """Return the metadata of every run with this input."""
        raise NotImplementedError

    def read_output(self, output: dict[str, Any], sent: str | None) -> ResultT:
        """Decode the output of a run that has ended.

        Args:
            output: The output; `{"error": text}` where the task failed.
            sent: Its encoded input as JSON; None if unknown.
        """
        raise NotImplementedError

    @property
    def standalone(self) -> Any:
        """The SDK's object."""
        hatchet = client()
        known = _made.get(self)
        if known is None or known[0] is not hatchet:
            known = _made[self] = (hatchet, self.make_standalone())
        return known[1]

    @property
    def client(self) -> Any:
        """The Hatchet client."""
        return client()

    @property
    def config(self) -> Any:
        """The task's configuration in the SDK, whose own property causes a warning."""
        return self.standalone._config  # noqa: SLF001

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or not has_attribute(name):
            msg = f"{type(self).__name__!r} object has no attribute {name!r}"
            raise AttributeError(msg)
        found = getattr(self.standalone, name)
        return self._sending_payloads(found) if name in _TAKE_INPUT else found

    @property
    def __class__(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The SDK's class once the SDK is imported, which serves only its own `Standalone`."""
        sdk = sys.modules.get("hatchet_sdk.runnables.workflow")
        return getattr(sdk, "Standalone", type(self))

    def __copy__(self) -> HatchetTask[ResultT]:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> HatchetTask[ResultT]:
        return self

    @overload
    def run(
        self,
        input: Any,
        options: Any = None,
        wait_for_result: Literal[True] = True,
        **trigger: Any,
    ) -> ResultT: ...

    @overload
    def run(
        self, input: Any, options: Any = None, *, wait_for_result: Literal[False], **trigger: Any
    ) -> RunRef[ResultT]: ...

    def run(
        self,
        input: Any,  # noqa: A002 - the SDK's name
        options: Any = None,
        wait_for_result: bool = True,
        **trigger: Any,
    ) -> ResultT | RunRef[ResultT]:
        """Start one run and wait for its result.

        Args:
            input: The input.
            options: Hatchet's `TriggerWorkflowOptions`.
            wait_for_result: Whether to wait; otherwise a reference is returned.
            **trigger: The options as keywords: `additional_metadata`, `priority`, `child_key`, …

        Raises:
            LeafFailed: The leaf failed its last attempt.
            EngineError: The engine cannot be reached, or the run failed as a whole.
        """
        item = self.create_bulk_run_item(input, options=options, **trigger)
        return self.run_many([item], wait_for_result=wait_for_result)[0]

    async def aio_run(
        self,
        input: Any,  # noqa: A002 - the SDK's name
        options: Any = None,
        wait_for_result: bool = True,
        **trigger: Any,
    ) -> Any:
        """Start one run and await its result; see `run`."""
        item = await asyncio.to_thread(self.create_bulk_run_item, input, options=options, **trigger)
        return (await self.aio_run_many([item], wait_for_result=wait_for_result))[0]

    def run_no_wait(
        self,
        input: Any,  # noqa: A002 - the SDK's name
        options: Any = None,
        **trigger: Any,
    ) -> RunRef[ResultT]:
        """Start one run and return a reference with `result()` and `aio_result()`."""
        return self.run(input, options, wait_for_result=False, **trigger)

    async def aio_run_no_wait(
        self,
        input: Any,  # noqa: A002 - the SDK's name
        options: Any = None,
        **trigger: Any,
    ) -> RunRef[ResultT]:
        """Start one run and return a reference with `result()` and `aio_result()`."""
        return await self.aio_run(input, options, wait_for_result=False, **trigger)

    def run_many(
        self,
        workflows: Sequence[Any],
        return_exceptions: bool = False,
        wait_for_result: bool = True,
    ) -> list[Any]:
        """Start many runs and wait for their results.

        Args:
            workflows: Items made by `create_bulk_run_item`.
            return_exceptions: Whether to return the error of a run in place of its result.
            wait_for_result: Whether to wait; otherwise references are returned.
        """
        self.make_known()
        started = start_many(self.standalone, workflows)
        references = [
            self._reference(run, item.input) for run, item in zip(started, workflows, strict=True)
        ]
        if not wait_for_result:
            return references
        return [_result(one.result, catch=return_exceptions) for one in references]

    async def aio_run_many(
        self,
        workflows: Sequence[Any],
        return_exceptions: bool = False,
        wait_for_result: bool = True,
    ) -> list[Any]:
        """Start many runs and await their results; see `run_many`."""
        if wait_for_result and is_in_durable_task():
            await asyncio.to_thread(self.make_known)
            outputs = await durable_outputs(self.standalone, workflows)
            return [
                _result(self._reader(item.input), find_payload(output), catch=return_exceptions)
                for output, item in zip(outputs, workflows, strict=True)
            ]
        references = await asyncio.to_thread(self.run_many, workflows, wait_for_result=False)
        if not wait_for_result:
            return references
        results = (one.aio_result() for one in references)
        return await asyncio.gather(*results, return_exceptions=return_exceptions)

    def run_many_no_wait(self, workflows: Sequence[Any]) -> list[RunRef[ResultT]]:
        """Start many runs and return references to them."""
        return self.run_many(workflows, wait_for_result=False)

    async def aio_run_many_no_wait(self, workflows: Sequence[Any]) -> list[RunRef[ResultT]]:
        """Start many runs and return references to them."""
        return await self.aio_run_many(workflows, wait_for_result=False)

    def get_run_ref(self, run_id: str) -> RunRef[ResultT]:
        """Return a reference to an earlier run, by its id."""
        return self._reference(run_reference(run_id), None)

    def get_result(self, run_id: str) -> ResultT:
        """Wait for an earlier run, and return its result."""
        return self.get_run_ref(run_id).result()

    async def aio_get_result(self, run_id: str) -> ResultT:
        """Await the result of an earlier run."""
        return await self.get_run_ref(run_id).aio_result()

    def _reference(self, run: Any, sent: str | None) -> RunRef[ResultT]:
        return RunRef(run, self._reader(sent))

    def _reader(self, sent: str | None) -> Callable[[dict[str, Any]], ResultT]:
        return lambda output: self.read_output(output, sent)

    def _sending_payloads(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a method of the SDK so that it takes inputs before they are encoded."""

        def call(*args: Any, **kwargs: Any) -> Any:
            given = inspect.signature(method).bind(*args, **kwargs).arguments
            given["input"] = payload = self.payload(given.get("input"))
            options = given.get("options")
            theirs = options.additional_metadata if options else given.get("additional_metadata")
            metadata = {**self.metadata(payload), **(theirs or {})}
            if options:
                given["options"] = options.model_copy(update={"additional_metadata": metadata})
            else:
                given["additional_metadata"] = metadata
            with warnings.catch_warnings():
                # The SDK prefers keywords; scripts for scythe-engine pass one options object.
                warnings.simplefilter("ignore", DeprecationWarning)
                return method(**given)

        return call


def _result(read: Callable[..., Any], *args: Any, catch: bool) -> Any:
    try:
        return read(*args)
    except Exception as error:
        if catch:
            return error
        raise
