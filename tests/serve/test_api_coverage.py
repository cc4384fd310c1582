"""The page about what is served is the one that the routes give."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from causerie.serve.table import TABLE


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script that writes the page."""
    path = Path(__file__).resolve().parents[2] / "scripts" / "api_coverage.py"
    spec = importlib.util.spec_from_file_location("api_coverage", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_current(script: ModuleType) -> None:
    assert script.is_current(), "run scripts/api_coverage.py"


def test_the_page_names_every_operation(script: ModuleType) -> None:
    text = script.PAGE.read_text(encoding="utf-8")
    for route in TABLE:
        assert script.bare(route.path.replace(":path", "")).split("/{}")[0] in text
    assert "POST `v1/content_provenance_checks` | no" in text


def test_fields_are_found_behind_references(script: ModuleType, pack: Path) -> None:
    import gzip
    import json

    with gzip.open(pack / "api" / "openai-openapi.json.gz") as file:
        spec = json.load(file)
    rows = {(row[0], row[1]): row for row in script.rows_of(spec)[0]}
    _, _, route, wanted, got, (total, deep, lost) = rows[("POST", "/chat/completions")]
    assert route is not None
    assert {"messages", "tools", "response_format", "stream", "store"} <= got <= wanted
    assert "web_search_options" in wanted - got
    assert 0 < deep < total
    assert "messages.content.image_url" in lost
    assert not {"messages.role", "tools.function", "tools.function.name", "response_format.json_schema"} & set(lost)
    assert script.page(spec) == script.PAGE.read_text(encoding="utf-8")


def test_fields_within_fields_are_compared_level_by_level(script: ModuleType) -> None:
    document = {
        "a": {"properties": {"x": {"$ref": "#/b"}, "free": {"type": "object"}}},
        "b": {"type": "array", "items": {"anyOf": [{"properties": {"y": {}}}, {"properties": {"z": {"$ref": "#/b"}}}]}},
    }
    tree = script.within(document, {"$ref": "#/a"})
    assert tree == {"x": {"y": {}, "z": {}}, "free": {"*": {}}}
    assert script.compare(tree, {"x": {"y": {}}, "free": {}}, "body") == (4, ["body.x.z"])
    assert script.compare({"x": {"y": {"deep": {}}}}, {"x": {}}, "body") == (3, ["body.x.y"])
    assert script.compare({"x": {"y": {}}}, {"x": {"*": {}}}, "body") == (2, [])
