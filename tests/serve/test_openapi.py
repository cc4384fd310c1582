"""The OpenAPI document: complete, a snapshot in git, and no request made from it brings the server down."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from causerie.serve.openapi import openapi_document
from causerie.serve.table import TABLE
from tests.serve.conftest import Running
from tests.serve.test_faults import begin

ROOT = Path(__file__).parent.parent.parent
SCHEMATHESIS = os.environ.get("CAUSERIE_SCHEMATHESIS") or shutil.which("schemathesis")


def test_the_snapshot_is_current() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "openapi_snapshot.py"))
    kept = script["PLACE"].read_text("utf-8")
    assert kept == script["text"](), "a wanted change? run scripts/openapi_snapshot.py"


def test_every_route_is_in_it_with_its_right_and_its_body() -> None:
    document = openapi_document(TABLE)
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert len(operations) == len(TABLE)
    ids = [operation["operationId"] for operation in operations]
    assert len(set(ids)) == len(ids)
    assert all(operation["summary"] and operation["x-causerie-right"] for operation in operations)
    with_bodies = [operation for operation in operations if "requestBody" in operation]
    assert len(with_bodies) == sum(route.body is not None for route in TABLE) > 20
    names = document["components"]["schemas"].keys()
    used = set(json.dumps(document).split("#/components/schemas/")[1:])
    assert {text.partition('"')[0] for text in used} <= names


def test_the_server_tells_it(http: httpx.Client, server: Running) -> None:
    assert http.get("/openapi.json").json()["paths"].keys() == openapi_document(TABLE)["paths"].keys()
    text = http.get("/metrics").text
    assert "# TYPE causerie_requests_total counter" in text
    assert "causerie_answers_in_hand 0" in text
    assert all(line.startswith(("#", "causerie_")) for line in text.splitlines())


@pytest.mark.slow
@pytest.mark.skipif(not SCHEMATHESIS, reason="schemathesis is not here: name its program in CAUSERIE_SCHEMATHESIS")
def test_no_request_made_from_it_is_a_server_error(tmp_path: Path) -> None:
    """Slow: a few generated requests for each of all operations."""
    process, url, headers = begin(tmp_path, 0.0)
    assert SCHEMATHESIS
    try:
        header = f"api-key: {headers['api-key']}"
        command = [SCHEMATHESIS, "run", f"{url}/openapi.json", "-H", header, "-c", "not_a_server_error", "-n", "3"]
        command += ["--phases", "fuzzing", "--seed", "1", "--request-timeout", "20"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=250, cwd=tmp_path)
    finally:
        process.kill()
        process.wait(30)
    assert done.returncode == 0, done.stdout[-5000:]
