"""Compare the outputs of two runs, leaf by leaf with the same spec."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scythe.runs.matching import pairs_of, run_free_texts
from scythe.runs.reading import RunReader
from scythe.specs.file import SPEC_COLUMN
from scythe.tables.gather import LEAVES, SCALARS
from scythe.tables.names import SORT_INDEX

if TYPE_CHECKING:
    import pyarrow as pa

_SHOWN = 5
_STATE = "state"


@dataclass(frozen=True, slots=True)
class Comparison:
    """The differences between the outputs of two runs.

    Attributes:
        changed: A row for each scalar output that differs, the largest difference first: `leaf` and
            `other_leaf` (their numbers in the two runs), `output`, `value`, `other_value`, and
            `difference`, for numbers. The output `state` says that a leaf failed in one of them.
        n_compared: Number of specs that both runs have.
        only_here: The leaves whose spec only the first run has.
        only_there: The leaves whose spec only the other run has.
    """

    changed: Any
    n_compared: int
    only_here: list[int]
    only_there: list[int]

    @property
    def n_changed(self) -> int:
        """Number of specs of which an output differs."""
        return int(self.changed["leaf"].nunique())

    def __str__(self) -> str:
        first = (
            f"{self.n_compared} specs in both runs, {self.n_changed} with other outputs; "
            f"{len(self.only_here)} only in the first, {len(self.only_there)} only in the other."
        )
        rows: Any = self.changed.head(_SHOWN).itertuples()
        shown = [
            f"leaf {row.leaf}, {row.other_leaf} there: {row.output} is {row.value!r}, "
            f"{row.other_value!r} there"
            for row in rows
        ]
        return "\n".join([first, *shown])


def compare(one: RunReader, other: RunReader) -> Comparison:
    """Compare the scalar outputs of two runs that are over.

    Leaves belong together whose specs are equal but for the number and the run; uploaded files
    count as equal where their names are. Of equal specs, the first belongs to the first.

    Raises:
        ResultNotFoundError: A run has no tables yet.
    """
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    runs = (one, other)
    specs = [_specs(run) for run in runs]
    texts = [
        run_free_texts(table.column(SPEC_COLUMN), run.store().uri(run.layout.artifacts))
        for table, run in zip(specs, runs, strict=True)
    ]
    values = pa.chunked_array([*texts[0].chunks, *texts[1].chunks]).unique()
    rows, other_rows = pairs_of(values, *texts)
    numbers = [table.column(SORT_INDEX).to_numpy() for table in specs]
    frames: list[Any] = [
        _outputs(run).reindex(own[places])
        for run, own, places in zip(runs, numbers, (rows, other_rows), strict=True)
    ]
    changed = [
        _differences(name, frames[0], frames[1])
        for name in dict.fromkeys([*frames[0].columns, *frames[1].columns])
    ]
    joined: Any = pd.concat([one for one in changed if len(one)] or changed, ignore_index=True)
    order = joined["difference"].abs().sort_values(ascending=False, kind="stable").index
    alone: list[list[int]] = [
        np.delete(own, places).tolist()
        for own, places in zip(numbers, (rows, other_rows), strict=True)
    ]
    return Comparison(joined.loc[order].reset_index(drop=True), len(rows), *alone)


def _specs(run: RunReader) -> pa.Table:
    import pyarrow.parquet as pq

    data = run.store().get_bytes(run.layout.specs)
    return pq.read_table(io.BytesIO(data), columns=[SORT_INDEX, SPEC_COLUMN])


def _outputs(run: RunReader) -> Any:
    """Return state and scalar outputs of all leaves, by their numbers."""
    frame: Any = _by_number(run, LEAVES)[[_STATE]]
    if SCALARS not in run.list_results_files():
        return frame
    return frame.join(_by_number(run, SCALARS).drop(columns=_STATE, errors="ignore"))


def _by_number(run: RunReader, name: str) -> Any:
    frame: Any = run.results(name).to_pandas()
    numbers = frame.index.get_level_values(SORT_INDEX)
    return frame.set_axis(numbers)[~numbers.duplicated()]


def _differences(name: Any, one: Any, other: Any) -> Any:
    """Return where an output differs."""
    import numpy as np
    import pandas as pd

    here, there = (_values(frame, name) for frame in (one, other))
    is_other = np.array([a != b for a, b in zip(here, there, strict=True)], bool)
    numeric: Any = [
        pd.to_numeric(pd.Series(values[is_other]), errors="coerce") for values in (here, there)
    ]
    return pd.DataFrame(
        {
            "leaf": one.index[is_other],
            "other_leaf": other.index[is_other],
            "output": name,
            "value": here[is_other],
            "other_value": there[is_other],
            "difference": (numeric[1] - numeric[0]).to_numpy(float),
        }
    )


def _values(frame: Any, name: Any) -> Any:
    """Return the values of an output as objects, None for what is missing."""
    import numpy as np
    import pandas as pd

    values = np.full(len(frame), None, object)
    if name in frame:
        column = frame[name].astype(object).to_numpy()
        values[:] = [one.tolist() if hasattr(one, "tolist") else one for one in column]
        values[[one is pd.NA or one is pd.NaT or one != one for one in values]] = None  # noqa: PLR0124
    return values
