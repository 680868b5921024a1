"""A Ray cluster that this process is attached to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from scythe_ray.resources import RayNode, parse_nodes


@dataclass(slots=True)
class Cluster:
    """A cluster that this process is attached to.

    Attributes:
        address: `host:port` of the head.
        version: Ray's version.
        node_id: The node that this process is attached to.
        session_dir: Ray's session folder on this node.
        is_own: Whether it was started here, and ends here.
        attach_again: Attaches to a head that was lost and is back; raises `WorkerStartError`.
        temporary: A folder for the files of leaves, which goes with the cluster.
        close: Leaves it, or ends it; blocks, with deadlines.
    """

    address: str
    version: str
    node_id: str
    session_dir: str
    is_own: bool
    close: Callable[[], None]
    attach_again: Callable[[], Cluster]
    temporary: str | None = None

    def nodes(self) -> list[RayNode]:
        """Return the nodes that are alive. Blocks for as long as the head does not answer."""
        import ray

        return parse_nodes(ray.nodes())
