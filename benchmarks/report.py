"""Run all benchmarks and write docs/performance.md from what they print: `make bench`."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.serving import end_by_exit
from scythe.environment import require_engine
from scythe.stack.engine_build import engine_version

_PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
_BENCHMARKS = [
    "batch_cost",
    "throughput",
    "compute",
    "compute --seconds 1 --sizes 1 --work 160",  # longer runs, of which the ends are less
    "compute --seconds 0.1 --sizes auto --prefetch 0 --work 300",
    "classes",
    "scale",
    "reuse",
    "tree",
    "imports",
]


def section(title: str) -> str:
    """Run one benchmark, given as its name and options; its output appears as it comes."""
    name, *options = title.split()
    command = [sys.executable, "-m", f"benchmarks.{name}", *options]
    print(f"\n== {' '.join(command[2:])}", flush=True)
    lines: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                print(line, end="", flush=True)
                lines.append(line)
        except BaseException:
            process.terminate()
            raise
    if process.returncode != 0:
        raise SystemExit(f"benchmarks.{name} failed")
    table = "".join(lines)
    if options:
        return f"### {title}\n\n{table}"
    doc = __import__(f"benchmarks.{name}", fromlist=["x"]).__doc__ or ""
    return f"## {name}\n\n{doc.strip()}\n\n{table}"


def main() -> None:
    require_engine()
    end_by_exit()
    sections = [section(title) for title in sys.argv[1:] or _BENCHMARKS]
    head = (
        "# Performance\n\n"
        "Made by `make bench`, which prints ratios to something measured in the same run.\n\n"
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} CPUs, Python {platform.python_version()}, "
        f"Hatchet {engine_version()}, hatchet-sdk {version('hatchet-sdk')}, Ray {version('ray')}.\n"
        "The engine, its PostgreSQL, the S3 server, the workers and the scripts share these CPUs.\n"
    )
    _PAGE.write_text("\n".join([head, *sections]))
    print(f"\nwritten to {_PAGE}")


if __name__ == "__main__":
    main()
