"""Take leaves of a finished run over into a new one, which runs only the others."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from scythe.errors import SpecError
from scythe.outcomes import RunCode
from scythe.specs.fields import fields_digest, input_fields
from scythe.specs.file import SPEC_COLUMN
from scythe.storage.layout import RunLayout
from scythe.storage.manifest import ExperimentRunManifest, from_yaml
from scythe.storage.store import Store
from scythe.tables.arrow import parquet_options
from scythe.tables.gather import ERRORS, LEAVES
from scythe.tables.names import EXPERIMENT_ID, SORT_INDEX
from scythe.tables.taken import LeafMap, take_rows

if TYPE_CHECKING:
    import pyarrow as pa

_SHOWN = 5  # numbers of leaves in a message


@dataclass(frozen=True, slots=True)
class Reuse:
    """Leaves that a run takes from another, in local files.

    Attributes:
        sources: The runs whose leaves and files it uses, by their `experiment_id`.
        specs: The specs of the other leaves, which it runs.
        n_specs: The number of these.
        tables: The rows of the leaves that are taken, by the name of the table.
        done: Number of those leaves that ended well.
        failed: Number of those leaves that failed.
    """

    sources: list[str]
    specs: Path
    n_specs: int
    tables: dict[str, list[Path]]
    done: int
    failed: int

    @property
    def counts(self) -> tuple[int, int]:
        """The numbers of leaves that are taken that are done, and that failed."""
        return self.done, self.failed

    def upload(self, store: Store, layout: RunLayout) -> None:
        """Store the files below a run."""
        store.put_file(layout.specs_to_run, self.specs)
        for name, files in self.tables.items():
            for number, file in enumerate(files):
                store.put_file(layout.reused_table(name, number), file)


class FinishedRun:
    """A run that is over, with the tables of all its leaves.

    Args:
        store: Its bucket.
        layout: Its keys.
        folder: Where its files are kept meanwhile.

    Raises:
        SpecError: It has no table of its leaves.
    """

    def __init__(self, store: Store, layout: RunLayout, folder: Path) -> None:
        import pyarrow.parquet as pq

        self.layout = layout
        self._store = store
        self._folder = folder
        self.manifest = ExperimentRunManifest.model_validate(
            from_yaml(store.get_bytes(layout.manifest))
        )
        names = [PurePosixPath(key).stem for key in store.list_keys(layout.final, recursive=False)]
        if LEAVES not in names or ERRORS not in names:
            raise SpecError(
                f"Run {layout.experiment_id} has no table {LEAVES!r}, which says how each of its "
                "leaves ended. Allocate its specs again."
            )
        self._tables = {name: self._fetch(layout.final_table(name), f"{name}.pq") for name in names}
        self.specs = self._fetch(layout.specs, "source-specs.pq")
        leaves = self._tables[LEAVES]
        self.leaves: pa.Table = pq.read_table(leaves, columns=["state", "code", SORT_INDEX])
        self.errors: pa.Table = pq.read_table(self._tables[ERRORS], columns=["kind", "type"])

    @property
    def io_spec(self) -> bytes:
        """The schema of its inputs and outputs, as a document."""
        return self._store.get_bytes(self.layout.io_spec)

    @property
    def is_plain(self) -> bool:
        """Whether its leaves are a Hatchet task of the user's: the manifest has no code then."""
        return self.manifest.code is None

    @property
    def run_code(self) -> RunCode:
        """The fields of its input for leaves of another run to compare with, and no code."""
        return RunCode("", fields_digest(input_fields(from_yaml(self.io_spec))))

    @property
    def numbers(self) -> Any:
        """The sort index of each leaf, ascending."""
        return self.leaves.column(SORT_INDEX).to_numpy()

    @property
    def is_done(self) -> Any:
        """For each leaf, whether it ended well."""
        import pyarrow.compute as pc

        return pc.call_function("equal", [self.leaves.column("state"), "done"]).to_numpy()

    def give(self, rows: Any, specs: Path, files: Collection[str] = ()) -> Reuse:
        """Give leaves to another run.

        Args:
            rows: The row in the specs of the other run that each leaf becomes; -1 for one that is
                not taken.
            specs: A file with the specs of the other run.
            files: Fields that are files, which the other run has under other URIs.
        """
        import numpy as np
        import pyarrow.parquet as pq

        names = set(pq.read_schema(specs).names) & {EXPERIMENT_ID, SORT_INDEX, *files}
        ids = pq.read_table(specs, columns=sorted(names))
        leaves = LeafMap(rows, self.numbers, ids.combine_chunks())
        tables = {
            name: take_rows(file, self._folder, leaves, is_by_leaf=name == LEAVES)
            for name, file in self._tables.items()
        }
        is_run = np.ones(ids.num_rows, bool)
        is_run[rows[rows >= 0]] = False
        to_run = self._folder / "specs-to-run.pq"
        _write_chosen(specs, to_run, is_run)
        done = int(self.is_done[rows >= 0].sum())
        n_taken = int((rows >= 0).sum())
        return Reuse(
            sources=list(dict.fromkeys([self.layout.experiment_id, *self.manifest.sources])),
            specs=to_run,
            n_specs=ids.num_rows - n_taken,
            tables=tables,
            done=done,
            failed=n_taken - done,
        )

    def _fetch(self, key: str, name: str) -> Path:
        file = self._folder / name
        self._store.download(key, file)
        return file


def read_leaf_spec(store: Store, layout: RunLayout, leaf: int) -> str:
    """Read the spec of a leaf as text, by its sort index.

    Raises:
        SpecError: The run has no such leaf.
    """
    import io

    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    names = [SORT_INDEX, SPEC_COLUMN]
    specs = pq.read_table(io.BytesIO(store.get_bytes(layout.specs)), columns=names)
    row = pc.call_function("index", [specs.column(0)], pc.IndexOptions(pa.scalar(leaf))).as_py()
    if row < 0:
        raise no_such_leaf(layout, leaf)
    return specs.column(1)[row].as_py()


def no_such_leaf(layout: RunLayout, *leaves: int) -> SpecError:
    """Return the error that a run does not have these leaves."""
    shown = ", ".join(map(str, leaves[:_SHOWN]))
    return SpecError(
        f"Run {layout.experiment_id} has no leaf {shown}. The column 'leaf' of errors() has the "
        "numbers."
    )


def with_experiment_id(specs: Path, target: Path, before: str, after: str) -> None:
    """Write specs anew, those of one run as those of another; others keep the id that they have."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    call: Any = pc.call_function
    with pq.ParquetFile(specs) as source:
        schema = source.schema_arrow
        places = [schema.get_field_index(name) for name in (EXPERIMENT_ID, SPEC_COLUMN)]
        with pq.ParquetWriter(target, schema, **parquet_options(schema)) as writer:
            for number in range(source.num_row_groups):
                table = source.read_row_group(number)
                ids, texts = (table.column(place) for place in places)
                is_own = call("equal", [ids, pa.scalar(before, ids.type)])
                changed = [pa.scalar(after, ids.type), _renamed(texts, before, after)]
                for place, old, new in zip(places, (ids, texts), changed, strict=True):
                    values = call("if_else", [is_own, new, old])
                    table = table.set_column(place, schema.field(place), values)
                writer.write_table(table)


def _renamed(texts: Any, before: str, after: str) -> Any:
    """Replace the id of the run in specs as text: it is their first field in every form."""
    import pyarrow.compute as pc

    # In the form with private attributes, all of it is a text inside of a text.
    forms = {
        form(text)
        for text in (json.dumps(before)[1:-1], json.dumps(before, ensure_ascii=False)[1:-1])
        for form in (str, lambda one: json.dumps(one)[1:-1])
    }
    known = "|".join(sorted(map(re.escape, forms), reverse=True))
    pattern = rf'(\\*"experiment_id\\*": ?\\*")(?:{known})(\\*")'
    new = json.dumps(after)[1:-1].replace("\\", "\\\\")
    options = pc.ReplaceSubstringOptions(pattern, rf"\1{new}\2", max_replacements=1)
    return pc.call_function("replace_substring_regex", [texts], options)


def _write_chosen(specs: Path, target: Path, is_chosen: Any) -> None:
    """Write some of the specs of a run as a file of their own."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    first = 0
    with pq.ParquetFile(specs) as source:
        schema = source.schema_arrow
        with pq.ParquetWriter(target, schema, **parquet_options(schema)) as writer:
            for number in range(source.num_row_groups):
                table = source.read_row_group(number)
                wanted = is_chosen[first : first + table.num_rows]
                first += table.num_rows
                if wanted.any():
                    writer.write_table(table.filter(pa.array(wanted)))
