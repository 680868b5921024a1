"""Single leaves of a run: their specs, outputs and logs; and the workers that serve them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

from scythe.errors import ResultNotFoundError
from scythe.runs.ending import delete_run, run_place
from scythe.runs.explain import serving_workers
from scythe.runs.exports import RunExports
from scythe.runs.progress_bar import describe
from scythe.runs.reading import describe_failure
from scythe.specs.codec import decode_spec
from scythe.specs.file import read_spec_text, row_of
from scythe.storage.files import S3Url
from scythe.tables.gather import ERRORS, FILES, LEAVES, REPORTS, SCALARS
from scythe.tables.names import SORT_INDEX
from scythe.tables.pandas_index import roles

if TYPE_CHECKING:
    import pyarrow as pa

    from scythe.engine.lookup import ConnectedWorker

_TASK_ID = 36  # characters of Hatchet's id; that of a leaf in a batch has its number behind it
_MOST_TASKS = 1000  # whose logs are read for a whole run


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line that a leaf printed.

    Attributes:
        leaves: The first and the last leaf of the task that printed it, as `sort_index`.
        time: When it was sent to Hatchet, in seconds since 1970.
        text: The text; long logs have several lines in one.
    """

    leaves: tuple[int, int]
    time: float
    text: str


class RunLeaves(RunExports):
    """Adds what is known of single leaves to a class that reads a run."""

    @property
    def runnable(self) -> Any:
        """The experiment, or the Hatchet task or workflow."""
        raise NotImplementedError

    @property
    def url(self) -> str | None:
        """The page of the run in the engine's dashboard; None where the engine has none.

        Raises:
            EngineError: There is no token, or the engine does not answer.
        """
        from scythe.engine.dashboard import run_page

        root = run_place(self.store(), self.layout).root_id
        return run_page(root) if root else None

    def spec(self, leaf: int) -> Any:
        """Return the spec of a leaf, of the class that the experiment takes.

        Args:
            leaf: Its `sort_index`.

        Raises:
            ResultNotFoundError: The run has no such leaf.
            ExperimentTypeNotFound: This process has not imported the experiment.
        """
        cls = self.runnable.input_validator_type
        return decode_spec(cls, self.spec_text(leaf))

    def spec_text(self, leaf: int) -> str:
        """Return the spec of a leaf as text: JSON, where its values allow that.

        Raises:
            ResultNotFoundError: The run has no such leaf.
        """
        place = run_place(self.store(), self.layout, with_taken=True)
        row = row_of(place.config, place.specs_key, leaf)
        if row is None:
            raise ResultNotFoundError(
                f"Run {self.layout.experiment_id} has no leaf {leaf} among its {place.count()}."
            )
        return read_spec_text(place.config, place.specs_key, row)

    def output(self, leaf: int) -> Any:
        """Return the output of a leaf, of the class that the experiment returns.

        Its tables are in `dataframes`; its files are URIs.

        Args:
            leaf: Its `sort_index`.

        Raises:
            ResultNotFoundError: The leaf failed, is not over, or is not there.
            ExperimentTypeNotFound: This process has not imported the experiment.
        """
        cls = self.runnable.output_validator_type
        state = self._rows_of(leaf, LEAVES).column("state").to_pylist()
        if state != ["done"]:
            raise ResultNotFoundError(self._why_no_output(leaf))
        names = [name for name in self._final_files() if name not in REPORTS]
        found = {name: self._rows_of(leaf, name) for name in names}
        files = {
            name: value
            for name, value in _data(found.pop(FILES, None)).items()
            if value is not None and "." not in name  # those of nested models are in no field
        }
        values = {**_data(found.pop(SCALARS, None)), **files}
        text = to_json(values, inf_nan_mode="constants", bytes_mode="base64")
        output = cls.model_validate_json(text, by_alias=True, by_name=True)
        paths = [name for name in files if isinstance(getattr(output, name, None), Path)]
        tables = {name: table.to_pandas() for name, table in found.items() if table.num_rows}
        output = output.replace_files({name: S3Url(files[name]) for name in paths})
        return output.model_copy(update={"dataframes": tables})

    def logs(self, leaf: int | None = None) -> Iterator[LogLine]:
        """Yield what leaves printed, as Hatchet keeps it; a batch has one log for its leaves.

        Args:
            leaf: The `sort_index` of a leaf; by default all, those of the first 1,000 tasks.

        Raises:
            EngineError: The engine does not answer.
        """
        from scythe.engine.lookup import read_logs

        tasks = self._tasks(leaf)
        for task, time, text in read_logs([*tasks]):
            yield LogLine(tasks[task], time, text)

    def explain(self) -> str:
        """Say how the run is: why it waits, why it was stopped, what fails most."""
        status = self.status()
        parts = [status.message or status.waits_for or describe(status)]
        if status.failed:
            parts += [describe_failure(row) for row in self.failures().slice(0, 3).to_pylist()]
        return "\n".join(parts)

    def workers(self) -> list[ConnectedWorker]:
        """Return the connected workers that serve the run's leaves.

        Raises:
            EngineError: The engine does not answer.
        """
        from scythe.engine.lookup import connected_workers

        return serving_workers(connected_workers(), self.leaf_task)

    def delete(self) -> None:
        """Delete all that the bucket has of the run. One that goes on is refused.

        Raises:
            RunGoesOnError: The run is not over.
        """
        status = self.last_status()
        delete_run(self.store(), self.layout, status if status.is_over else self.status())

    def _rows_of(self, leaf: int, name: str) -> Any:
        """Return the rows of a table that belong to a leaf, as they are stored."""
        import pyarrow.parquet as pq

        with TemporaryDirectory(prefix="scythe-leaf-") as folder:
            file = Path(folder) / "table.pq"
            self._fetch_table(name, file, partial=False)
            column = roles(pq.read_schema(file)).get(("level", SORT_INDEX, 0), SORT_INDEX)
            return pq.read_table(file, filters=[(column, "=", leaf)])

    def _why_no_output(self, leaf: int) -> str:
        failed = self._rows_of(leaf, ERRORS).to_pylist()
        name = f"Leaf {leaf} of {self.layout.experiment_id}"
        if failed:
            return f"{name} failed: {failed[0]['type']}: {failed[0]['message']}"
        self.spec_text(leaf)  # raises where there is no such leaf
        return f"{name} is not once among the leaves that are done."

    def _tasks(self, leaf: int | None) -> dict[str, tuple[int, int]]:
        """Return Hatchet's tasks of one leaf or of all, with their first and last leaves."""
        table = self.results(LEAVES, partial=True).replace_schema_metadata(None)
        tasks: dict[str, list[int]] = {}
        ids = table.column("workflow_run_id").to_pylist()
        for task, number in zip(ids, table.column(SORT_INDEX).to_pylist(), strict=True):
            if task:
                tasks.setdefault(task[:_TASK_ID], []).append(number)
        if leaf is None:
            shown = list(tasks.items())[:_MOST_TASKS]
        else:
            shown = [(task, numbers) for task, numbers in tasks.items() if leaf in numbers]
            if not shown:
                self.spec_text(leaf)
        return {task: (min(numbers), max(numbers)) for task, numbers in shown}


def _data(table: pa.Table | None) -> dict[str, Any]:
    """Return the first row of a table without the levels of its index."""
    if table is None or not table.num_rows:
        return {}
    kinds = roles(table.schema)
    columns = [column for (kind, _, _), column in kinds.items() if kind == "data"]
    return table.select(columns).slice(0, 1).to_pylist()[0]


def as_plain(spec_text: str) -> Any:
    """Return a spec as JSON values, for reading; see `RunLeaves.spec_text`."""
    text = spec_text if spec_text.startswith("{") else spec_text.partition(":")[2]
    try:
        return json.loads(text)
    except ValueError:
        return spec_text
