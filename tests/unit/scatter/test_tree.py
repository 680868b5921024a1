"""The nodes of any tree share out the specs: each once, none twice."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from scythe.scatter.tree import (
    AUTO,
    MAX_CHILDREN,
    Cut,
    NodeTasks,
    RecursionMap,
    RecursionSpec,
    Rows,
    RunPlan,
    plan_batches,
    plan_tree,
)


def base_nodes(tree: RecursionMap, count: int) -> list[RecursionMap]:
    """All nodes that run leaves, found as the scatter nodes find them."""
    rows = tree.share(count)
    children = tree.children(len(rows))
    return [node for child in children for node in base_nodes(child, count)] or [tree]


@pytest.mark.parametrize("factor", [1, 2, 3, 7, 10])
@pytest.mark.parametrize("depth", [0, 1, 2, 4, 10])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 9, 10, 11, 97, 256])
def test_nodes_partition_the_specs(factor: int, depth: int, count: int) -> None:
    if factor == 1 and depth > 0:
        depth = 1
    nodes = base_nodes(RecursionMap(factor=factor, max_depth=depth), count)
    rows = [row for node in nodes for row in node.share(count)]
    assert sorted(rows) == list(range(count))
    assert len({node.node for node in nodes}) == len(nodes)
    assert all(node.depth <= depth for node in nodes)


def test_each_level_takes_every_nth_row() -> None:
    tree = RecursionMap(factor=2, max_depth=2)
    assert list(tree.child(1).share(9)) == [1, 3, 5, 7]
    assert list(tree.child(1).child(1).share(9)) == [3, 7]
    assert tree.child(1).child(0).node == "1-0"
    assert (tree.node, tree.is_root, tree.depth) == ("root", True, 0)
    assert not tree.child(0).is_root


def test_paths_with_different_factors() -> None:
    path = [RecursionSpec(factor=3, offset=2), RecursionSpec(factor=2, offset=1)]
    tree = RecursionMap(path=path, factor=2)
    assert list(tree.share(20)) == [5, 11, 17]


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
    assert sum(len(node.share(1_000_000)) for node in nodes) == 1_000_000
    assert max(len(node.share(1_000_000)) for node in nodes) <= MAX_CHILDREN


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
    assert list(RecursionMap(path=[RecursionSpec(factor=2)], factor=2).share(5)) == [0, 2, 4]


@pytest.mark.parametrize("size", [1, 3, 4, 9, 100])
@pytest.mark.parametrize("count", [1, 2, 99, 100, 101, 300, 1000])
@pytest.mark.parametrize("first", [0, 7])
@pytest.mark.parametrize("tapers", [False, True])
def test_tasks_cover_the_rows_of_a_window(
    size: int, count: int, first: int, *, tapers: bool
) -> None:
    cut = Cut(Rows(first, first + count), size, tapers)
    tree = RecursionMap(factor=3, max_depth=2)
    nodes = [node.share(len(cut)) for node in base_nodes(tree, len(cut))]
    tasks = [NodeTasks(node, cut) for node in nodes]
    parts = [part for node in tasks for part in node.parts]
    covered = sorted(row for part in parts for row in range(part.start, part.stop))
    assert covered == list(range(first, first + count))
    assert max(map(len, parts)) <= size
    assert [node.n_leaves for node in tasks] == [sum(map(len, node.parts)) for node in tasks]
    assert sum(node.n_leaves for node in tasks) == count
    if size == 1:
        assert sorted(row for node in tasks for row in node.single_rows()) == covered


def test_batches_that_taper_are_smaller_and_smaller_at_the_end() -> None:
    sizes = [len(part) for part in NodeTasks(range(12), Cut(Rows(0, 50), 8, tapers=True)).parts]
    assert sizes == [8, 8, 8, 2, 4, 4, 4, 4, 2, 2, 2, 2]
    even = [len(part) for part in NodeTasks(range(7), Cut(Rows(0, 50), 8)).parts]
    assert even == [8, 8, 8, 8, 8, 8, 2]


def test_a_window_counts_the_steps_of_the_path_from_its_own_depth() -> None:
    tree = RecursionMap(factor=2, max_depth=3).child(1)
    assert list(tree.share(4, below=1)) == [0, 1, 2, 3]
    assert list(tree.child(1).share(4, below=1)) == [1, 3]


@pytest.mark.parametrize(
    ("count", "seconds", "size"),
    [
        (10**6, 0.1, 50),
        (10**6, 10.0, 1),
        (10**6, 1e-5, 50_000),
        (10, 1e-5, 1),
        (10**6, 0.0, 50_000),
    ],
)
def test_batches_take_a_few_seconds(count: int, seconds: float, size: int) -> None:
    assert plan_batches(count, seconds) == size


def test_a_plan_in_words() -> None:
    assert RunPlan(plan_tree(10)).describe(10) == "10 leaves, 1 node with up to 10 tasks each"
    assert RunPlan(plan_tree(10**6, 2000), 2000).describe(10**6) == (
        "1000000 leaves in 500 batches of 2000, 1 node with up to 500 tasks each"
    )
    assert "2 nodes" in RunPlan(plan_tree(2000)).describe(2000)
    assert "few seconds" in RunPlan(plan_tree(100, AUTO), AUTO).describe(100)
