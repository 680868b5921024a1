"""The nodes of any tree share out the specs: each once, none twice."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from scythe.tree import MAX_CHILDREN, RecursionMap, RecursionSpec, plan_tree


def base_nodes(tree: RecursionMap, count: int) -> list[RecursionMap]:
    """All nodes that run leaves, found as the scatter nodes find them."""
    rows = tree.rows(count)
    if tree.is_base_case(len(rows)):
        return [tree]
    children = [tree.child(offset) for offset in range(min(tree.factor, len(rows)))]
    return [node for child in children for node in base_nodes(child, count)]


@pytest.mark.parametrize("factor", [1, 2, 3, 7, 10])
@pytest.mark.parametrize("depth", [0, 1, 2, 4, 10])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 9, 10, 11, 97, 256])
def test_nodes_partition_the_specs(factor: int, depth: int, count: int) -> None:
    if factor == 1 and depth > 0:
        depth = 1
    nodes = base_nodes(RecursionMap(factor=factor, max_depth=depth), count)
    rows = [row for node in nodes for row in node.rows(count)]
    assert sorted(rows) == list(range(count))
    assert len({node.node for node in nodes}) == len(nodes)
    assert all(node.depth <= depth for node in nodes)


def test_each_level_takes_every_nth_row() -> None:
    tree = RecursionMap(factor=2, max_depth=2)
    assert list(tree.child(1).rows(9)) == [1, 3, 5, 7]
    assert list(tree.child(1).child(1).rows(9)) == [3, 7]
    assert tree.child(1).child(0).node == "1-0"
    assert (tree.node, tree.is_root, tree.depth) == ("root", True, 0)
    assert not tree.child(0).is_root


def test_paths_with_different_factors() -> None:
    path = [RecursionSpec(factor=3, offset=2), RecursionSpec(factor=2, offset=1)]
    tree = RecursionMap(path=path, factor=2)
    assert list(tree.rows(20)) == [5, 11, 17]


def test_children_do_not_change_their_parent() -> None:
    tree = RecursionMap(factor=2).child(0)
    tree.child(1)
    assert tree.depth == 1


@pytest.mark.parametrize(
    "count",
    [
        *[1, 999, 1000, 1001, 1999, 2001, 10**5, 999_999, 10**6, 10**6 + 1],
        *[3 * 10**6, 10**7, 10**9],
    ],
)
def test_planned_trees_have_about_a_thousand_children_a_node(count: int) -> None:
    tree = plan_tree(count)
    leaves_of_a_node = -(-count // tree.factor**tree.max_depth)
    assert leaves_of_a_node <= MAX_CHILDREN
    if tree.max_depth:
        assert 2 <= tree.factor <= MAX_CHILDREN
        assert tree.factor**tree.max_depth <= 2 * 2**tree.max_depth * count / MAX_CHILDREN


def test_a_planned_tree_of_a_million() -> None:
    tree = plan_tree(1_000_000)
    nodes = base_nodes(tree, 1_000_000)
    assert sum(len(node.rows(1_000_000)) for node in nodes) == 1_000_000
    assert max(len(node.rows(1_000_000)) for node in nodes) <= MAX_CHILDREN


def test_small_runs_have_one_node() -> None:
    assert base_nodes(plan_tree(1000), 1000) == [plan_tree(1000)]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"factor": 0}, "greater than or equal to 1"),
        ({"factor": 2, "max_depth": 11}, "less than or equal to 10"),
        ({"factor": 2, "max_depth": -1}, "greater than or equal to 0"),
        ({"factor": 2, "path": []}, "PATH:LENGTH:GE:1"),
        ({"factor": 2, "path": [{"factor": 2, "offset": 2}]}, "OFFSET:2>=FACTOR:2"),
        ({"factor": 2, "path": [{"factor": 2, "offset": -1}]}, "greater than or equal to 0"),
        ({}, "factor"),
    ],
)
def test_wrong_trees_are_refused(fields: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        RecursionMap.model_validate(fields)


def test_a_step_may_leave_its_offset_out() -> None:
    assert RecursionSpec(factor=2).offset is None  # scythe-engine raises KeyError here
    assert list(RecursionMap(path=[RecursionSpec(factor=2)], factor=2).rows(5)) == [0, 2, 4]
