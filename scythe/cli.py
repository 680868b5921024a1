"""The command `scythe`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from scythe.environment import check_installation
from scythe.errors import ScytheError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command `scythe`.

    Args:
        arguments: What follows the command's name; by default what the shell gave.

    Returns:
        The exit code.
    """
    try:
        check_installation(warn=lambda text: print(f"scythe: {text}", file=sys.stderr))
        options = _parser().parse_args(arguments)
        return int(options.run(options))
    except ScytheError as err:
        print(f"scythe: {err}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # `scythe ... | head`: nobody reads any more, which is no error.
        sys.stderr.close()
        return 141


def _parser() -> argparse.ArgumentParser:
    # One line for each family of commands: a module with `add_commands`.
    from scythe.stack import commands as stack_commands

    parser = argparse.ArgumentParser(
        prog="scythe", description="Typed, embarrassingly parallel experiments."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    stack_commands.add_commands(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
