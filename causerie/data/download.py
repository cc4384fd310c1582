"""`data download`: the files of a list (a Common Crawl `warc.paths.gz`, for instance), politely and resumably.

Each file is asked for once at a time, with a pause between requests and a limit on the rate. What has arrived stays
in a `.part` file: a second start asks for the rest (`Range`, guarded by `If-Range`), and a file takes its name only
when its length and checksum are right.
"""

from __future__ import annotations

import email.utils
import gzip
import hashlib
import json
import math
import os
import re
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

import causerie
from causerie.core import Stopped, artifact_key, graceful_stop, open_run, say, track
from causerie.data.addresses import host_of
from causerie.data.errors import data_error

if TYPE_CHECKING:
    import httpx

MAX_WAIT: Final = 3600.0
"""Seconds that a server's `Retry-After` is believed, at most."""
MD5_TAG: Final = re.compile(r'"([0-9a-f]{32})"')
REFUSED: Final = frozenset(range(400, 500)) - {408, 416, 425, 429}
"""Answers after which asking again is of no use."""

Sleep = Callable[[float], None]


@dataclass(frozen=True)
class DownloadConfig:
    """Download the files of a list."""

    paths: Path
    """List of files, one path a line, plain or gzip; a SHA-256 may follow after white space."""
    out: Path
    """Folder that the files go to, under their paths."""
    base: str = "https://data.commoncrawl.org/"
    """Address that the paths are joined to."""
    first: int = 0
    """Number of the first file of the list, from 0."""
    count: int = 1
    """How many files are taken from there; 0: all."""
    pause_seconds: float = 1.0
    """Pause between two requests."""
    megabytes_per_second: float = 10.0
    """Rate that is not passed; 0: no limit."""
    retries: int = 8
    """Times that a file is asked for again after a failure."""
    timeout_seconds: float = 60.0
    """Seconds of silence after which a connection is given up."""


@dataclass(frozen=True)
class Wanted:
    """One file of the list."""

    path: str
    sha256: str = ""


@dataclass
class Downloaded:
    """What became of a list."""

    path: str
    files: int = 0
    present: int = 0
    bytes: int = 0
    requests: int = 0
    failed: list[dict[str, str]] = field(default_factory=list)


class FileFailed(Exception):
    """A file that cannot be had; the others still can."""


def read_paths(path: Path) -> list[Wanted]:
    """The files of a list.

    Raises:
        CauserieError: CAU-2014 when the list cannot be read, or a path in it would leave the folder.
    """
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode()
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise data_error("CAU-2014", f"it cannot be read: {error}", where=str(path), fix="fetch it again") from error
    wanted = []
    for number, line in enumerate(text.split("\n"), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        digest = words[1].lower().removeprefix("sha256:") if len(words) == 2 else ""
        if len(words) > 2 or not _is_inside(words[0]) or (digest and not re.fullmatch(r"[0-9a-f]{64}", digest)):
            cause = f"{line.strip()[:120]!r} is no path below a folder (and a SHA-256)"
            raise data_error("CAU-2014", cause, where=f"{path}:{number}", fix="take this line out of the list")
        wanted.append(Wanted(words[0], digest))
    return wanted


def _is_inside(path: str) -> bool:
    pure = PurePosixPath(path)
    plain = path.isprintable() and not set(path) & set('\\:?#%*"<>|')
    return plain and bool(pure.parts) and not pure.is_absolute() and ".." not in pure.parts and not path.endswith("/")


def download(config: DownloadConfig, workspace: Path, sleep: Sleep = time.sleep) -> Downloaded:
    """Download what of the list is not there yet.

    Raises:
        CauserieError: CAU-2003 for values, CAU-2014 for the list.
        Stopped: on SIGTERM or SIGINT; the same command goes on where it was.
    """
    import httpx

    _check(config)
    listed = read_paths(config.paths)
    wanted = listed[config.first : config.first + config.count if config.count else None]
    if not wanted:
        cause = f"the list has {len(listed)} files, none from number {config.first} on"
        raise data_error("CAU-2014", cause, where=str(config.paths), fix="check the list and --first")
    config.out.mkdir(parents=True, exist_ok=True)
    report = Downloaded(str(config.out))
    key = artifact_key("download", {"out": str(config.out.resolve())}, {})
    agent = {"User-Agent": f"causerie/{causerie.__version__} (data download)", "Accept-Encoding": "identity"}
    with (
        open_run(workspace, "download", "download", key, {"base": config.base, "files": len(wanted)}) as run,
        graceful_stop() as stop,
        httpx.Client(headers=agent, timeout=config.timeout_seconds, follow_redirects=True, max_redirects=5) as client,
        track("files", len(wanted), "files") as bar,
    ):
        line = _Line(client, config, report, sleep, stop)
        for item in wanted:
            try:
                line.fetch(item)
            except FileFailed as error:
                report.failed.append({"path": item.path, "cause": str(error)})
                say(f"left out {item.path}: {error}")
            run.log("file", path=item.path)
            bar.advance(1, megabytes=round(report.bytes / 1e6, 1), failed=len(report.failed))
    return report


def _check(config: DownloadConfig) -> None:
    least = {
        "first": 0,
        "count": 0,
        "pause_seconds": 0,
        "megabytes_per_second": 0,
        "retries": 0,
        "timeout_seconds": 0.1,
    }
    for name, limit in least.items():
        if not limit <= getattr(config, name) < math.inf:
            cause = f"{getattr(config, name)} is no number from {limit}"
            raise data_error("CAU-2003", cause, where=f"--{name.replace('_', '-')}", fix="give a larger number")
    if not config.base.startswith(("https://", "http://")) or not host_of(config.base):
        raise data_error("CAU-2003", f"{config.base!r} is no web address", where="--base", fix="give https://…/")


@dataclass
class _Line:
    """The one connection that files are asked for on."""

    client: httpx.Client
    config: DownloadConfig
    report: Downloaded
    sleep: Sleep
    stop: Callable[[], bool]

    def fetch(self, item: Wanted) -> None:
        """One file, however many requests it takes."""
        import httpx

        final = self.config.out / item.path
        if final.is_symlink() or not final.resolve().is_relative_to(self.config.out.resolve()):
            raise FileFailed("a link in the folder leads outside of it")
        if final.is_file():
            self.report.present += 1
            return
        final.parent.mkdir(parents=True, exist_ok=True)
        part = _Part(final)
        failures = 0
        while True:
            try:
                self._request(item, part)
                break
            except (httpx.HTTPError, _AskAgain, OSError) as error:
                if isinstance(error, OSError) and not isinstance(error, ConnectionError):
                    raise FileFailed(f"it cannot be written: {error.strerror}") from error
                failures += 1
                if failures > self.config.retries:
                    raise FileFailed(f"{failures} attempts: {error or type(error).__name__}") from error
                wait = error.wait if isinstance(error, _AskAgain) and error.wait else min(60.0, 2.0**failures)
                self.sleep(wait)
        part.finish()
        self.report.files += 1

    def _request(self, item: Wanted, part: _Part) -> None:
        """Ask for what is missing of a file.

        Raises:
            _AskAgain: the answer was no, or not whole, but may be another time.
            FileFailed: it will not be another time.
        """
        if self.report.requests:
            self.sleep(self.config.pause_seconds)
        self.report.requests += 1
        url = self.config.base.rstrip("/") + "/" + item.path
        with self.client.stream("GET", url, headers=part.headers()) as answer:
            self._take(answer, item, part)

    def _take(self, answer: httpx.Response, item: Wanted, part: _Part) -> None:
        status = answer.status_code
        if status in REFUSED:
            raise FileFailed(f"the server answered {status}")
        if status == 416 and part.have and _total(answer) == part.have:
            part.check(item.sha256, "")
            return
        if status not in (200, 206):
            if status == 416:
                part.drop()
            raise _AskAgain(f"the server answered {status}", _retry_after(answer))
        if status == 206 and _start(answer) != part.have:
            part.drop()
            raise _AskAgain("the server sent another part than was asked for")
        if status == 200:
            part.drop()
        total = _total(answer)
        part.note(answer.headers.get("ETag", ""), total)
        begun, before = time.monotonic(), part.have
        with open(part.path, "ab") as file:
            for chunk in answer.iter_raw():
                file.write(chunk)
                part.have += len(chunk)
                self.report.bytes += len(chunk)
                self._hold(part.have - before, time.monotonic() - begun)
                if self.stop():
                    raise Stopped("stopped; run the same command again to go on")
            file.flush()
            os.fsync(file.fileno())
        if total is not None and part.have != total:
            if part.have > total:
                part.drop()
            raise _AskAgain(f"{part.have} of {total} bytes arrived")
        tag = MD5_TAG.fullmatch(answer.headers.get("ETag", "")) if answer.headers.get("Server") == "AmazonS3" else None
        part.check(item.sha256, tag.group(1) if tag else "")

    def _hold(self, size: int, seconds: float) -> None:
        if self.config.megabytes_per_second:
            ahead = size / (self.config.megabytes_per_second * 1e6) - seconds
            if ahead > 0.05:
                self.sleep(ahead)


class _AskAgain(Exception):
    def __init__(self, cause: str, wait: float = 0.0) -> None:
        super().__init__(cause)
        self.wait = wait


class _Part:
    """What has arrived of a file, and which version of it that is."""

    def __init__(self, final: Path) -> None:
        self.final = final
        self.path = final.with_name(final.name + ".part")
        self._facts = final.with_name(final.name + ".part.json")
        self.have = self.path.stat().st_size if self.path.is_file() else 0
        self._tag = _tag_in(self._facts)
        if self.have and not self._tag:
            self.drop()  # nobody can say what it is a part of

    def headers(self) -> dict[str, str]:
        return {"Range": f"bytes={self.have}-", "If-Range": self._tag} if self.have else {}

    def note(self, tag: str, total: int | None) -> None:
        """Keep the version's name; a weak or missing one (`W/`) cannot be resumed."""
        self._tag = "" if tag.startswith("W/") else tag
        self._facts.write_text(json.dumps({"etag": self._tag, "bytes": total}), encoding="utf-8")

    def check(self, sha256: str, md5: str) -> None:
        """Compare with the checksums that are known.

        Raises:
            _AskAgain: another file arrived than was meant.
        """
        for name, expected in (("sha256", sha256), ("md5", md5)):
            if expected and _digest(self.path, name) != expected:
                self.drop()
                raise _AskAgain(f"its {name} is wrong")

    def drop(self) -> None:
        self.path.unlink(missing_ok=True)
        self.have = 0

    def finish(self) -> None:
        os.replace(self.path, self.final)
        self._facts.unlink(missing_ok=True)


def _tag_in(path: Path) -> str:
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["etag"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _digest(path: Path, name: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(name, usedforsecurity=False)).hexdigest()


def _numbers(answer: httpx.Response) -> tuple[int | None, int | None]:
    """First byte and whole length that `Content-Range` gives."""
    found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", answer.headers.get("Content-Range", ""))
    if found is None:
        return None, None
    start, total = found.groups()
    return int(start) if start else None, int(total) if total != "*" else None


def _start(answer: httpx.Response) -> int | None:
    return _numbers(answer)[0]


def _total(answer: httpx.Response) -> int | None:
    if answer.status_code in (206, 416):
        return _numbers(answer)[1]
    length = answer.headers.get("Content-Length", "")
    return int(length) if length.isdigit() else None


def _retry_after(answer: httpx.Response) -> float:
    """Seconds that the server asks to wait, 0 when it does not say."""
    said = answer.headers.get("Retry-After", "").strip()
    if said.isdigit():
        return min(float(said), MAX_WAIT)
    when = email.utils.parsedate_tz(said)
    return min(max(email.utils.mktime_tz(when) - time.time(), 0.0), MAX_WAIT) if when else 0.0


def download_failures(report: Downloaded) -> str:
    """Why the list is not whole, or ""."""
    return f"{len(report.failed)} files could not be had" if report.failed else ""


def describe_download(report: Downloaded) -> str:
    """The result for people."""
    return "\n".join(_lines(report))


def _lines(report: Downloaded) -> Iterator[Any]:
    yield f"{report.path}: {report.files} files fetched, {report.bytes / 1e6:.1f} MB; {report.present} were there"
    for row in report.failed:
        yield f"  not had: {row['path']}: {row['cause']}"
