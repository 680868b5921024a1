"""The commands `scythe dev` and `scythe engine`."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scythe import stack
from scythe.errors import StackError
from scythe.stack.engine_build import engine_program, export_engine, import_engine
from scythe.stack.paths import HOME_VARIABLE, default_home

_STOPPED = 3  # exit code
_FAILED = 1
_WATCH_SECONDS = 1.0
_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_DESCRIPTION = """
Everything that a run needs, on this machine and on loopback only: PostgreSQL, the Hatchet engine
and an S3 server with a bucket. Without a word after `dev`, the stack is started in the background;
it outlives this command and the terminal. Workers and scripts find it by themselves when
HATCHET_CLIENT_TOKEN is not set.
"""
_FOREGROUND = "stay; Ctrl-C stops everything that this command started"
_STATUS = "show the parts; exit code 0 when all run, 3 when stopped, 1 when something is wrong"
_BUILD = "build the Hatchet engine and start nothing; else the first start does it"
_ENV = "print `export NAME='value'` lines for a shell, secrets on purpose: keep them out of logs"
_IMPORT = "use an engine that was exported on a machine of the same kind"


def add_commands(commands: Any) -> None:
    """Add `dev` and `engine` to the commands of `scythe`.

    Args:
        commands: What `ArgumentParser.add_subparsers` returned.
    """
    dev: argparse.ArgumentParser = commands.add_parser(
        "dev", help="start, show and stop the local stack", description=_DESCRIPTION
    )
    dev.set_defaults(run=_up, home=default_home(), foreground=False)
    words = dev.add_subparsers(metavar="WORD")
    up = _add(words, "up", _up, "start what does not run, and wait until all answers")
    shown = _add(words, "status", _status, _STATUS)
    shown.add_argument("--json", action="store_true", help="print JSON")
    built = _add(words, "build", _build, _BUILD)
    stopped = _add(words, "stop", _stop, "end all processes of the stack; its data stay")
    removed = _add(words, "reset", _reset, "stop the stack and delete its data, keys and logs")
    removed.add_argument("--yes", action="store_true", help="do not ask")
    shell = _add(words, "env", _env, _ENV)
    # No default of its own: behind the word, it would undo an option that stands before it.
    no_default: dict[str, Any] = {"default": argparse.SUPPRESS}
    for parser in (dev, up):
        parser.add_argument("--foreground", action="store_true", help=_FOREGROUND, **no_default)
    where = f"the data folder (else {HOME_VARIABLE}, else {default_home()})"
    for parser in (dev, up, shown, built, stopped, removed, shell):
        parser.add_argument("--home", type=Path, metavar="FOLDER", help=where, **no_default)

    engine = commands.add_parser(
        "engine", help="give the built Hatchet engine to another machine, or take it"
    )
    words = engine.add_subparsers(metavar="WORD", required=True)
    exported = _add(words, "export", _export, "write the engine, built now if need be, to a file")
    for parser in (exported, _add(words, "import", _import, _IMPORT)):
        parser.add_argument("file", type=Path, metavar="FILE")


def _add(words: Any, name: str, run: Callable[[argparse.Namespace], int], text: str) -> Any:
    parser = words.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run)
    return parser


def _out(*lines: str) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stdout.flush()


def _progress(line: str) -> None:
    sys.stderr.write(f"scythe dev: {line}\n")
    sys.stderr.flush()


def _up(options: argparse.Namespace) -> int:
    from scythe.stack.control import start

    began = time.monotonic()
    _on_interrupt()
    begun = start(options.home, _progress)
    if begun:
        _progress(f"ready after {time.monotonic() - began:.1f} s")
    if options.foreground:
        return _stay(options.home, begun)
    _out(*table(stack.status(options.home)))
    _out("Show it: scythe dev status. Stop it: scythe dev stop.")
    return 0


def _on_interrupt() -> None:
    """Make the end of the terminal, and a polite kill, mean the same as Ctrl-C, and that once.

    What was started is stopped then; a second Ctrl-C must not leave half of it running.
    """

    def interrupt(_number: int, _frame: object) -> None:
        for number in _ENDINGS:
            signal.signal(number, lambda *_: _progress("still stopping what was started"))
        raise KeyboardInterrupt

    for number in _ENDINGS:
        signal.signal(number, interrupt)


def _stay(home: Path, begun: tuple[str, ...]) -> int:
    """Wait until a part dies, or somebody stops the stack; then stop what was started."""
    from scythe.stack.health import Health

    end = "It ran before: Ctrl-C ends this command and leaves the stack running."
    if begun:
        end = f"Ctrl-C stops {', '.join(begun)}."
    try:
        found = stack.status(home)
        _out(*table(found), end)
        while found.health is not Health.STOPPED:
            if any(part.health is Health.DIED for part in found.parts):
                _out(*table(found))
                return _FAILED
            time.sleep(_WATCH_SECONDS)
            found = stack.status(home)
        _progress("the stack was stopped")
    except KeyboardInterrupt:
        _progress("interrupted")
    finally:
        if begun:
            stack.stop(home, _progress, begun)
    return 0


def _status(options: argparse.Namespace) -> int:
    from scythe.stack.health import Health

    found = stack.status(options.home)
    shown = [json.dumps(asdict(found), default=str, indent=2)] if options.json else table(found)
    _out(*shown)
    return {Health.RUNNING: 0, Health.STOPPED: _STOPPED}.get(found.health, _FAILED)


def _build(_options: argparse.Namespace) -> int:
    _on_interrupt()
    _out(str(engine_program(_progress)))
    return 0


def _export(options: argparse.Namespace) -> int:
    _on_interrupt()
    export_engine(options.file, _progress)
    _out(f"The engine is in {options.file}. Elsewhere run: scythe engine import FILE")
    return 0


def _import(options: argparse.Namespace) -> int:
    import_engine(options.file, _progress)
    _out("The engine is in its place: `scythe dev` starts without a build.")
    return 0


def _stop(options: argparse.Namespace) -> int:
    ran = stack.stop(options.home, _progress)
    _out("The local stack is stopped." if ran else "The local stack was not running.")
    return 0


def _reset(options: argparse.Namespace) -> int:
    if not options.home.exists():
        _out(f"There is nothing to remove in {options.home}.")
        return 0
    if not options.yes and not _agreed(options.home):
        _out("Nothing was removed.")
        return _FAILED
    stack.reset(options.home, _progress)
    _out("The local stack and its data are removed.")
    return 0


def _agreed(home: Path) -> bool:
    if not sys.stdin.isatty():
        raise StackError(f"`scythe dev reset` deletes all runs in {home}: add --yes to do it.")
    sys.stdout.write(f"Delete the local stack in {home} with all runs and results in it? [y/N] ")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _env(options: argparse.Namespace) -> int:
    found = stack.running(options.home)
    if found is None:
        _progress(f"the local stack in {options.home} does not run; start it with `scythe dev`")
        return _STOPPED
    _out(*(f"export {name}='{value}'" for name, value in found.env.items()))
    return 0


def table(found: stack.StackStatus) -> list[str]:
    """Return the lines that show a stack: no secrets in them.

    Args:
        found: The stack.
    """
    rows = [("PART", "STATE", "PID", "VERSION", "ADDRESS")]
    for part in found.parts:
        pid = str(part.pid or "-")
        rows.append((part.name, part.health, pid, part.version or "-", part.address or "-"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    lines += ["", f"data    {found.home}"]
    if found.health.value != "stopped":
        lines += [f"api     {found.api_url}", f"grpc    {found.grpc}"]
        lines += [f"s3      {found.s3_url}", f"bucket  {found.bucket}"]
    for part in found.parts:
        if part.log_end:
            lines += ["", f"{part.name}: {part.health}. The end of {part.log}:", part.log_end]
    return lines
