"""The floor: a bare Hatchet program of the same shape as Scythe's, without Scythe.

`python -m benchmarks.floor fan|leaf SLOTS [ray]` serves one role, leaves also on Ray; `run(n)`
starts a tree of n leaves.
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
from scythe.nodes.references import wait_for_end

_SLICE = 900
_on_ray: Any = None  # what a leaf does, as a remote function, in a worker that has Ray
hatchet = Hatchet(config=ClientConfig(logger=quiet_logger()))


class FloorInput(BaseModel):
    x: int = 0


class FloorFan(BaseModel):
    n: int


def _double(x: int) -> int:
    return 2 * x


@hatchet.task(
    name="floor_leaf",
    input_validator=FloorInput,
    execution_timeout=timedelta(minutes=1),
    schedule_timeout=timedelta(hours=1),
)
async def floor_leaf(payload: FloorInput, ctx: Context) -> dict[str, int]:
    return {"y": _double(payload.x) if _on_ray is None else await _on_ray.remote(payload.x)}


@hatchet.durable_task(
    name="floor_fan",
    input_validator=FloorFan,
    execution_timeout=timedelta(hours=1),
    schedule_timeout=timedelta(hours=1),
    eviction_policy=EvictionPolicy(ttl=None, allow_capacity_eviction=False),
)
async def floor_fan(payload: FloorFan, ctx: DurableContext) -> dict[str, int]:
    items = [
        floor_leaf.create_bulk_run_item(input=FloorInput(x=i), child_key=str(i))
        for i in range(payload.n)
    ]
    parts = [items[i : i + _SLICE] for i in range(0, len(items), _SLICE)]
    results: list[Any] = await asyncio.gather(*[floor_leaf.aio_run_many(part) for part in parts])
    return {"total": sum(len(part) for part in results)}


def run(n: int) -> None:
    for task in (floor_fan, floor_leaf):
        register_missing(task.name, lambda task=task: task)
    reference: Any = floor_fan.run(FloorFan(n=n), wait_for_result=False)
    wait_for_end(reference.workflow_run_id, timeout=600)
    if reference.result()["total"] != n:
        raise SystemExit("the floor lost leaves")


if __name__ == "__main__":
    role, slots = sys.argv[1], int(sys.argv[2])
    task = floor_fan if role == "fan" else floor_leaf
    if sys.argv[3:]:
        import ray

        ray.init(address="local", num_cpus=slots, include_dashboard=False)
        _on_ray = ray.remote(_double)
    # A leaf worker that offers durable slots as well gets new leaves only once a second.
    pools = {"durable_slots": 1000} if role == "fan" else {"slots": slots, "durable_slots": 0}
    hatchet.worker(f"floor-{role}", workflows=[task], **pools).start()
