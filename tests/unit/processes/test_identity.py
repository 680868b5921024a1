"""Processes that are told apart after their death."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from scythe.processes.identity import description_of_self, has_died


def test_a_process_tells_whether_another_has_died() -> None:
    program = (
        "import sys; from scythe.processes.identity import description_of_self\n"
        "print(description_of_self(), flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        description = process.stdout.readline()
        assert not has_died(description)
        process.kill()
        process.wait()
        assert has_died(description)


def test_one_that_cannot_be_seen_is_not_known_to_be_dead() -> None:
    _, pid, birth = json.loads(description_of_self())
    assert not has_died(json.dumps(["another machine", pid, f"{birth}, and more"]))
    assert has_died(json.dumps([json.loads(description_of_self())[0], pid, "before"]))


@pytest.mark.parametrize("text", ["", "one", "[1]", "[1, 2, 3, 4]", "null"])
def test_what_is_no_description_is_of_nobody(text: str) -> None:
    assert not has_died(text)
