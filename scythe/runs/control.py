"""Stop a run, or let it pause."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from scythe.errors import RegistrationError
from scythe.runs.reading import RunReader
from scythe.scatter.pause import put_pause, remove_pause
from scythe.status import RunStatus


class RunControl(RunReader):
    """Adds the control of a run to a class that reads it."""

    def cancel(self, grace: timedelta = timedelta(0)) -> RunStatus:
        """Stop the run, and gather the leaves that have finished.

        The others become rows of `errors`. A run that is over stays as it is.

        Args:
            grace: How long running leaves may continue before they are ended.

        Returns:
            The last status; its state is `cancelled` unless the run had ended before.

        Raises:
            EngineError: Hatchet did not accept the cancellation.
        """
        from scythe.runs.ending import cancel_run

        status = self.last_status()
        if status.state == "not_started":  # nothing is there to stop
            return status
        return cancel_run(self.store(), self.layout, grace)

    async def aio_cancel(self, grace: timedelta = timedelta(0)) -> RunStatus:
        """Stop the run, and gather the leaves that have finished; see `cancel`."""
        return await asyncio.to_thread(self.cancel, grace)

    def pause(self) -> RunStatus:
        """Let no further leaf begin until `resume`; those that run go on to their end.

        It takes a few seconds until no worker begins a leaf. A batch stops after its running leaf.
        Leaves that wait are taken out of Hatchet's queue. A run that is over stays as it is.

        Returns:
            The status; its state is `paused` unless the run had ended before.

        Raises:
            RegistrationError: It is a run of a Hatchet task of the user's own.
        """
        manifest = self.manifest()
        status = self.last_status()
        if status.is_over:
            return status
        if manifest.code is None and manifest.labels is None:
            run_id = self.layout.experiment_id
            raise RegistrationError(
                f"{manifest.experiment_name} is a Hatchet task of your own, whose leaves Hatchet "
                f"hands out itself, so the run cannot pause. Cancel it: scythe cancel {run_id}"
            )
        put_pause(self.store(), self.layout)
        return status.model_copy(update={"state": "paused"})

    async def aio_pause(self) -> RunStatus:
        """Let no further leaf begin; see `pause`."""
        return await asyncio.to_thread(self.pause)

    def resume(self) -> RunStatus:
        """Let a paused run go on, from wherever it was paused.

        Returns:
            The status. A run that was not paused stays as it is.
        """
        self.manifest()  # raises where there is no such run
        remove_pause(self.store(), self.layout)
        return self.last_status()

    async def aio_resume(self) -> RunStatus:
        """Let a paused run go on; see `resume`."""
        return await asyncio.to_thread(self.resume)
