"""Input files: each once, none lost because of its name, and unreadable ones said by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from scythe.errors import SpecError
from scythe.storage.artifacts import InputArtifacts
from scythe.storage.layout import RunLayout

ROOT = "scythe/wall/v1.0.0/d/artifacts"


@pytest.fixture
def artifacts() -> InputArtifacts:
    return InputArtifacts(RunLayout("scythe", "wall/v1.0.0/d"))


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_one_file_of_many_specs_is_one_upload(artifacts: InputArtifacts, tmp_path: Path) -> None:
    file = write(tmp_path / "oslo.epw")
    keys = {artifacts.add("weather", file, spec) for spec in range(1000)}
    assert keys == {f"{ROOT}/weather/oslo.epw"}
    assert len(artifacts.keys) == 1


def test_one_file_by_two_paths_is_one_upload(
    artifacts: InputArtifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "sub" / "oslo.epw")
    monkeypatch.chdir(tmp_path)
    for path in (file, Path("sub/oslo.epw"), Path("sub/../sub/oslo.epw")):
        assert artifacts.add("weather", path, 0) == f"{ROOT}/weather/oslo.epw"
    assert len(artifacts.keys) == 1


def test_files_of_one_name_from_several_folders_are_all_kept(
    artifacts: InputArtifacts, tmp_path: Path
) -> None:
    files = [write(tmp_path / folder / "oslo.epw", folder) for folder in ("a", "b", "c")]
    keys = [artifacts.add("weather", file, 0) for file in files]
    assert keys[0] == f"{ROOT}/weather/oslo.epw"
    assert len(set(keys)) == 3
    assert all(key.startswith(f"{ROOT}/weather/") and key.endswith("/oslo.epw") for key in keys)
    assert [artifacts.add("weather", file, 1) for file in files] == keys


def test_fields_have_folders_of_their_own(artifacts: InputArtifacts, tmp_path: Path) -> None:
    file = write(tmp_path / "oslo.epw")
    assert artifacts.add("weather", file, 0) != artifacts.add("other", file, 0)


@pytest.mark.parametrize(
    "name", ["mit leer.csv", "100%.csv", "a#b?c.csv", "ü中😀.csv", "a\nb.csv", " x "]
)
def test_any_file_name(artifacts: InputArtifacts, name: str, tmp_path: Path) -> None:
    assert artifacts.add("f", write(tmp_path / name), 0) == f"{ROOT}/f/{name}"


@pytest.mark.parametrize(
    ("name", "reason"),
    [("gone.epw", "No such file"), (".", "Is a directory"), ("no/deep", "No such")],
)
def test_files_that_cannot_be_read(
    artifacts: InputArtifacts, name: str, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(
        SpecError, match=f"Spec 7: the file of field 'weather', .*{reason}"
    ) as error:
        artifacts.add("weather", tmp_path / name, 7)
    assert "Nothing was uploaded or started" in str(error.value)
    assert artifacts.keys == {}


def test_a_relative_path_names_the_folder_it_starts_at(artifacts: InputArtifacts) -> None:
    with pytest.raises(SpecError, match="relative ones start at"):
        artifacts.add("weather", Path("not/there"), 0)
