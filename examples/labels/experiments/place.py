"""Where a leaf runs, as seen from inside of it."""

from __future__ import annotations

import os
import platform

from pydantic import BaseModel


class Place(BaseModel):
    """Where a leaf runs.

    Attributes:
        host: The machine.
        pid: The process.
        ray_node: Ray's id of the node, shortened; empty outside of Ray.
        assigned: What Ray set aside for the leaf, such as `1 CPU, 1 GPU`.
        cuda_visible_devices: The GPUs that CUDA lets it see.
    """

    host: str
    pid: int
    ray_node: str = ""
    assigned: str = ""
    cuda_visible_devices: str = ""


def this_place() -> Place:
    """Return where this process runs; it need not be a process of Ray's."""
    import ray

    place = Place(
        host=platform.node(),
        pid=os.getpid(),
        cuda_visible_devices=os.environ.get("CUDA_VISIBLE_DEVICES", ""),
    )
    if not ray.is_initialized():
        return place
    context = ray.get_runtime_context()
    assigned = sorted(context.get_assigned_resources().items())
    return place.model_copy(
        update={
            "ray_node": context.get_node_id()[:8],
            "assigned": ", ".join(f"{amount:g} {name}" for name, amount in assigned),
        }
    )
