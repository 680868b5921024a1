"""One object owns every key, and no name leads out of its folder."""

from __future__ import annotations

import pytest

from scythe.errors import OutputError, SpecError
from scythe.storage.layout import RunLayout, check_path, check_table_name

RUN = "wall/v1.2.0/2025-01-01_10-00-00"


def test_the_keys_of_a_run_are_those_of_scythe_engine() -> None:
    layout = RunLayout("scythe", RUN)
    root = f"scythe/{RUN}/"
    assert layout.prefix == root
    assert layout.manifest == f"{root}manifest.yml"
    assert layout.io_spec == f"{root}experiment_io_spec.yml"
    assert layout.input_artifacts == f"{root}input_artifacts.yml"
    assert layout.workflow_spec == f"{root}workflow_spec.yml"
    assert layout.specs == f"{root}specs.pq"
    assert layout.artifact("weather", "oslo.epw") == f"{root}artifacts/weather/oslo.epw"
    assert layout.final_table("scalars") == f"{root}final/scalars.pq"
    assert layout.status == f"{root}status.json"
    assert layout.node_table("3-0", "scalars") == f"{root}scatter-gather/output/3-0/scalars.pq"


def test_all_keys_are_below_the_prefix_and_different() -> None:
    layout = RunLayout("scythe", RUN)
    keys = [
        *[layout.manifest, layout.io_spec, layout.input_artifacts, layout.workflow_spec],
        *[layout.specs, layout.status, layout.artifacts, layout.final],
        layout.artifact("a", "b"),
        layout.final_table("t"),
        layout.node_table("root", "t"),
        layout.node_status("root"),
        layout.leaf_table("00000001-x", "t"),
        layout.leaf_scalars("00000001-x"),
    ]
    assert len(set(keys)) == len(keys)
    assert all(key.startswith(layout.prefix) for key in keys)


@pytest.mark.parametrize("prefix", ["scythe", ""])
def test_claims_lie_beside_the_folder_of_the_run(prefix: str) -> None:
    claims = RunLayout(prefix, "walls/v1.0.0/2026-01-02_03-04-05").claims
    assert claims == f"{prefix}/walls/v1.0.0/.claims/2026-01-02_03-04-05.".lstrip("/")


@pytest.mark.parametrize("prefix", ["", "/", "scythe/", "/a/b/"])
def test_the_prefix_of_the_bucket_may_have_slashes_or_be_empty(prefix: str) -> None:
    assert RunLayout(prefix, "n/v1/d").prefix == f"{prefix.strip('/')}/n/v1/d/".lstrip("/")


GOOD = [
    "a",
    "a/b/c",
    "mit leer/zeichen",
    "ünï/中文/😀",
    "100%",
    "a#b?c",
    "..a/b..",
    "...",
    "a.b",
    "~",
    "-",
]
BAD = [
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "../a",
    "a/../b",
    "a/..",
    "./a",
    "a/.",
    "a\x00b",
    "a\n",
    "a\nb",
    "\t",
    "..\n",
]


@pytest.mark.parametrize("path", GOOD)
def test_plain_relative_paths(path: str) -> None:
    check_path("run_name", path)
    assert RunLayout("p", path).prefix == f"p/{path}/"


@pytest.mark.parametrize("path", BAD)
def test_paths_that_leave_their_folder_or_have_no_form(path: str) -> None:
    with pytest.raises(SpecError, match=r"run_name .* is not a plain relative path"):
        check_path("run_name", path)
    with pytest.raises(SpecError):
        RunLayout("p", path)
    with pytest.raises(SpecError):
        RunLayout.below_prefix("p", path)
    with pytest.raises(SpecError):
        RunLayout("p", "run").final_table(path)


@pytest.mark.parametrize("name", ["loads", "my errors", "ü" * 90, "100%", "..x", "a.b"])
def test_table_names(name: str) -> None:
    check_table_name(name)


@pytest.mark.parametrize("name", ["", "a/b", "..", ".", "x\n", "ü" * 91, "x" * 181, "a\x00"])
def test_table_names_that_are_no_file_names(name: str) -> None:
    with pytest.raises(OutputError, match="table name"):
        check_table_name(name)
