"""docs/api-coverage.md: what of OpenAI's published specification we serve, operation by operation and field by field.

    python scripts/api_coverage.py            writes the page
    python scripts/api_coverage.py --check    exits with 1 when the page is not what the routes say

The specification is read from the data pack (`api/openai-openapi.json.gz`, openai/openai-openapi, MIT). The page keeps
a digest of our routes and request models, so that a test can tell without the specification whether it is current.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from causerie.core import data_pack  # noqa: E402
from causerie.serve.table import TABLE  # noqa: E402

PAGE = ROOT / "docs" / "api-coverage.md"
DEPTH = 3
"""Levels of fields within fields that are compared."""
OUTSIDE = ("assistants", "threads", "videos", "realtime", "audio", "images", "containers", "chatkit", "skills")
"""First parts of paths that are no aim of this server: media, hosted tools, deprecated or hosted-only products."""


def digest() -> str:
    """Digest of our operations and their request models."""
    rows = []
    for route in TABLE:
        schema = route.body.model_json_schema(by_alias=True) if route.body else None
        rows.append([route.method, route.path, route.resource, route.action, route.deployment, schema])
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:16]


def bare(path: str) -> str:
    """A path with its parameters unnamed."""
    return re.sub(r"\{[^}]+\}", "{}", path.strip("/"))


def resolve(spec: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    """A schema behind its references."""
    while "$ref" in node:
        found: Any = spec
        for part in node["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        node = found
    return node


def properties(spec: dict[str, Any], node: dict[str, Any], depth: int = 0) -> set[str]:
    """Names of a body's top-level fields, through references and combinations."""
    node = resolve(spec, node)
    names = set(node.get("properties", {}))
    if depth < 6:
        for key in ("allOf", "anyOf", "oneOf"):
            for part in node.get(key, ()):
                names |= properties(spec, part, depth + 1)
    return names


def within(document: dict[str, Any], node: dict[str, Any], seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """The fields within a schema as a tree `{name: tree}`, through lists, references and combinations; where anything
    may stand, the tree has the name "*". What holds itself is not followed again, nor anything below `DEPTH` levels."""
    while "$ref" in node:
        if node["$ref"] in seen:
            return {}
        seen = (*seen, node["$ref"])
        node = resolve(document, {"$ref": node["$ref"]})
    tree: dict[str, Any] = {}
    inner = [part for key in ("allOf", "anyOf", "oneOf") for part in node.get(key, ())]
    for part in [*inner, *([node["items"]] if isinstance(node.get("items"), dict) else [])]:
        merge(tree, within(document, part, seen))
    for name, value in node.get("properties", {}).items():
        merge(tree, {name: within(document, value, (*seen, "")) if seen.count("") < DEPTH else {}})
    if node.get("type") == "object" and "properties" not in node and node.get("additionalProperties", True) is True:
        tree["*"] = {}
    return tree


def merge(tree: dict[str, Any], other: dict[str, Any]) -> None:
    """Add another tree's names to a tree."""
    for name, below in other.items():
        merge(tree.setdefault(name, {}), below)


def compare(wanted: dict[str, Any], got: dict[str, Any], place: str) -> tuple[int, list[str]]:
    """How many fields below a place are wanted, and the paths of those that are not taken."""
    count, missing = 0, []
    for name, below in wanted.items():
        if name == "*":
            continue
        path = f"{place}.{name}"
        if name not in got and "*" not in got:
            count, missing = count + 1 + size(below), [*missing, path]
            continue
        more, lost = compare(below, got.get(name, {"*": {}}), path)
        count, missing = count + 1 + more, missing + lost
    return count, missing


def size(tree: dict[str, Any]) -> int:
    """Names in a tree."""
    return sum(1 + size(below) for name, below in tree.items() if name != "*")


def at(tree: dict[str, Any], path: str) -> dict[str, Any]:
    """The tree below a dotted path."""
    for name in path.split("."):
        tree = tree[name]
    return tree


def nested(spec: dict[str, Any], operation: dict[str, Any], route: Any, fields: set[str]) -> tuple[int, int, list[str]]:
    """Fields within an operation's fields: how many there are, how many are taken, and the paths of the others.

    A path that is not taken stands for all below it.
    """
    content = resolve(spec, operation.get("requestBody", {})).get("content", {})
    if route is None or route.body is None or "application/json" not in content:
        return 0, 0, []
    wanted = within(spec, content["application/json"].get("schema", {}))
    ours = route.body.model_json_schema(by_alias=True)
    got = within(ours, ours)
    total, missing = 0, []
    for name in sorted(fields):
        count, lost = compare(wanted.get(name, {}), got.get(name, {}), name)
        total, missing = total + count, missing + lost
    return total, total - sum(1 + size(at(wanted, path)) for path in missing), missing


def body_fields(spec: dict[str, Any], operation: dict[str, Any]) -> set[str]:
    """The fields of an operation's JSON (or form) body."""
    content = resolve(spec, operation.get("requestBody", {})).get("content", {})
    names: set[str] = set()
    for kind in ("application/json", "multipart/form-data"):
        if kind in content:
            names |= properties(spec, content[kind].get("schema", {}))
    return names


def refused(model: Any) -> set[str]:
    """Fields of a model that may be there only with a value that means "off"."""
    return {name for name, field in model.model_fields.items() if "_is_off" in repr(field.metadata)}


FORMS = {
    ("POST", "files"): {"file", "purpose", "expires_after"},
    ("POST", "uploads/{}/parts"): {"data"},
}


def accepted(route: Any) -> set[str]:
    """The fields that one of our operations honours or takes without effect."""
    if route.body is None:
        return FORMS.get((route.method, bare(route.path)), set())
    names = set()
    for name, field in route.body.model_fields.items():
        alias = field.validation_alias
        names.add(alias.choices[0] if hasattr(alias, "choices") else alias or name)
    return names - refused(route.body)


Row = tuple[str, str, Any, set[str], set[str], tuple[int, int, list[str]]]


def rows_of(spec: dict[str, Any]) -> tuple[list[Row], int]:
    """Method, path, our route or None, body fields, accepted fields, and the fields within those (see `nested`) of
    every operation in view; how many are not."""
    ours = {(route.method, bare(route.path.replace(":path", ""))): route for route in TABLE}
    found, left = [], 0
    for path, item in spec["paths"].items():
        if "?" in path:
            continue
        for method in ("get", "post", "delete", "put", "patch"):
            if method not in item:
                continue
            route = ours.get((method.upper(), bare(path)))
            first = path.strip("/").split("/")[0]
            outside = first in OUTSIDE or item[method].get("deprecated")
            if route is None and (outside or first in ("organization", "projects")):
                left += 1
                continue
            fields = body_fields(spec, item[method])
            taken = accepted(route) & fields if route else set()
            found.append((method.upper(), path, route, fields, taken, nested(spec, item[method], route, taken)))
    return found, left


def page(spec: dict[str, Any]) -> str:
    """The whole page."""
    rows, left = rows_of(spec)
    served = [row for row in rows if row[2] is not None]
    fields = sum(len(row[3]) for row in served)
    taken = sum(len(row[4]) for row in served)
    inner, inside = sum(row[5][0] for row in served), sum(row[5][1] for row in served)
    ours = {(route.method, bare(route.path.replace(":path", ""))) for route in TABLE}
    extra = sorted(ours - {(row[0], bare(row[1])) for row in served})
    lines = [
        "# What of the OpenAI API is served",
        "",
        f"Written by `scripts/api_coverage.py` from the specification openai/openai-openapi, version "
        f"{spec['info']['version']}, and our routes (digest `{digest()}`). Do not edit by hand.",
        "",
        f"**{len(served)} of {len(rows)} operations** in view are served, with **{taken} of {fields} body fields** "
        f"({100 * taken / max(1, fields):.1f} %). A field counts when it is honoured or changes nothing by its nature; "
        "one that would change the answer and is not served is refused with status 400 (a lenient server names it in "
        f"`x-causerie-ignored`). Out of view are {left} operations: media, hosted tools and products, deprecated "
        "ones, and the organization's administration.",
        "",
        f"Within these fields, {DEPTH} levels down and over all alternatives of a union, **{inside} of {inner}** fields "
        f"are taken ({100 * inside / max(1, inner):.1f} %). What is not: parts of messages that are no text, hosted "
        "tools (file and web search, computers, containers, images, MCP), and their filters; the list is below.",
        "",
        "What these counts do not show: `prediction`, `reasoning_effort`, `verbosity` and the like are accepted and "
        "change nothing; usage of media and hosted tools is served as empty buckets.",
        "",
        "| operation | served | fields | within them | not taken |",
        "|---|---|---|---|---|",
    ]
    for method, path, route, wanted, got, (total, deep, _) in rows:
        missing = ", ".join(f"`{name}`" for name in sorted(wanted - got)) if route else ""
        count = f"{len(got)} of {len(wanted)}" if route and wanted else ""
        inner_count = f"{deep} of {total}" if total else ""
        lines.append(f"| {method} `v1{path}` | {'yes' if route else 'no'} | {count} | {inner_count} | {missing} |")
    lines += ["", "## Fields within fields that are not taken", ""]
    for method, path, _, _, _, (_, _, lost) in rows:
        if lost:
            lines.append(f"- {method} `v1{path}`: {', '.join(f'`{name}`' for name in lost)}")
    lines += [
        "",
        f"Beside the specification: {', '.join(f'{method} `v1/{path}`' for method, path in extra) or 'none'}.",
    ]
    return "\n".join(lines) + "\n"


def is_current() -> bool:
    """Whether the page was written for the present routes."""
    return PAGE.exists() and f"digest `{digest()}`" in PAGE.read_text(encoding="utf-8")


def main() -> None:
    """Write or check the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when the page is not current")
    if parser.parse_args().check:
        sys.exit(0 if is_current() else "docs/api-coverage.md is not current: run scripts/api_coverage.py")
    folder = data_pack()
    source = folder / "api" / "openai-openapi.json.gz" if folder else None
    if source is None or not source.is_file():
        sys.exit("the specification is not here: set CAUSERIE_DATA to a data pack with api/openai-openapi.json.gz")
    with gzip.open(source) as file:
        PAGE.write_text(page(json.load(file)), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
