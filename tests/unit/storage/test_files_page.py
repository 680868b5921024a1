"""docs/files.md says what is done with files: its tables are the rules of the code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from scythe.base import ExperimentOutputSpec
from scythe.outcomes import StoreConfig
from scythe.settings import CacheSettings
from scythe.storage import http
from scythe.storage.file_values import escape_key, file_ending
from scythe.storage.files import FileReference
from scythe.storage.leaf_files import OutputFiles
from scythe.storage.store import Store
from scythe.storage.uris import shown_uri

PAGE = (Path(__file__).parents[3] / "docs" / "files.md").read_text()


def rows_of(*head: str) -> list[list[str]]:
    """Return the rows of the table that has this head, without its marks for code."""
    lines = iter(PAGE.splitlines())
    wanted = f"| {' | '.join(head)} |"
    assert wanted in PAGE
    for line in lines:
        if line == wanted:
            next(lines)
            break
    rows: list[list[str]] = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().strip("`") for cell in line.strip("|").split("|")])
    return rows


@pytest.mark.parametrize(("name", "ending"), rows_of("file", "ending"))
def test_endings(name: str, ending: str) -> None:
    assert file_ending(Path(name)) == ending


@pytest.mark.parametrize(("key", "name"), rows_of("key", "in the name"))
def test_keys(key: str, name: str) -> None:
    assert escape_key(key) == name


@pytest.mark.parametrize(("uri", "shown"), rows_of("URL", "shown"))
def test_shown_urls(uri: str, shown: str) -> None:
    assert shown_uri(uri) == shown


def test_answers_and_limits() -> None:
    answers = rows_of("answer", "done")
    errors = {int(a): text.removeprefix("error: ") for a, text in answers if text[0] == "e"}
    assert errors == http.ADVICE
    assert {a for a, text in answers if text == "tried again"} == {"429", "500", "503"}
    assert f"for up to {http.ATTEMPTS} attempts" in PAGE
    assert CacheSettings.model_fields["MAX_BYTES"].default == 20 * 1024**3


class Note(BaseModel):
    pdf: FileReference


class Out(ExperimentOutputSpec):
    report: FileReference
    data: Path
    plots: list[FileReference]
    rooms: dict[str, FileReference]
    note: Note


def test_outputs(tmp_path: Path) -> None:
    stored: list[str] = []

    class Client:
        def upload_file(self, Filename: str, Bucket: str, Key: str) -> None:
            stored.append(Key)

    def file(name: str) -> Any:
        (tmp_path / name).touch()
        return tmp_path / name

    output = Out(
        report=file("r.html"),
        data=file("d.tar.gz"),
        plots=[file("a.png"), file("b.png")],
        rooms={"north": file("n.csv")},
        note=Note(pdf=file("n.pdf")),
    )
    store = Store(StoreConfig("b", ""), client=Client())
    uploads = OutputFiles(store, lambda field, path: f"{field}/<leaf>{path.suffix}", tmp_path)
    uploads.upload(output)
    rows = rows_of("field", "value", "object, below `results/`", "column", "value of the column")
    keys = [key.strip(" `") for row in rows for key in row[2].split(",")]
    assert stored == keys
    assert list(uploads.uris) == [row[3] for row in rows]
    kinds = {"the URI": str, "a list of URIs": list, "a JSON object of URIs by key": dict}
    assert [type(uri) for uri in uploads.uris.values()] == [kinds[row[4]] for row in rows]
    assert json.loads(json.dumps(uploads.uris)) == uploads.uris
