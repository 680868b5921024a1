"""All that a run needs before it is stored, in local files."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path

from scythe.base import ExperimentInputSpec
from scythe.runs.reuse import Reuse
from scythe.storage.artifacts import InputArtifacts
from scythe.storage.files import S3Url
from scythe.storage.layout import RunLayout
from scythe.storage.store import Store
from scythe.tables.gather import LEAVES


@dataclass(frozen=True, slots=True)
class Prepared:
    """All specs of a run, checked and written to a local file."""

    first: ExperimentInputSpec | None
    file: Path
    n_specs: int
    io_spec: bytes
    artifacts: InputArtifacts
    digests: dict[str, str] = field(default_factory=dict[str, str])
    reuse: Reuse | None = None
    input_artifacts: S3Url | None = None

    @property
    def n_to_run(self) -> int:
        """The number of leaves that are not taken from another run."""
        return self.n_specs if self.reuse is None else self.reuse.n_specs

    @property
    def division(self) -> str:
        """The numbers of leaves that run and that are taken from another run; empty if all run."""
        if self.reuse is None:
            return ""
        kept = f"{self.n_specs - self.n_to_run} of {self.reuse.sources[0]}"
        return f"it runs {self.n_to_run} of {self.n_specs} leaves and keeps {kept}"


@dataclass(frozen=True, slots=True)
class AllocationPlan:
    """The size of a run that `allocate` would start; see its `dry_run`.

    Attributes:
        n_leaves: Number of leaves.
        n_to_run: Number of leaves that are not taken from another run.
        spec_bytes: Size of the file of specs.
        input_bytes: Size of the input files that would be uploaded.
        cpu_hours: CPU time of the leaves to run, if they take as long as those of the last run;
            None without one.
    """

    n_leaves: int
    n_to_run: int
    spec_bytes: int
    input_bytes: int
    cpu_hours: float | None

    @classmethod
    def of(cls, prepared: Prepared, seconds: float | None, cpus: float) -> AllocationPlan:
        """Return the plan of a run.

        Args:
            prepared: The run.
            seconds: What a leaf takes.
            cpus: CPUs of a leaf.
        """
        files = {path for _, path in prepared.artifacts.keys}
        return cls(
            n_leaves=prepared.n_specs,
            n_to_run=prepared.n_to_run,
            spec_bytes=prepared.file.stat().st_size,
            input_bytes=sum(path.stat().st_size for path in files),
            cpu_hours=None if seconds is None else seconds * cpus * prepared.n_to_run / 3600,
        )

    def __str__(self) -> str:
        taken = self.n_leaves - self.n_to_run
        reused = f" ({taken} of them taken from another run)" if taken else ""
        hours = "an unknown time, as there is no run before"
        if self.cpu_hours is not None:
            hours = f"{self.cpu_hours:.3g} CPU-hours, as long as those of the last run"
        return (
            f"{self.n_leaves} leaves{reused}: {self.spec_bytes:,} bytes of specs, "
            f"{self.input_bytes:,} bytes of input files, {hours}."
        )


def mean_seconds(store: Store, layout: RunLayout) -> float | None:
    """Return what a leaf of a run that is over took; None where none ended well."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    data = store.find_bytes(layout.final_table(LEAVES))
    if data is None:
        return None
    table = pq.read_table(io.BytesIO(data), columns=["state", "seconds"])
    done = pc.call_function("equal", [table.column("state"), "done"])
    return pc.call_function("mean", [table.column("seconds").filter(done)]).as_py()
