"""The input and the outcome of a leaf: plain data that any executor can carry.

What is made for each leaf of a batch is not frozen: to make it would take three times as long.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class FailureKind(StrEnum):
    """Why a leaf did not end well: a closed set."""

    APPLICATION = "application_error"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    OUT_OF_MEMORY = "out_of_memory"
    WORKER_CRASH = "worker_crash"
    NODE_LOST = "node_lost"
    PREEMPTED = "preempted"
    ENVIRONMENT = "environment_setup"
    INFEASIBLE = "infeasible"
    RESULT_LOST = "result_lost"
    CLUSTER_LOST = "cluster_lost"
    CODE_MISMATCH = "code_mismatch"
    SCHEMA_MISMATCH = "schema_mismatch"
    RUN_LIMIT = "run_limit"
    MAX_FAILURES = "max_failures"

    @property
    def is_final(self) -> bool:
        """Whether trying again cannot help."""
        return self in (FailureKind.ENVIRONMENT, FailureKind.INFEASIBLE) or self.is_mismatch

    @property
    def is_mismatch(self) -> bool:
        """Whether the worker has other code than the run, so that another worker may run it."""
        return self in (FailureKind.CODE_MISMATCH, FailureKind.SCHEMA_MISMATCH)


@dataclass(frozen=True, slots=True)
class LeafResources:
    """The resources that one leaf of an experiment needs.

    Attributes:
        cpus: CPUs that the leaf uses; it takes as many slots.
        gpus: GPUs, also fractions such as 0.25.
        memory: Memory in bytes that the scheduler sets aside (not a limit).
        custom: Further resources by name, as in `ray start --resources`.
        fresh_process: Whether each leaf gets a process that ran no other leaf.
        node_labels: Ray's labels that the leaf's node must have, as in its `label_selector`
            (`fast`, `!slow`, `in(a,b)`, `!in(a,b)`); see `ray start --labels`.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    memory: int = 0
    custom: dict[str, float] = field(default_factory=dict[str, float])
    fresh_process: bool = False
    node_labels: dict[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        amounts = {"cpus": self.cpus, "gpus": self.gpus, "memory": self.memory, **self.custom}
        for name, amount in amounts.items():
            value: Any = amount
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not (is_number and 0 <= value < math.inf):
                msg = f"resources: {name}={value!r} is no amount: give a number, 0 or more."
                raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class CodeRef:
    """Where the process that runs a leaf finds the experiment.

    Attributes:
        experiment: Name of the experiment.
        module: Module that defines (and mostly registers) the function.
        qualname: Name of the function in that module, dots included.
        main_path: File of the script when the module was `__main__` and was run by its path.
        main_module: Name of the module when it was run as `python -m name`.
        pickled: The experiment by value (cloudpickle), for a function that no import reaches.
    """

    experiment: str
    module: str
    qualname: str
    main_path: str | None = None
    main_module: str | None = None
    pickled: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class RunCode:
    """Code and schema that `allocate` recorded, for leaves to compare with their own.

    Attributes:
        fingerprint: That of its code, see `scythe.provenance`.
        input_schema: That of the fields of its input, see `scythe.specs.fields`.
        on_mismatch: What is done about leaves with other code: `warn`, `fail`, `ignore`, or
            nothing where that is left to the worker.
    """

    fingerprint: str = ""
    input_schema: str = ""
    on_mismatch: str = ""


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """Everything that opens the object store from another process.

    The keys are `None` where the process that uses the store has its own (an instance role, a
    profile).
    """

    bucket: str
    prefix: str = "scythe"
    endpoint_url: str | None = None
    region: str | None = None
    access_key_id: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    addressing_style: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Leaves that one process runs one after another. Each ends, fails and is tried again alone.

    Attributes:
        specs: Key of the stored specs.
        rows: First row of the batch in them, and the one after its last.
        tries: How often a leaf is tried.
        queued: When the batch was handed to Hatchet, in seconds since 1970.
        attempt: The number of the next try of the first leaf that is not over.
        journal: The leaves that were over when another process of the batch ended, see
            `scythe.leaf.journal`.
        closely: After each leaf before the one of this number, its process is looked at: one of
            them has damaged another process.
        until: How many leaves must be over for the journal to be given back; 0 for the tables of
            all leaves.
    """

    specs: str
    rows: tuple[int, int]
    tries: int = 1
    queued: float = 0.0
    attempt: int = 1
    journal: bytes = field(default=b"", repr=False)
    closely: int = 0
    until: int = 0

    @property
    def n_leaves(self) -> int:
        """The number of leaves."""
        return self.rows[1] - self.rows[0]


@dataclass(frozen=True, slots=True)
class LeafCall:
    """One try of one leaf, or a batch of leaves.

    Attributes:
        leaf_id: Unique in its run and stable over its tries; safe as a file name.
        code: Where the experiment is.
        spec: The spec as text, see `scythe.specs.codec`; empty where `spec_row` says where it is.
        spec_row: Key of the stored specs and the number of the row, for a spec that is too large
            to travel through the engine.
        experiment_id: `<name>/<version>/<datetime>` of the run.
        workflow_run_id: Hatchet's id of this leaf, or None where it is not injected.
        root_workflow_run_id: Hatchet's id of the run, or None outside of one.
        store: The object store.
        resources: What the leaf needs.
        labels: Worker labels that the experiment requires, by name (`has_gpu`: `yes`).
        timeout: Seconds that the leaf may run, counted from its start in its process.
        schedule_timeout: Seconds that it may wait for a place to run.
        attempt: 1 for the first try.
        batch: The leaves of a batch; `spec` is empty then, and `timeout` is that of each leaf.
        run_code: What `allocate` saw of the experiment; None outside of a run.
    """

    leaf_id: str
    code: CodeRef
    spec: str
    experiment_id: str
    store: StoreConfig
    spec_row: tuple[str, int] | None = None
    workflow_run_id: str | None = None
    root_workflow_run_id: str | None = None
    resources: LeafResources = field(default_factory=LeafResources)
    labels: dict[str, str] = field(default_factory=dict[str, str])
    timeout: float = 60.0
    schedule_timeout: float = 3600.0
    attempt: int = 1
    batch: Batch | None = None
    run_code: RunCode | None = None


@dataclass(slots=True)
class LeafStats:
    """Where and how long one try of a leaf ran (times in seconds since 1970, UTC).

    Attributes:
        node: Host name.
        pid: The process.
        started: When it began to run.
        finished: When it was over.
        peak_rss: The most memory that it used, in bytes.
        gpus: The GPUs that it was given, as in `CUDA_VISIBLE_DEVICES`.
        code: The code that it ran, as `scythe.provenance.identity` writes it; empty where its
            process told nothing.
    """

    node: str = ""
    pid: int = 0
    started: float = 0.0
    finished: float = 0.0
    peak_rss: int = 0
    gpus: str = ""
    code: str = ""

    @property
    def seconds(self) -> float:
        """The run time of the attempt, in seconds."""
        return max(0.0, self.finished - self.started)


@dataclass(slots=True)
class LeafResult:
    """The result of a leaf that succeeded.

    Attributes:
        scalars: The scalar outputs as a JSON object (NaN and Infinity as in Python's json).
        files: By name of the output's file field: the URI of its file; a list of them; or a dict.
        tables: By table name: the bytes of one Arrow IPC stream, or the key of an object in the
            bucket that holds one.
        stats: Where and how long it ran.
        scalars_key: Key of an object in the bucket that holds the scalar outputs, where they are
            too large to travel; `scalars` is an empty object then.
        log: What it printed; it is sent to Hatchet and not kept.
    """

    scalars: str
    files: dict[str, Any]
    tables: dict[str, bytes | str]
    stats: LeafStats
    scalars_key: str | None = None
    log: str = ""


@dataclass(slots=True)
class LeafFailure:
    """The outcome of an attempt that did not succeed.

    Attributes:
        kind: Why, out of a closed set.
        type: Name of the exception's class, or what took its place (`Segmentation fault`).
        message: The exception's message.
        traceback: The traceback as text, or the stacks that the crashed process left.
        stats: Where and how long it ran.
        log: What it had printed; it is sent to Hatchet and not kept.
    """

    kind: FailureKind
    type: str
    message: str
    traceback: str = ""
    stats: LeafStats = field(default_factory=LeafStats)
    log: str = field(default="", repr=False)

    @property
    def summary(self) -> str:
        """One line that names the kind, the type, the message and the place."""
        place = f" [node {self.stats.node}, pid {self.stats.pid}]" if self.stats.pid else ""
        return f"{self.kind.value}: {self.type}: {self.message}{place}"


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The result of a batch: the tables of its leaves, see `scythe.tables.gather.node_tables`.

    Attributes:
        packs: Tables in the order of the leaves, see `scythe.tables.packs`: each as bytes, or the
            key of an object in the bucket that holds them.
        n_leaves: Number of leaves.
        n_failed: Number of leaves among them that failed their last try.
        seconds: The time that all leaves took.
        log: What they printed; it is sent to Hatchet and not kept.
        journal: Where the process could run no more of them, those that are over, see
            `scythe.leaf.journal`: the rest needs another process. There are no tables then, and the
            other numbers say nothing.
    """

    packs: tuple[bytes | str, ...]
    n_leaves: int
    n_failed: int
    seconds: float
    log: str = ""
    journal: bytes | None = field(default=None, repr=False)
    closely: int = 0
    left: str = ""


LeafReply = LeafResult | BatchResult
LeafOutcome = LeafReply | LeafFailure
