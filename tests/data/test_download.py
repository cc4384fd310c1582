"""Downloads against a real HTTP server on this machine: resume, checksums, politeness, and what is refused."""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from causerie.core import CauserieError
from causerie.data import DownloadConfig, describe_download, download, download_failures
from causerie.data.download import read_paths

FILES = {name: hashlib.sha256(name.encode()).digest() * 4_000 for name in ("crawl/a.gz", "crawl/b.gz", "c.gz")}


@dataclass
class Server:
    """What the server was asked, and how it misbehaves."""

    base: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)
    trouble: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    cut: int = 0
    etag: str = '"v1"'
    ranges: bool = True
    kind: str = "plain"


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:
            name, wanted = self.path[1:], self.headers.get("Range", "")
            state.asked.append((name, wanted))
            if state.trouble:
                status, headers = state.trouble.pop(0)
                return self.reply(status, b"", headers)
            if name not in FILES:
                return self.reply(404, b"", {})
            content, headers, status = FILES[name], {"ETag": state.etag, "Server": state.kind}, 200
            if wanted and state.ranges and self.headers.get("If-Range") == state.etag:
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
                if start >= len(content):
                    return self.reply(416, b"", {"Content-Range": f"bytes */{len(content)}"})
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
                content, status = content[start:], 206
            self.reply(status, content, headers)

        def reply(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response_only(status)
            for key, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            cut, state.cut = state.cut, 0
            self.wfile.write(content[: cut or None])
            if cut:
                self.close_connection = True

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.base = f"http://127.0.0.1:{httpd.server_port}/"
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
    thread.start()
    yield state
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.fixture
def waits() -> list[float]:
    return []


def run(tmp_path: Path, server: Server, waits: list[float], text: str | None = None, **given):
    paths = tmp_path / "paths.gz"
    paths.write_bytes(gzip.compress(("\n".join(FILES) if text is None else text).encode()))
    values = {"count": 0, "pause_seconds": 0.5, "megabytes_per_second": 0.0, **given}
    config = DownloadConfig(paths=paths, out=tmp_path / "out", base=server.base, **values)
    return download(config, tmp_path / "ws", sleep=waits.append)


def got(tmp_path: Path) -> dict[str, bytes]:
    out = tmp_path / "out"
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_files_arrive_whole_with_a_pause_between_them(tmp_path: Path, server: Server, waits: list[float]) -> None:
    report = run(tmp_path, server, waits)
    assert got(tmp_path) == FILES
    assert (report.files, report.bytes, report.failed) == (3, sum(map(len, FILES.values())), [])
    assert waits == [0.5, 0.5]
    again = run(tmp_path, server, waits)
    assert (again.files, again.present, again.requests) == (0, 3, 0)


def test_a_slice_of_the_list(tmp_path: Path, server: Server, waits: list[float]) -> None:
    run(tmp_path, server, waits, first=1, count=1)
    assert list(got(tmp_path)) == ["crawl/b.gz"]


def test_a_connection_that_breaks_goes_on_where_it_was(tmp_path: Path, server: Server, waits: list[float]) -> None:
    server.cut = 50_000
    run(tmp_path, server, waits, "c.gz")
    assert got(tmp_path) == {"c.gz": FILES["c.gz"]}
    assert [wanted for _, wanted in server.asked] == ["", "bytes=50000-"]


def test_a_second_start_asks_for_the_rest(tmp_path: Path, server: Server, waits: list[float]) -> None:
    server.cut = 60_000
    first = run(tmp_path, server, waits, "c.gz", retries=0)
    assert "1 attempts" in first.failed[0]["cause"]
    assert (tmp_path / "out" / "c.gz.part").stat().st_size == 60_000
    second = run(tmp_path, server, waits, "c.gz")
    assert second.bytes == len(FILES["c.gz"]) - 60_000
    assert got(tmp_path) == {"c.gz": FILES["c.gz"]}


@pytest.mark.parametrize("change", ["version", "no ranges"])
def test_another_version_of_the_file_begins_anew(tmp_path: Path, server: Server, waits: list, change: str) -> None:
    server.cut = 60_000
    run(tmp_path, server, waits, "c.gz", retries=0)
    (tmp_path / "out" / "c.gz.part").write_bytes(b"x" * 60_000)
    if change == "version":
        server.etag = '"v2"'
    else:
        server.ranges = False
    run(tmp_path, server, waits, "c.gz")
    assert got(tmp_path) == {"c.gz": FILES["c.gz"]}


def test_a_whole_part_is_recognised(tmp_path: Path, server: Server, waits: list[float]) -> None:
    server.cut = 60_000
    run(tmp_path, server, waits, "c.gz", retries=0)
    (tmp_path / "out" / "c.gz.part").write_bytes(FILES["c.gz"])
    run(tmp_path, server, waits, "c.gz")
    assert got(tmp_path) == {"c.gz": FILES["c.gz"]}


@pytest.mark.parametrize(
    ("said", "waited"), [("7", 7.0), ("99999", 3600.0), (formatdate(0, usegmt=True), 2.0), ("soon", 2.0), ("", 2.0)]
)
@pytest.mark.parametrize("status", [429, 503])
def test_the_server_says_when_to_come_back(tmp_path: Path, server: Server, waits: list, said: str, waited, status):
    server.trouble = [(status, {"Retry-After": said})]
    run(tmp_path, server, waits, "c.gz")
    assert waits[0] == waited
    assert got(tmp_path) == {"c.gz": FILES["c.gz"]}


def test_waits_grow_and_end(tmp_path: Path, server: Server, waits: list[float]) -> None:
    server.trouble = [(500, {})] * 9
    report = run(tmp_path, server, waits, "c.gz", retries=7, pause_seconds=0.0)
    assert [wait for wait in waits if wait] == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert report.failed == [{"path": "c.gz", "cause": "8 attempts: the server answered 500"}]
    assert download_failures(report) == "1 files could not be had"
    assert "not had: c.gz" in describe_download(report)


def test_what_is_not_there_is_not_asked_for_again_and_the_others_come(tmp_path: Path, server: Server, waits) -> None:
    report = run(tmp_path, server, waits, "missing.gz\n# a remark\n\nc.gz\n")
    assert [row["cause"] for row in report.failed] == ["the server answered 404"]
    assert list(got(tmp_path)) == ["c.gz"]
    assert len(server.asked) == 2


def test_checksums_decide(tmp_path: Path, server: Server, waits: list[float]) -> None:
    right = hashlib.sha256(FILES["c.gz"]).hexdigest()
    run(tmp_path, server, waits, f"c.gz sha256:{right}\n")
    report = run(tmp_path, server, waits, f"crawl/a.gz {right}\n", retries=1)
    assert report.failed == [{"path": "crawl/a.gz", "cause": "2 attempts: its sha256 is wrong"}]
    assert list(got(tmp_path)) == ["c.gz", "crawl/a.gz.part.json"]


def test_amazons_etag_is_a_checksum(tmp_path: Path, server: Server, waits: list[float]) -> None:
    server.kind, server.etag = "AmazonS3", f'"{hashlib.md5(FILES["c.gz"]).hexdigest()}"'
    assert run(tmp_path, server, waits, "c.gz").files == 1
    assert run(tmp_path, server, waits, "crawl/a.gz", retries=0).failed[0]["cause"] == "1 attempts: its md5 is wrong"


def test_the_rate_is_held(tmp_path: Path, server: Server, waits: list[float]) -> None:
    run(tmp_path, server, waits, "c.gz", megabytes_per_second=0.1)
    assert waits[-1] == pytest.approx(len(FILES["c.gz"]) / 1e5, rel=0.3)


@pytest.mark.parametrize(
    "line",
    ["../x", "a/../../x", "/etc/passwd", "a\\b", "http://other.example/x", "a?b=1", "a/", "x y z", "a\x00b", "c.gz 12"],
)
def test_paths_that_leave_the_folder_are_refused_with_their_line(tmp_path: Path, line: str) -> None:
    paths = tmp_path / "paths"
    paths.write_text(f"fine.gz\n{line}\n")
    with pytest.raises(CauserieError, match=r"CAU-2014") as caught:
        read_paths(paths)
    assert caught.value.where == f"{paths}:2"


def test_links_in_the_folder_lead_nowhere_else(tmp_path: Path, server: Server, waits: list[float]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "crawl").symlink_to(tmp_path / "elsewhere")
    report = run(tmp_path, server, waits)
    assert [row["path"] for row in report.failed] == ["crawl/a.gz", "crawl/b.gz"]
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_values_are_checked(tmp_path: Path, server: Server, waits: list[float]) -> None:
    for name, value in (("retries", -1), ("timeout_seconds", 0.0), ("pause_seconds", -0.1)):
        with pytest.raises(CauserieError, match="CAU-2003"):
            run(tmp_path, server, waits, **{name: value})
    server.base = "ftp://x.example/"
    with pytest.raises(CauserieError, match="no web address"):
        run(tmp_path, server, waits)
    with pytest.raises(CauserieError, match="CAU-2014"):
        read_paths(tmp_path / "missing")
