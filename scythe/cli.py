"""The command `scythe`."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import NoReturn

from scythe.environment import check_installation
from scythe.errors import ScytheError

_OF_THE_STACK = ("dev", "engine")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command `scythe`.

    Args:
        arguments: What follows the command's name; by default what the shell gave.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if words == ["--version"]:
            from importlib.metadata import version

            from scythe import DISTRIBUTION

            print(f"scythe {version(DISTRIBUTION)}")
            return 0
        check_installation(warn=lambda text: print(f"scythe: {text}", file=sys.stderr))
        # The local stack is built before anything else is installed: it needs no library.
        return _run_stack(words) if words and words[0] in _OF_THE_STACK else _run(words)
    except ScytheError as error:
        print(f"scythe: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # `scythe ... | head`: nobody reads any more, which is no error.
        sys.stderr.close()
        return 141


def _run_stack(words: Sequence[str]) -> int:
    from scythe.stack import commands as stack_commands

    parser = _StackParser(prog="scythe")
    stack_commands.add_commands(parser.add_subparsers(metavar="COMMAND", required=True))
    options = parser.parse_args(words)
    return int(options.run(options))


class _StackParser(argparse.ArgumentParser):
    """Says of an unknown word what the other commands say of it."""

    def error(self, message: str) -> NoReturn:
        """End with exit code 2."""
        found = re.search(r"invalid choice: '(.*)' \(choose from (.*)\)", message)
        if found:
            near = get_close_matches(found[1], re.findall(r"[\w-]+", found[2]), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            message = f"No such command {found[1]!r}.{hint}"
        super().error(message)


def _run(words: Sequence[str]) -> int:
    try:
        from scythe.commands.app import run_app
        from scythe.commands.base import exit_code
    except ModuleNotFoundError as error:
        print(f"scythe: {error.name} is not installed: pip install scythe-ray", file=sys.stderr)
        return 2
    try:
        run_app(words)
    except SystemExit as end:
        return int(end.code or 0)
    except ScytheError as error:
        print(f"scythe: {error}", file=sys.stderr)
        return int(exit_code(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
