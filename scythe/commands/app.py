"""The app that holds all commands but `scythe dev` and `scythe engine`."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from scythe.commands import (
    cancelling,
    health,
    leaves,
    overview,
    pausing,
    project,
    repeating,
    serving,
    tables,
    workers,
)

# Each family is a module with `add_commands(app)`, which calls `add(app, function)`.
FAMILIES = (
    *(overview, workers, leaves, tables, cancelling, pausing),
    *(repeating, serving, health, project),
)
_HELP = """
Typed, embarrassingly parallel experiments.

RUN is the id of a run, EXPERIMENT for its latest run, EXPERIMENT@v1.2.0 for the latest run of a
version, or @latest.

Exit codes: 0 good, 1 failed leaves, 2 wrong use, 3 engine or bucket not reachable, 130 interrupted.
"""
_OF_THE_STACK = {
    "dev": "Start, show and stop the local stack.",
    "engine": "Give the built Hatchet engine to another machine, or take it.",
}


def make_app() -> typer.Typer:
    """Return the app with the commands of all families."""
    app = typer.Typer(
        name="scythe",
        help=_HELP,
        no_args_is_help=True,
        rich_markup_mode=None,  # plain text, which needs no import of rich
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for name, text in _OF_THE_STACK.items():
        app.command(name, help=text)(_elsewhere)  # `scythe.cli` runs it; here for help, completion
    for family in FAMILIES:
        family.add_commands(app)
    return app


def run_app(words: Sequence[str]) -> None:
    """Run a command; ends with `SystemExit`, or with the error of the command."""
    make_app()(list(words), prog_name="scythe")


def _elsewhere() -> None:
    """Do nothing: `scythe.cli` runs the commands of the local stack."""
