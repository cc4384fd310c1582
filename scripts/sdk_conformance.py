"""The openai Python SDK's own tests against our server.

    python scripts/sdk_conformance.py [--peer /path/to/folder] [--json]

The SDK's sdist (the version frozen in constraints.txt) carries its API tests; its wheel does not. They name fixed ids
(`file_id`, `completion_id`, ...) and arbitrary settings, so the server here is a lenient one with a tiny random model,
and a fixture project in which an object of every kind lies under those ids. It is filled anew before every test.

What is checked is that every answer decodes strictly into the SDK's types; what answers mean is checked by tests/serve.
Needs the package index for the first run (the sdist, and a virtual environment for it); without it, says so and stops.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from sdk_fixtures import Fixtures, start_server  # noqa: E402

SERVED = (
    "test_batches.py",
    "test_completions.py",
    "test_conversations.py",
    "test_embeddings.py",
    "test_evals.py",
    "test_files.py",
    "test_models.py",
    "test_moderations.py",
    "test_responses.py",
    "test_uploads.py",
    "test_vector_stores.py",
    "chat",
    "conversations",
    "evals",
    "fine_tuning",
    "responses",
    "uploads",
    "vector_stores",
    "admin/organization/test_usage.py",
)
"""Test files of the resources that we serve, below tests/api_resources."""

REASONS = (
    (r"test_uploads.*complete.*all_params", "md5 is the text 'md5', which is no MD5: refused"),
    (
        r"test_embeddings.*test_(method|raw_response|streaming_response)_create\[(strict|aiohttp)\]",
        "the SDK asks for base64 unasked, and its strict decoding then refuses base64 (a float list is declared)",
    ),
)
"""Why a failure is meant, by the test's name."""

PLUGIN = """
import os, urllib.request, pytest

@pytest.fixture(autouse=True)
def _fresh_fixture_project(request):
    url = os.environ["CAUSERIE_RESEED"]
    urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=60).read()
    yield
"""


def version() -> str:
    """The frozen version of the SDK."""
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line.startswith("openai=="):
            return line.partition("==")[2].strip()
    raise SystemExit("constraints.txt names no openai")


def prepare(peer: Path) -> Path:
    """The unpacked sdist, and beside it a virtual environment that can run its tests."""
    source = peer / f"openai-{version()}"
    python = peer / "venv" / "bin" / "python"
    peer.mkdir(parents=True, exist_ok=True)
    if not source.is_dir():
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:"]
        wanted = f"openai=={version()}"
        done = subprocess.run([*pip, "--no-build-isolation", "-d", str(peer), wanted], capture_output=True, text=True)
        archives = list(peer.glob("openai-*.tar.gz"))
        if not archives:
            raise SystemExit(f"the SDK's sdist cannot be had: {done.stderr[-500:]}")
        with tarfile.open(archives[0]) as archive:
            archive.extractall(peer, filter="data")
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(peer / "venv")], check=True)
        needs = [
            "pytest",
            "pytest-asyncio",
            "pytest-xdist",
            "respx",
            "dirty-equals",
            "httpx2",
            "inline-snapshot",
            "rich",
        ]
        subprocess.run(
            [
                str(python),
                "-m",
                "pip",
                "install",
                "-q",
                f"openai[aiohttp]=={version()}",
                *needs,
                "nest_asyncio",
                "time-machine",
            ],
            check=True,
        )
    return source


class Control(ThreadingHTTPServer):
    """Fills the fixture project anew on every POST."""

    def __init__(self, fixtures: Fixtures) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                fixtures.fill()
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                return

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


def run_tests(source: Path, base_url: str, reseed: str, extra: list[str]) -> list[tuple[str, str, str]]:
    """Outcome of every test: name, passed/failed/..., first line of what went wrong."""
    python = source.parent / "venv" / "bin" / "python"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "causerie_fixture_project.py").write_text(PLUGIN)
        report = Path(folder) / "report.xml"
        places = [f"tests/api_resources/{name}" for name in SERVED]
        command = [str(python), "-m", "pytest", "-q", "-o", "addopts=", "-p", "no:cacheprovider", "--tb=short"]
        command += ["-p", "causerie_fixture_project", f"--junitxml={report}", *extra, *places]
        paths = os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "TEST_API_BASE_URL": base_url, "CAUSERIE_RESEED": reseed, "PYTHONPATH": paths}
        done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True)
        if not report.exists():
            raise SystemExit(f"the tests did not run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return read_report(report)


def read_report(path: Path) -> list[tuple[str, str, str]]:
    """Outcomes in a JUnit file that pytest wrote just now."""
    import xml.etree.ElementTree as tree

    found = []
    for case in tree.parse(path).getroot().iter("testcase"):
        name = f"{case.get('classname', '').removeprefix('tests.api_resources.')}::{case.get('name')}"
        outcome, why = "passed", ""
        for child in case:
            if child.tag in ("failure", "error", "skipped"):
                outcome = {"failure": "failed", "error": "failed", "skipped": "skipped"}[child.tag]
                lines = [line for line in (child.get("message") or "").splitlines() if line.strip()]
                why = lines[0][:300] if lines else ""
        found.append((name, outcome, why))
    return found


def main() -> None:
    """Run, print the score, list what failed with its reason."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", type=Path, default=Path(tempfile.gettempdir()) / "causerie-openai-sdk")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("-k", default="", help="only tests whose names match, as in pytest")
    given = parser.parse_args()
    source = prepare(given.peer)
    started = time.monotonic()
    with start_server() as (url, fixtures):
        control = Control(fixtures)
        reseed = f"http://127.0.0.1:{control.server_address[1]}/"
        outcomes = run_tests(source, f"{url}/v1", reseed, ["-k", given.k] if given.k else [])
        control.shutdown()
    report(outcomes, time.monotonic() - started, given.json)


def report(outcomes: list[tuple[str, str, str]], seconds: float, as_json: bool) -> None:
    """Print the score; exit status 1 when a failure has no reason."""
    counts = Counter(outcome for _, outcome, _ in outcomes)
    failures = [(name, why, _reason(name)) for name, outcome, why in outcomes if outcome == "failed"]
    unexplained = [name for name, _, reason in failures if reason is None]
    print(f"openai {version()}: {counts['passed']} of {len(outcomes)} passed, {counts['failed']} failed,", end=" ")
    print(f"{counts['skipped']} skipped, {len(unexplained)} without a reason, {seconds:.0f} s")
    for name, why, reason in failures:
        print(f"  {name}\n    {reason or 'NO REASON: ' + why}")
    if as_json:
        print(json.dumps({"version": version(), **counts, "unexplained": unexplained, "seconds": round(seconds, 1)}))
    sys.exit(1 if unexplained else 0)


def _reason(name: str) -> str | None:
    return next((reason for pattern, reason in REASONS if re.search(pattern, name)), None)


if __name__ == "__main__":
    main()
