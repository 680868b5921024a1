"""All tests in two pytest processes side by side: they mostly wait. `make test` runs this.

Each starts a stack of its own, so that no worker of one takes a task of the other. Options go on to
both.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

ROOT = Path(__file__).parent.parent
GIVEN = "SCYTHE_TEST_STACK_HOME"  # a stack that one session can use, and not two
NO_TESTS = 5  # pytest's exit code where none was chosen
PATIENCE = 90.0  # seconds that an interrupted side may take to end what it has started


@dataclass(frozen=True)
class Side:
    """The tests of one of the two processes.

    Args:
        name: Its name.
        tests: Its part of the tests, as words of pytest's command line.
    """

    name: str
    tests: tuple[str, ...]


# Each takes about half of the time.
SIDES = (
    Side("acceptance", ("tests/acceptance",)),
    Side("others", ("tests", "--ignore=tests/acceptance")),
)


class Running:
    """A side at work.

    Args:
        side: What it runs.
        folder: Takes its temporary files, its report, and its output unless that is shown live.
        variables: Its environment, beside that of this process.
        options: Further words of pytest's command line.
        live: Whether its output goes where that of this process goes.
    """

    def __init__(
        self,
        side: Side,
        folder: Path,
        variables: Mapping[str, str],
        options: Sequence[str],
        *,
        live: bool,
    ) -> None:
        self.side = side
        folder.mkdir()
        self._output = None if live else folder / "output"
        self._report = folder / "report.xml"
        command = [sys.executable, "-m", "pytest", *side.tests, *options]
        command += ["-o", f"cache_dir=.pytest_cache/{side.name}", f"--junitxml={self._report}"]
        command += [f"--basetemp={folder / 'tmp'}"]
        with open(self._output or os.devnull, "wb") as output:  # noqa: PTH123
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **variables},
                stdin=subprocess.DEVNULL,
                stdout=None if live else output,
                stderr=None if live else subprocess.STDOUT,
                start_new_session=True,  # a terminal's Ctrl-C comes once, from here
            )

    def end(self) -> int:
        """Wait for its end, show what it printed, and return its exit code."""
        code = self._process.wait()
        self.show()
        if not self._report.exists():
            print(f"\n== {self.side.name}: pytest is gone, with exit code {code} and no report.")
        return code

    def show(self) -> None:
        """Show what it printed, unless that was shown live."""
        if self._output is not None:
            print(f"\n== {self.side.name}", flush=True)
            sys.stdout.write(self._output.read_text(errors="replace"))
            sys.stdout.flush()

    def interrupt(self) -> None:
        """Ask it to stop, as Ctrl-C does."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)

    def stop(self) -> None:
        """Wait until it has stopped; end it where that takes too long."""
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def counts(self) -> Counter[str]:
        """Return how many of its tests passed, failed and were skipped."""
        if not self._report.exists():
            return Counter({"failed": 1})  # pytest itself
        found: Counter[str] = Counter()
        for suite in ET.parse(self._report).getroot():
            number = {key: int(suite.get(key, 0)) for key in ("tests", "errors", "failures")}
            found["failed"] += number["errors"] + number["failures"]
            found["skipped"] += int(suite.get("skipped", 0))
            found["passed"] += number["tests"]
        found["passed"] -= found["failed"] + found["skipped"]
        return found


def run(
    sides: Sequence[Side], folder: Path, variables: Mapping[str, str], options: Sequence[str] = ()
) -> int:
    """Run the sides at one time and return an exit code; the output of the first is shown live."""
    at_work: list[Running] = []
    try:
        for side in sides:
            one = Running(side, folder / side.name, variables, options, live=not at_work)
            at_work.append(one)
        codes = [one.end() for one in at_work]
    except KeyboardInterrupt:
        for one in at_work:
            one.interrupt()
        for one in at_work:
            one.stop()
        for one in at_work:
            one.show()
        return 128 + signal.SIGINT
    total = sum((one.counts() for one in at_work), Counter[str]())
    print("\n" + ", ".join(f"{total[what]} {what}" for what in ("passed", "failed", "skipped")))
    if set(codes) == {NO_TESTS}:
        return NO_TESTS
    return next((code for code in codes if code not in (0, NO_TESTS)), 0)


def main(options: Sequence[str]) -> int:
    """Run all tests."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix="sc-") as folder:
            os.environ.pop(GIVEN, None)
            return run(SIDES, Path(folder), {}, options)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
