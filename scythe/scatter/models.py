"""Input and result of a scatter node."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field

from scythe.base import BaseSpec, ExperimentOutputSpec
from scythe.outcomes import RunCode
from scythe.scatter.tree import AUTO, Cut, NodeTasks, RecursionMap, Rows
from scythe.settings import ScytheStorageSettings, default_storage_settings, store_config
from scythe.specs.codec import decode_spec
from scythe.specs.file import count_specs, read_rows, spec_texts
from scythe.status import mismatch_note
from scythe.storage.files import S3Url, split_s3_uri
from scythe.storage.layout import RunLayout
from scythe.storage.store import open_bucket

if TYPE_CHECKING:
    import pandas as pd

NODE_TASK = "scythe_scatter_gather"
_DOWNLOADS = 8  # parallel downloads


class ScatterGatherInput(BaseSpec):
    """The input of one node of the tree."""

    task_name: str = Field(..., description="The name of the Hatchet task to run.")
    specs_uri: S3Url = Field(..., description="The path to the specs to run.")
    storage_settings: ScytheStorageSettings = Field(
        default_factory=default_storage_settings,
        description="The storage settings to use.",
    )
    recursion_map: RecursionMap = Field(..., description="The recursion map to use.")
    save_errors: bool = Field(
        default=True, description="Kept for scythe-engine: errors are always saved."
    )
    root_workflow_run_id: str | None = Field(
        default=None, description="Hatchet's id of the root node; None at the root."
    )
    batch_size: int = Field(
        default=1,
        ge=0,
        description="The number of leaves that one Hatchet task runs; 0 to measure it.",
    )
    tapers: bool = Field(default=False, description="Whether the last batches are smaller.")
    n_specs: int | None = Field(
        default=None, description="The number of specs of the run; None to look into the file."
    )
    window: tuple[int, int] | None = Field(
        default=None, description="The rows that this node and its siblings divide; None for all."
    )
    window_depth: int = Field(default=0, description="The depth at which the window was set.")
    leaf_format: Literal["scythe", "plain"] = Field(
        default="scythe",
        description="`plain` for a Hatchet task of the user's, which takes the spec itself.",
    )
    run_code: RunCode | None = Field(
        default=None, description="What `allocate` saw of the experiment."
    )
    priority: Literal[1, 2, 3] | None = Field(
        default=None, description="The priority of its tasks in Hatchet; None for the task's own."
    )
    max_failures: int | None = Field(
        default=None, ge=0, description="The most leaves that may fail; None for no limit."
    )
    reused: tuple[int, int] | None = Field(
        default=None,
        description="How many leaves that are done, and that failed, the run takes from another; "
        "`specs_uri` has those of the other leaves then.",
    )

    @property
    def is_root(self) -> bool:
        """Whether this is the root of the tree."""
        return self.recursion_map.is_root

    @property
    def writes_final_tables(self) -> bool:
        """Whether the tables of this node are the final ones."""
        return self.is_root and self.reused is None

    @property
    def standalone(self) -> Any:
        """The experiment or Hatchet task of this name that is registered in this process."""
        return import_module("scythe.registry").ExperimentRegistry.get_runnable(self.task_name)

    @property
    def specs(self) -> list[Any]:
        """All specs of the run."""
        config = store_config(self.storage_settings)
        cls = self.standalone.input_validator_type
        rows = read_rows(config, self.specs_key, range(count_specs(config, self.specs_key)))
        return [decode_spec(cls, text) for text in spec_texts(rows)]

    def construct_filekey(
        self,
        filename: str,
        *,
        mode: Literal["input", "output", "final"],
        workflow_run_id: str,
        suffix: str,
    ) -> str:
        """Return the key under which scythe-engine stores a file of a node."""
        path = self.recursion_map.path
        node = f"recurse/{len(path)}" if path else "root"
        place = "final" if mode == "final" else f"scatter-gather/{mode}/{node}/{workflow_run_id}"
        run = RunLayout(self.storage_settings.BUCKET_PREFIX, self.experiment_id).prefix
        return f"{run}{place}/{filename}.{suffix}"

    @property
    def specs_key(self) -> str:
        """The key of the specs in the bucket."""
        return split_s3_uri(str(self.specs_uri))[1]

    def tasks(self, n_specs: int) -> NodeTasks:
        """Return the Hatchet tasks of this node and all below it, in a run of `n_specs`."""
        rows = Rows(*(self.window or (0, n_specs)))
        cut = Cut(rows, max(1, self.batch_size), self.tapers)
        return NodeTasks(self.recursion_map.share(len(cut), self.window_depth), cut)

    def rows(self, n_specs: int) -> Sequence[int]:
        """Return the spec rows of this node and all below it, in a run of `n_specs`."""
        tasks = self.tasks(n_specs)
        if tasks.cut.size == 1:
            return tasks.single_rows()
        return [row for part in tasks.parts for row in range(part.start, part.stop)]

    def nodes_below(self, tasks: NodeTasks) -> list[RecursionMap]:
        """Return the maps of the child nodes; empty if this node runs its tasks itself."""
        tree = self.recursion_map
        return tree.measuring() if self.batch_size == AUTO else tree.children(len(tasks))


class GatheredExperimentRuns(BaseModel):
    """The tables of a tree, in memory.

    Attributes:
        success: Its `dataframes` are the tables.
        errors: None: failed leaves are in the table `errors` of the run.
    """

    success: ExperimentOutputSpec
    errors: Any = None


class ScatterGatherResult(BaseModel):
    """The result of one node of the tree.

    Attributes:
        uris: The tables of the node by name; at the root, the final tables.
        n_leaves: Number of leaves below the node.
        n_failed: Number of leaves among them that failed.
        n_lost: Number of leaves among them whose scatter node failed, so that their results are
            unknown.
        seconds: The summed run time of these leaves.
        warnings: A sentence for each column that became text.
        codes: Number of leaves by the fingerprint of their code.
        code_mismatches: Number of leaves that ran with other code than `allocate` saw.
    """

    uris: dict[str, S3Url]
    n_leaves: int = 0
    n_failed: int = 0
    n_lost: int = 0
    seconds: float = 0.0
    warnings: list[str] = []
    codes: dict[str, int] = Field(default_factory=dict[str, int])
    code_mismatches: int = 0

    @property
    def summary(self) -> str:
        """The number of leaves, done and failed, as text."""
        counts = f"{self.n_leaves - self.n_failed} done, {self.n_failed} failed"
        return f"{self.n_leaves} leaves, {counts}{mismatch_note(self.code_mismatches)}"

    def to_gathered_experiment_runs(self) -> GatheredExperimentRuns:
        """Read the tables into pandas.

        Raises:
            StorageError: A table cannot be read.
        """
        import pandas as pd

        def read(uri: S3Url) -> pd.DataFrame:
            bucket, key = split_s3_uri(str(uri))
            return pd.read_parquet(io.BytesIO(open_bucket(bucket, store_config()).get_bytes(key)))

        with ThreadPoolExecutor(_DOWNLOADS, "scythe-tables") as threads:
            frames = dict(zip(self.uris, threads.map(read, self.uris.values()), strict=True))
        return GatheredExperimentRuns(success=ExperimentOutputSpec(dataframes=frames))


class NodeEnd(BaseModel):
    """The end of a scatter node below the root.

    Attributes:
        payload: Its input, which determines its leaves.
        result: Its result.
    """

    payload: ScatterGatherInput
    result: ScatterGatherResult
