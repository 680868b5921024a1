"""Commands that run leaves again, and compare what came of them: `retry`, `run`, `compare`."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from scythe.catalog import open_run
from scythe.commands import show
from scythe.commands.base import ExitCode, Json, RunName, add
from scythe.errors import NothingToRetryError, SettingsError, SpecError
from scythe.registry import ExperimentRegistry
from scythe.runs.compare import compare as compare_runs

_MOST_ROWS = 20  # on a terminal


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this family."""
    for function in (retry, run, compare):
        add(app, function)


def retry(
    run: RunName,
    failed: Annotated[bool, typer.Option("--failed", help="Leaves whose code failed.")] = False,
    missing: Annotated[
        bool, typer.Option("--missing", help="Leaves that were cancelled, or lost their place.")
    ] = False,
    leaf: Annotated[list[int] | None, typer.Option(help="A leaf; may be given again.")] = None,
    json: Json = False,
) -> None:
    """Run leaves again as a new run, whose tables have all leaves. By default the failed ones."""
    try:
        again = open_run(run).retry(failed or None, missing, leaf)
    except NothingToRetryError as error:
        raise SpecError(error.text("--failed", "--missing")) from None
    name = again.experiment_id
    show.line(show.as_json({"run": name}) if json else name)


def run(
    experiment: Annotated[str, typer.Argument(metavar="EXPERIMENT", help="Its name.")],
    run_name: Annotated[
        str | None, typer.Option("--run", metavar="RUN", help="By default its latest run.")
    ] = None,
    leaf: Annotated[int | None, typer.Option(help="The leaf of that run.")] = None,
    spec: Annotated[Path | None, typer.Option(help="A JSON file with a spec instead.")] = None,
    code: Annotated[Path, typer.Option(help="The script that registers it.")] = Path("main.py"),
    json: Json = False,
) -> None:
    """Run one leaf in this process, with its files, for a debugger."""
    if (leaf is None) == (spec is None):
        raise SettingsError("Give either --leaf N, of --run RUN, or --spec FILE.")
    _import(code)
    if spec is not None:
        found: Any = ExperimentRegistry.get_runnable(experiment)
        text = spec.read_text(encoding="utf-8")
        output = found.mock_run(found.input_validator_type.model_validate_json(text))
    else:
        output = open_run(run_name or experiment).call_here(leaf or 0)
    show.line(show.as_json(output.model_dump(mode="json", exclude={"dataframes"})))
    for name, table in () if json else output.dataframes.items():
        show.note(f"{name}\n{table}")


def compare(run: RunName, other: RunName, json: Json = False) -> int:
    """List the outputs that differ between two runs, by spec.

    The largest difference comes first.
    """
    found = compare_runs(open_run(run), open_run(other))
    rows = found.changed.to_dict("records")
    if json:
        alone = {"only_here": found.only_here, "only_there": found.only_there}
        show.line(show.as_json({"compared": found.n_compared, "changed": rows, **alone}))
    else:
        shown = rows[:_MOST_ROWS] if show.is_terminal() else rows
        columns = ["leaf", "other_leaf", "output", "value", "other_value", "difference"]
        show.table(shown, columns, whole=("leaf", "other_leaf"))
        show.note(str(found).partition("\n")[0])
    return ExitCode.GOOD


def _import(script: Path) -> None:
    """Run a script as an imported module, so that its experiments are registered."""
    if not script.is_file():
        raise SettingsError(f"There is no script {script}. Pass one with --code.")
    sys.path.insert(0, str(script.parent.absolute()))
    runpy.run_path(str(script), run_name="__mp_main__")
