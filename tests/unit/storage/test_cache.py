"""The cache stays below its size, oldest out first, and never takes a file that is in use."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from scythe.errors import WorkerStartError
from scythe.storage import cache
from scythe.storage.fetch import begin_leaf, cached_path, end_leaf, fetch_uri
from tests.acceptance.running import wait_until

SIZE = 100_000


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCYTHE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("SCYTHE_CACHE_MAX_BYTES", str(3 * SIZE))
    monkeypatch.setattr(cache, "_budget", 0)
    return tmp_path / "cache" / "files"


def uri_of(tmp_path: Path, number: int) -> str:
    source = tmp_path / f"{number}.bin"
    source.write_bytes(bytes(SIZE))
    return source.as_uri()


def fetch(tmp_path: Path, number: int) -> Path:
    uri = uri_of(tmp_path, number)
    path = fetch_uri(uri, cached_path(uri))
    os.utime(path, (time.time() + number - 1000,) * 2)  # one second after the one before
    return path


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path, folder: Path) -> None:
    paths = [fetch(tmp_path, number) for number in range(3)]
    assert all(path.exists() for path in paths)
    uri = uri_of(tmp_path, 0)
    assert fetch_uri(uri, cached_path(uri)) == paths[0]  # it is used again
    paths.append(fetch(tmp_path, 3))
    assert [path.exists() for path in paths] == [True, False, True, True]
    assert len(list(folder.iterdir())) == 3  # its folder is gone too


def test_a_file_larger_than_the_cache_is_there_for_who_fetched_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCYTHE_CACHE_MAX_BYTES", "10KB")
    first, second = fetch(tmp_path, 0), fetch(tmp_path, 1)
    assert (first.exists(), second.exists()) == (False, True)


def test_a_file_that_a_leaf_uses_is_kept_also_by_other_processes(tmp_path: Path) -> None:
    code = f"""
        import sys
        from pathlib import Path
        import time
        from scythe.storage.fetch import begin_leaf, cached_path, end_leaf, fetch_uri
        begin_leaf(time.monotonic() + 60)
        print(fetch_uri({uri_of(tmp_path, 0)!r}, cached_path({uri_of(tmp_path, 0)!r})), flush=True)
        sys.stdin.readline()
        end_leaf()
        print("let go", flush=True)
        sys.stdin.readline()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        path = Path(process.stdout.readline().strip())
        os.utime(path, (0, 0))
        others = [fetch(tmp_path, number) for number in range(1, 5)]
        assert path.exists()
        assert sum(other.exists() for other in others) == 2
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline().strip() == "let go"
        fetch(tmp_path, 5)
        assert not path.exists()
    finally:
        process.kill()
        process.communicate()


def test_a_leaf_leaves_no_file_open(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")  # noqa: PTH208
    begin_leaf(time.monotonic() + 60)
    fetch(tmp_path, 0)
    assert len(os.listdir("/proc/self/fd")) > len(before)  # noqa: PTH208
    end_leaf()
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208


def test_parts_of_killed_processes_are_removed(tmp_path: Path, folder: Path) -> None:
    orphan = folder / "x" / ".part-abc"
    orphan.parent.mkdir(parents=True)
    orphan.write_bytes(bytes(10 * SIZE))
    os.utime(orphan, (0, 0))
    path = fetch(tmp_path, 0)
    assert not orphan.exists()
    assert path.exists()


def test_many_processes_at_the_limit_get_their_files(tmp_path: Path, folder: Path) -> None:
    uris = [uri_of(tmp_path, number) for number in range(8)]
    code = f"""
        import sys
        import time
        from scythe.storage.fetch import begin_leaf, cached_path, end_leaf, fetch_uri
        uris = {uris!r}
        for turn in range(40):
            begin_leaf(time.monotonic() + 60)
            uri = uris[(turn * 3 + int(sys.argv[1])) % len(uris)]
            assert len(fetch_uri(uri, cached_path(uri)).read_bytes()) == {SIZE}
            end_leaf()
    """
    processes = [
        subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), str(number)])
        for number in range(4)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0] * 4

    def size() -> int:
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    fetch(tmp_path, 9)
    wait_until(lambda: size() <= 3 * SIZE, "the cache is below its limit", 10)


def test_a_cache_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.check_cache()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SCYTHE_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.raises(WorkerStartError, match="Set SCYTHE_CACHE_DIR to a writable folder"):
        cache.check_cache()
