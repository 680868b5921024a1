"""The table of nodes, over a cluster that is not there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from scythe_ray.config.resources import RayNode
from scythe_ray.submit import node_table as module
from scythe_ray.submit.node_table import NodeTable

HERE, THERE = (RayNode(name, name, "10.0.0.1", {"CPU": 1.0}) for name in ("here", "there"))


class Told:
    """A cluster that tells its nodes from a list, one entry each time."""

    address, is_own, node_id = "10.0.0.1:6379", False, HERE.node_id

    def __init__(self, *tables: Sequence[RayNode]) -> None:
        self._tables = iter(tables)

    def nodes(self) -> Sequence[RayNode]:
        return next(self._tables)

    def node_is_up(self) -> bool:
        return True


def test_a_cluster_that_this_machine_fell_out_of_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_EVERY", 0.01)
    cluster: Any = Told([HERE, THERE], [HERE], [THERE])
    lost: list[RayNode] = []

    def on_change(_: object, gone: Sequence[RayNode], joined: Sequence[RayNode]) -> None:
        assert not joined
        lost.extend(gone)

    with ThreadPoolExecutor(1) as threads:
        table = NodeTable(cluster, [HERE, THERE], threads)
        why = asyncio.run(asyncio.wait_for(table.watch(on_change), 20))
    assert lost == [THERE]
    assert why == "this machine is no longer a node of it"
