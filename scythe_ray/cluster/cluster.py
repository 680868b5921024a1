"""A Ray cluster that this process is attached to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from scythe_ray.cluster.discovery import answers
from scythe_ray.config.resources import RayNode

_NODES_TIMEOUT = 5  # seconds
_ALIVE = 0  # in Ray's `GcsNodeInfo.GcsNodeState`
Taken = Literal["preempted", "drained"]
_TAKEN: Mapping[int, Taken] = {  # by Ray's `NodeDeathInfo.Reason`
    3: "preempted",  # AUTOSCALER_DRAIN_PREEMPTED
    4: "drained",  # AUTOSCALER_DRAIN_IDLE
}


@dataclass(slots=True)
class Cluster:
    """A cluster that this process is attached to.

    Attributes:
        address: `host:port` of the head.
        version: Ray's version.
        node_id: The node that this process is attached to.
        session_dir: Ray's session folder on this node.
        is_own: Whether this process started it, and ends it.
        gcs: Ray's client of the head.
        leave: Disconnects, with a deadline. Returns whether this process can connect again.
        close: Leaves it, or ends an own one, with deadlines.
        attach_again: Attaches to a lost head that is back or, in the main thread, starts another
            own cluster in place of a closed one; raises `WorkerStartError`.
        node_is_up: Returns whether the Ray process of this node runs.
        temporary: A folder for the files of leaves, removed with the cluster.
        token_path: The token file of an own cluster.
        shipped: The local folder that Ray copies to its nodes.
        draining: Ray nodes that are being drained.
    """

    address: str
    version: str
    node_id: str
    session_dir: str
    is_own: bool
    gcs: Any
    leave: Callable[[], bool]
    close: Callable[[], None]
    attach_again: Callable[[], Cluster]
    node_is_up: Callable[[], bool]
    temporary: str | None = None
    token_path: str | None = None
    shipped: str | None = None
    draining: set[str] = field(default_factory=set[str], init=False, repr=False)

    @property
    def shared(self) -> dict[str, str]:
        """The data by which other processes of the worker attach, see `attach.join_cluster`."""
        known = {
            "address": self.address,
            "token_path": self.token_path,
            "temporary": self.temporary,
        }
        return {name: value for name, value in known.items() if value}

    def nodes(self) -> list[RayNode]:
        """Return the live Ray nodes. Blocks for a few seconds if the head is gone.

        `ray.nodes()` would wait for ever for a head that is gone, and abort this process when
        another head takes its place.

        Raises:
            ConnectionError: Nothing answers at the head's address.
            RayError: The head does not answer, or is not the same as before.
        """
        table = self._table()
        self.draining |= set(self.gcs.get_draining_nodes(timeout=_NODES_TIMEOUT))
        return [
            RayNode(
                node_id=node_id.hex(),
                host=info.node_manager_hostname,
                address=info.node_manager_address,
                resources=dict(info.resources_total),
                labels=dict(info.labels),
            )
            for node_id, info in table.items()
            if info.state == _ALIVE
        ]

    def taken_nodes(self) -> dict[str, Taken]:
        """Return the drained or preempted Ray nodes. Blocks and raises as `nodes` does."""
        taken: dict[str, Taken] = dict.fromkeys(self.draining, "drained")
        for node_id, info in self._table().items():
            if info.death_info.reason in _TAKEN:
                taken[node_id.hex()] = _TAKEN[info.death_info.reason]
        return taken

    def _table(self) -> Mapping[Any, Any]:
        if not answers(self.address):  # otherwise Ray's client would wait for its whole timeout
            raise ConnectionError(f"no Ray head answers at {self.address}")
        return self.gcs.get_all_node_info(timeout=_NODES_TIMEOUT)


def is_other_head(error: BaseException) -> bool:
    """Return whether an error of `Cluster.nodes` means that another head was started."""
    return "WrongClusterID" in str(error)
