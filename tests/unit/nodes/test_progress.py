"""How often the nodes of a tree are counted."""

from __future__ import annotations

import pytest

from scythe.nodes.progress import pause_of
from scythe.nodes.tree import RecursionMap


def base_node(factor: int, depth: int) -> RecursionMap:
    tree = RecursionMap(factor=factor, max_depth=depth)
    for _ in range(depth):
        tree = tree.child(factor - 1)
    return tree


@pytest.mark.parametrize(("factor", "depth"), [(5, 1), (100, 1), (1000, 1), (10, 3)])
def test_all_nodes_that_run_leaves_ask_five_times_a_second_together(
    factor: int, depth: int
) -> None:
    assert factor**depth / pause_of(base_node(factor, depth), 0) == pytest.approx(5)


def test_a_node_with_few_beside_it_is_counted_once_a_second() -> None:
    assert pause_of(RecursionMap(factor=1000, max_depth=0), 0) == 1.0
    assert pause_of(base_node(4, 1), 0) == 1.0
    assert pause_of(RecursionMap(factor=4, max_depth=1), 4) == 1.0


def test_a_node_looks_at_many_nodes_below_it_less_often() -> None:
    assert pause_of(RecursionMap(factor=1000, max_depth=1), 1000) == pytest.approx(20)
