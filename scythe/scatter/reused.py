"""The leaves that a run takes from another one: their tables become part of its own."""

from __future__ import annotations

import tempfile
from pathlib import Path

from scythe.scatter.models import ScatterGatherResult
from scythe.scatter.output import NodeOutput
from scythe.storage.files import S3Url, split_s3_uri
from scythe.storage.layout import RunLayout
from scythe.storage.store import Store
from scythe.tables.gather import ERRORS, LEAVES, count_codes
from scythe.tables.merge import Warn, merge_files
from scythe.tables.taken import place_rows, rows_left


class ReusedLeaves:
    """The tables of the leaves that a run takes from another; without any in most runs.

    Args:
        store: The bucket.
        layout: The keys of the run.
        folder: Where files are kept meanwhile.
        n_others: The number of the other leaves, which the run runs itself.
    """

    def __init__(self, store: Store, layout: RunLayout, folder: Path, n_others: int) -> None:
        self._folder = folder
        self._files: dict[str, list[Path]] = {}
        for number, key in enumerate(list(store.list_keys(layout.reused))):
            name = key.removeprefix(layout.reused).rpartition("/")[0]
            file = folder / f"reused-{number}.pq"
            store.download(key, file)
            self._files.setdefault(name, []).append(file)
        self._others = rows_left(self._files.get(LEAVES, []), n_others) if self._files else None

    @property
    def names(self) -> list[str]:
        """The names of the tables."""
        return list(self._files)

    def merge(self, name: str, others: list[Path], target: Path, warn: Warn) -> int:
        """Write a final table; return the number of its rows.

        Args:
            name: The table.
            others: Files with the rows of the other leaves, numbered among themselves.
            target: The Parquet file.
            warn: Is given a sentence for each column that became text.
        """
        files = list(others)
        if self._others is not None:
            files = [self._folder / f"placed-{number}.pq" for number in range(len(others))]
            for file, placed in zip(others, files, strict=True):
                place_rows(file, placed, self._others)
        files += self._files.get(name, [])
        return merge_files(files, target, final=True, name=name, warn=warn)


def add_reused(
    output: NodeOutput, result: ScatterGatherResult, n_others: int
) -> ScatterGatherResult:
    """Write the final tables of a run that takes leaves from another.

    Args:
        output: The root.
        result: Its tables, which have the other leaves.
        n_others: The number of these.
    """
    warnings = list(result.warnings)
    rows: dict[str, int] = {}
    uris: dict[str, S3Url] = {}
    codes = {}
    with tempfile.TemporaryDirectory(prefix="scythe-reused-") as name:
        folder = Path(name)
        reused = ReusedLeaves(output.store, output.layout, folder, n_others)
        for table in dict.fromkeys([*result.uris, *reused.names]):
            files: list[Path] = []
            if table in result.uris:
                files.append(folder / "others.pq")
                output.store.download(split_s3_uri(str(result.uris[table]))[1], files[0])
            final = folder / "final.pq"
            rows[table] = reused.merge(table, files, final, warnings.append)
            if table == LEAVES:
                codes = count_codes(final)
            uris[table] = S3Url(output.store.put_file(output.layout.final_table(table), final))
    counted = output.counted(codes)
    update = {"uris": uris, "n_leaves": rows[LEAVES], "n_failed": rows[ERRORS]}
    return result.model_copy(
        update={**update, **counted, "warnings": list(dict.fromkeys(warnings))}
    )
