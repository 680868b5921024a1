"""The table of the chaos suite, as it is printed and kept in docs/reliability.md."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.runs import SLOWER, WINDOW, Outcome

COLUMNS = (
    "case",
    "leaves",
    "lost",
    "twice",
    "failed",
    "run again",
    "seconds to recover",
    "seconds to the end",
)
_HEAD = f"""# Reliability

`make chaos` breaks one thing at a time under a run on real services (Hatchet's engine, PostgreSQL,
S3, Ray nodes in network namespaces of their own) and writes this page. Each case ends with the
invariant: every leaf is exactly once in `scalars.pq` or in `errors.pq`, and no Ray task, process,
slot or temporary file of a leaf is left over.

- *lost*: leaves in neither table; *twice*: leaves with more than one row.
- *failed*: leaves in `errors.pq`.
- *run again*: executions beyond the first of each leaf, counted by the traces that the leaves
  themselves write. What was running when its place died is run again.
- *seconds to recover*: from the fault until leaves finish at the pace before it, that is, until
  {WINDOW} leaves in a row take at most {SLOWER:g} times as long as such a row took before.
- *seconds to the end*: from the fault to the end of the run.

Leaves take 0.2 to 1 s, on 2 to 4 Ray CPUs. Hatchet gives the tasks of a worker that is silent to
another one after 30 s, which is most of what the longer cases wait for.

An engine that is killed may lose that a child of a scatter node is over. A node that hears nothing
for 10 s asks after its children, so such a run ends some seconds later than it would have. Until
then `run.status()` and Hatchet's dashboard may show a leaf that is over as running; the dashboard
may do so for good.

"""


class Report:
    """Collects the cases of a session."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, ...]] = []

    def add(self, case: str, outcome: Outcome) -> None:
        """Add a case."""
        counts = (outcome.leaves, outcome.lost, outcome.twice, outcome.failed, outcome.reruns)
        seconds = (outcome.recovered, outcome.over)
        self._rows.append((case, *map(str, counts), *(f"{value:.1f}" for value in seconds)))

    @property
    def table(self) -> str:
        """The table, empty where there is no case."""
        if not self._rows:
            return ""
        widths = [max(map(len, column)) for column in zip(COLUMNS, *self._rows, strict=True)]
        lines = [COLUMNS, tuple("-" * width for width in widths), *self._rows]
        return "".join(
            f"| {' | '.join(c.ljust(w) for c, w in zip(line, widths, strict=True))} |\n"
            for line in lines
        )

    def write(self, path: Path) -> None:
        """Write the page."""
        path.write_text(_HEAD + self.table)
