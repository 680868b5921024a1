"""The test bed and its figures, without Ray and without the local stack."""

from __future__ import annotations

import http.server
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import psutil
import pytest

from tests.acceptance.running import wait_until
from tests.chaos.bed import Bed, why_not
from tests.chaos.nodes import GATEWAY, Node
from tests.chaos.report import Report
from tests.chaos.runs import WINDOW, Outcome, seconds_to_recover


class _Server(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def stack_env() -> Iterator[dict[str, str]]:
    """Three services on this machine's loopback."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Server) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        s3 = f"http://127.0.0.1:{server.server_port}"
        any_port = ("127.0.0.1", 0)
        with socket.create_server(any_port) as grpc, socket.create_server(any_port) as api:
            yield {
                "AWS_ENDPOINT_URL_S3": s3,
                "HATCHET_CLIENT_HOST_PORT": f"127.0.0.1:{grpc.getsockname()[1]}",
                "HATCHET_CLIENT_SERVER_URL": f"http://127.0.0.1:{api.getsockname()[1]}",
            }
        server.shutdown()
        thread.join()


def get(node: Node, url: str) -> str:
    """Ask for a URL on a node, and return what comes back, or the error's name."""
    code = (
        "import sys, urllib.request\n"
        "try: print(urllib.request.urlopen(sys.argv[1], timeout=2).read().decode())\n"
        "except Exception as error: print(error)\n"
    )
    log = node.folder / "get.log"
    log.unlink(missing_ok=True)
    assert node.start(sys.executable, "-c", code, url, log="get.log").wait(20) == 0
    return log.read_text().strip()


def test_a_node_reaches_the_stack_until_it_is_cut_off(stack_env: dict[str, str]) -> None:
    with Bed(stack_env) as bed:
        a, b = bed.add("a"), bed.add("b")
        url = bed.env["AWS_ENDPOINT_URL_S3"]
        assert url.startswith(f"http://{GATEWAY}:")
        assert [get(node, url) for node in (a, b)] == ["ok", "ok"]
        b.cut()
        assert "timed out" in get(b, url)
        assert get(a, url) == "ok"
        b.restore()
        wait_until(lambda: get(b, url) == "ok", "b is back", 20)
        bed.fail_s3()
        assert "503" in get(a, url)
        bed.heal_s3()
        assert get(a, url) == "ok"


def test_nothing_is_left_of_a_bed_whose_test_fails(stack_env: dict[str, str]) -> None:
    before = {one.pid for one in psutil.Process().children()}
    pids: list[int] = []
    bed = Bed(stack_env)

    def use_and_fail() -> None:
        with bed:
            a, b = bed.add("a"), bed.add("b")
            for node in (a, b):
                node.start("sleep", "600", log="sleep.log")
            a.kill()
            assert a.processes() == []
            pids.extend(one.pid for one in b.processes())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        use_and_fail()
    assert pids
    assert not any(map(psutil.pid_exists, pids))
    assert {one.pid for one in psutil.Process().children()} == before
    assert not bed.folder.exists()
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True)
    assert " br0" not in links.stdout


def test_the_pace_is_back_where_a_row_of_leaves_is_quick_again() -> None:
    before = [0.1 * n for n in range(20)]
    gap = [5.0, 9.0]
    after = [10.0 + 0.1 * n for n in range(20)]
    assert seconds_to_recover([*before, *gap, *after], fault=2.0) == pytest.approx(8.0)
    assert seconds_to_recover([*before, *gap], fault=2.0) == pytest.approx(7.0)  # never again
    assert len(before) > WINDOW
    assert seconds_to_recover(before, fault=2.0) == 0.0
    assert seconds_to_recover([0.0, 3.0], fault=1.0) == 2.0


def test_the_table_of_the_page() -> None:
    report = Report()
    assert report.table == ""
    report.add("power cut", Outcome(60, 0, 1, 2, 3, 4.04, 5.0))
    head, _, row = report.table.splitlines()
    assert [cell.strip() for cell in head.split("|")][1:4] == ["case", "leaves", "lost"]
    cells = [cell.strip() for cell in row.split("|")][1:-1]
    assert cells == ["power cut", "60", "0", "1", "2", "3", "4.0", "5.0"]
