"""The shape of the tree: the specs of each scatter node, and their division into tasks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, Field, field_validator, model_validator

MAX_CHILDREN = 1000  # with more, each child costs the engine's database more
_MAX_DEPTH = 10
AUTO = 0  # batch size that stands for a measured one
PROBES = 32  # leaves that run alone to measure it
BATCH_SECONDS = 5.0  # intended run time of a batch
_LEAST_SECONDS = 1e-4  # overhead of a leaf in a batch
LEAST_BATCHES = 16  # fewer would leave slots idle
_TAPER = (2, 2, 2, 2, 4, 4, 4, 4)  # divisors of the size of the last batches


class RecursionSpec(BaseModel):
    """One step down the tree: every `factor`-th spec of the parent, from `offset` on."""

    factor: int = Field(..., description="The factor to use in recursive calls", ge=1)
    offset: int | None = Field(
        default=None, description="The offset to use in recursive calls", ge=0
    )

    @model_validator(mode="after")
    def _check_offset(self) -> RecursionSpec:
        if self.offset is not None and self.offset >= self.factor:
            msg = f"OFFSET:{self.offset}>=FACTOR:{self.factor}: the offset must be below the factor"
            raise ValueError(msg)
        return self


class RecursionMap(BaseModel):
    """The position of a node in the tree, and the shape of the tree below it."""

    path: list[RecursionSpec] | None = Field(
        default=None, description="The path of recursion specs to use"
    )
    factor: int = Field(..., description="The factor to use in recursive calls", ge=1)
    max_depth: int = Field(
        default=10, description="The maximum depth of the recursion", ge=0, le=_MAX_DEPTH
    )

    @field_validator("path", mode="before")
    @classmethod
    def _check_path(cls, value: Any) -> Any:
        if isinstance(value, list) and len(value) < 1:
            msg = "PATH:LENGTH:GE:1: leave the path out for the root"
            raise ValueError(msg)
        return value

    @property
    def is_root(self) -> bool:
        """Whether this is the root of the tree."""
        return not self.path

    @property
    def depth(self) -> int:
        """The number of steps from the root."""
        return len(self.path or [])

    @property
    def node(self) -> str:
        """The name of the node in the run: `root`, or the offsets on the way to it (`3-0`)."""
        return "-".join(str(step.offset or 0) for step in self.path or []) or "root"

    def share(self, count: int, below: int = 0) -> range:
        """Return the items of this node: each level takes every `factor`-th one.

        Args:
            count: The number of items that are divided.
            below: The depth of the node to which all items belong.
        """
        start = 0
        stride = 1
        for step in (self.path or [])[below:]:
            start += (step.offset or 0) * stride
            stride *= step.factor
        return range(start, count, stride)

    def is_base_case(self, n_specs: int) -> bool:
        """Return whether a node with this many specs runs them itself."""
        return n_specs <= self.factor or self.depth >= self.max_depth

    def child(self, offset: int) -> RecursionMap:
        """Return the map of the child node at this offset."""
        step = RecursionSpec(factor=self.factor, offset=offset)
        return self.model_copy(update={"path": [*(self.path or []), step]})

    def children(self, n_tasks: int) -> list[RecursionMap]:
        """Return the maps of the child nodes; empty if this node runs this many tasks itself."""
        if self.is_base_case(n_tasks):
            return []
        return [self.child(offset) for offset in range(self.factor)]

    def measuring(self) -> list[RecursionMap]:
        """Return the maps of the three child nodes of a node that measures leaves.

        The first child measures its leaves, the second one's leaves run meanwhile, and the third
        runs the rest in batches.
        """
        tree = self.model_copy(update={"factor": 3})
        return [tree.child(offset) for offset in range(3)]


@dataclass(frozen=True, slots=True)
class Rows:
    """Neighbouring specs of a run.

    Attributes:
        start: The first row.
        stop: The row after the last.
    """

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Cut:
    """Neighbouring specs of a run, cut into Hatchet tasks. Its length is the number of tasks.

    Attributes:
        rows: All the specs.
        size: The number of specs of a task; the last one may have fewer.
        tapers: Whether the last tasks get smaller, so that all slots end together.
    """

    rows: Rows
    size: int
    tapers: bool = False

    def __len__(self) -> int:
        n_full, ends = self._sizes
        return n_full + len(ends)

    def __getitem__(self, number: int) -> Rows:
        return Rows(self._start(number), self._start(number + 1))

    def n_leaves(self, numbers: range) -> int:
        """Return the number of specs of these tasks."""
        n_full, _ = self._sizes
        full = len(range(numbers.start, min(numbers.stop, n_full), numbers.step))
        return full * self.size + sum(len(self[number]) for number in numbers[full:])

    def _start(self, number: int) -> int:
        n_full, ends = self._sizes
        full = min(number, n_full)
        return self.rows.start + full * self.size + sum(ends[: number - full])

    @property
    def _sizes(self) -> tuple[int, list[int]]:
        """The number of tasks of full size, and the sizes of those after them."""
        taper = [self.size // part for part in _TAPER] if self.tapers else []
        if not all(taper) or sum(taper) > len(self.rows):
            taper = []
        n_full, rest = divmod(len(self.rows) - sum(taper), self.size)
        return n_full, [*([rest] if rest else []), *taper]


@dataclass(frozen=True, slots=True)
class NodeTasks:
    """The Hatchet tasks of a node and of all below it. Each task runs neighbouring specs.

    Attributes:
        numbers: The numbers of these tasks in the cut.
        cut: The cut of all rows, of this node and others.
    """

    numbers: range
    cut: Cut

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def parts(self) -> list[Rows]:
        """The rows of each task."""
        return [self.cut[number] for number in self.numbers]

    @property
    def n_leaves(self) -> int:
        """The number of specs of all tasks."""
        return self.cut.n_leaves(self.numbers)

    def single_rows(self) -> range:
        """Return the rows of these tasks if each runs one spec."""
        first = self.cut.rows.start
        numbers = self.numbers
        return range(first + numbers.start, first + numbers.stop, numbers.step)


def plan_tree(n_specs: int, batch_size: int = 1) -> RecursionMap:
    """Return a tree in which no node has more than about 1,000 children.

    Args:
        n_specs: The number of specs.
        batch_size: The number of leaves that one task runs.
    """
    n_specs = math.ceil(n_specs / max(1, batch_size))
    if n_specs <= MAX_CHILDREN:
        return RecursionMap(factor=10, max_depth=0)
    depth = 1
    while math.ceil(n_specs / MAX_CHILDREN) > MAX_CHILDREN**depth:
        depth += 1
    leaves = math.ceil(n_specs / MAX_CHILDREN)
    factor = max(2, math.ceil(leaves ** (1 / depth) - 1e-9))
    return RecursionMap(factor=factor, max_depth=depth)


@dataclass(frozen=True, slots=True)
class RunPlan:
    """The distribution of a run's specs over Hatchet tasks.

    Attributes:
        tree: The tree of scatter nodes.
        batch_size: The number of leaves that one task runs; 0 until it is measured.
    """

    tree: RecursionMap
    batch_size: int = 1

    def describe(self, n_specs: int) -> str:
        """Describe the plan in one line."""
        if self.batch_size == AUTO:
            return (
                f"{n_specs} leaves, in batches of a few seconds once the first leaves are measured"
            )
        tasks = math.ceil(n_specs / self.batch_size)
        text = f"{n_specs} leaves"
        if self.batch_size > 1:
            text += f" in {tasks} batches of {self.batch_size}"
        levels = 0
        width = tasks
        while width > self.tree.factor and levels < self.tree.max_depth:
            levels = levels + 1
            width = math.ceil(width / self.tree.factor)
        nodes = self.tree.factor**levels
        return f"{text}, {nodes} node{'s' * (nodes > 1)} with up to {width} tasks each"


def plan_batches(n_specs: int, seconds: float) -> int:
    """Return the batch size with which a batch takes a few seconds.

    Args:
        n_specs: The number of specs.
        seconds: The run time of one leaf.
    """
    wanted = math.floor(BATCH_SECONDS / max(seconds, _LEAST_SECONDS))
    most = math.ceil(n_specs / LEAST_BATCHES)
    return max(1, min(wanted, most))
