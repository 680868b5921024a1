"""The floor: a bare Hatchet program of the same shape as Scythe's, without Scythe.

`python -m benchmarks.floor NAME fan|leaf SLOTS` serves one role.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from typing import Any

from hatchet_sdk import ClientConfig, Context, DurableContext, Hatchet
from hatchet_sdk.runnables.eviction import EvictionPolicy
from pydantic import BaseModel

from scythe.engine.client import register_missing
from scythe.engine.sdk_logs import quiet_logger
from scythe.scatter.references import RunRef

_SLICE = 900
hatchet = Hatchet(config=ClientConfig(logger=quiet_logger()))


class FloorInput(BaseModel):
    x: int = 0


class FloorFan(BaseModel):
    n: int


def _double(x: int) -> int:
    return 2 * x


class Floor:
    """The tasks of the program.

    Args:
        name: Begins their names.
        double: What a leaf does, as a remote function; without it, the leaf does it itself.
    """

    def __init__(self, name: str, double: Any = None) -> None:
        @hatchet.task(
            name=f"{name}_leaf",
            input_validator=FloorInput,
            execution_timeout=timedelta(minutes=1),
            schedule_timeout=timedelta(hours=1),
        )
        async def leaf(payload: FloorInput, ctx: Context) -> dict[str, int]:
            return {"y": _double(payload.x) if double is None else await double.remote(payload.x)}

        @hatchet.durable_task(
            name=f"{name}_fan",
            input_validator=FloorFan,
            execution_timeout=timedelta(hours=1),
            schedule_timeout=timedelta(hours=1),
            eviction_policy=EvictionPolicy(ttl=None, allow_capacity_eviction=False),
        )
        async def fan(payload: FloorFan, ctx: DurableContext) -> dict[str, int]:
            items = [
                leaf.create_bulk_run_item(input=FloorInput(x=i), child_key=str(i))
                for i in range(payload.n)
            ]
            parts = [items[i : i + _SLICE] for i in range(0, len(items), _SLICE)]
            results: list[Any] = await asyncio.gather(*[leaf.aio_run_many(part) for part in parts])
            return {"total": sum(len(part) for part in results)}

        self.leaf, self.fan = leaf, fan

    def register(self) -> None:
        """Make the tasks known to the engine."""
        for task in (self.fan, self.leaf):
            register_missing(task.name, lambda task=task: task)

    def run(self, n: int) -> None:
        """Run a tree of n leaves."""
        reference: Any = self.fan.run(FloorFan(n=n), wait_for_result=False)
        total = RunRef(reference, lambda payload: payload["total"]).result(timeout=600)
        if total != n:
            raise SystemExit("the floor lost leaves")


def serve(name: str, role: str, slots: int) -> None:
    """Serve one role of the program, on Ray if its name ends so."""
    double: Any = None
    if role == "leaf" and name.endswith("ray"):
        import ray

        ray.init(address="local", num_cpus=slots, include_dashboard=False)
        double = ray.remote(_double)
    floor = Floor(name, double)
    # A leaf worker that offers durable slots as well gets new leaves only once a second.
    pools = {"durable_slots": 1000} if role == "fan" else {"slots": slots, "durable_slots": 0}
    task: Any = floor.fan if role == "fan" else floor.leaf
    hatchet.worker(f"{name}-{role}", workflows=[task], **pools).start()


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], int(sys.argv[3]))
