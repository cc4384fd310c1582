"""OpenAI's published specification as a judge: whether an answer, an event or a request is what it says.

The schemas are read from the data pack (openai/openai-openapi, MIT) and judged by the library `jsonschema`. Three things
are read otherwise than they stand: `oneOf` counts as `anyOf`, since many alternatives of the document overlap; null counts
as absent where a field may be absent, as in the document's own examples; and `exclusiveMinimum: true`, of an older
draft, goes with the `minimum` beside it.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match, relevance
from referencing import Registry
from referencing.jsonschema import DRAFT202012

ROOT = "urn:openai"
DEEP = 6
"""Levels of alternatives within alternatives that values are made for."""


class Specification:
    """The document.

    Args:
        path: the packed JSON file.
    """

    def __init__(self, path: Path) -> None:
        with gzip.open(path) as file:
            self.document: dict[str, Any] = _milder(json.load(file))
        resource = DRAFT202012.create_resource(self.document)
        self._registry: Registry[Any] = Registry().with_resource(ROOT, resource)
        self.operations = {
            (method.upper(), bare(path)): (f"#/paths/{path.replace('/', '~1')}/{method}", operation)
            for path, item in self.document["paths"].items()
            if "?" not in path
            for method, operation in item.items()
            if method in ("get", "post", "delete")
        }

    def faults(self, place: str, value: Any) -> str | None:
        """What is wrong with a value by the schema at a place of the document; None when nothing is."""
        return next(iter(self.all_faults(place, value)), None)

    def all_faults(self, place: str, value: Any) -> list[str]:
        """Everything that is wrong with a value, the gravest first; of a union's branches what fits the furthest."""
        validator = Draft202012Validator({"$ref": ROOT + place}, registry=self._registry)
        found = [best_match([error]) for error in sorted(validator.iter_errors(value), key=relevance, reverse=True)]
        return [
            f"{error.json_path}: {error.message[:300]} (by {'/'.join(map(str, error.absolute_schema_path))[-120:]})"
            for error in found
            if error is not None
        ]

    def response(self, method: str, path: str, status: str = "200", kind: str = "application/json") -> str | None:
        """The place of an operation's schema for an answer; None where it has none.

        Raises:
            KeyError: for a good answer with a status that the specification does not know.
        """
        start, operation = self.operations[method, path]
        known = operation["responses"]
        found = known.get(status, {}) if status >= "400" else known[status]
        if kind not in found.get("content", {}):
            return None
        return f"{start}/responses/{status}/content/{kind.replace('/', '~1')}/schema"

    def request(self, method: str, path: str) -> str | None:
        """The place of an operation's schema for a JSON body; None where it has none."""
        start, operation = self.operations[method, path]
        if "application/json" not in operation.get("requestBody", {}).get("content", {}):
            return None
        return f"{start}/requestBody/content/application~1json/schema"

    def at(self, place: str) -> Any:
        """What stands at a place."""
        node: Any = self.document
        for part in place.removeprefix("#/").split("/"):
            node = node[part.replace("~1", "/").replace("~0", "~")]
        return self.behind(node)

    def behind(self, node: dict[str, Any]) -> dict[str, Any]:
        """A schema behind its references."""
        while "$ref" in node:
            node = self.at(node["$ref"])
        return node

    def fields(self, node: dict[str, Any], depth: int = 0) -> dict[str, dict[str, Any]]:
        """The properties of an object's schema, through references and combinations."""
        node = self.behind(node)
        found: dict[str, dict[str, Any]] = dict(node.get("properties", {}))
        if depth < DEEP:
            for part in chain(node.get("allOf", ()), node.get("anyOf", ())):
                found = self.fields(part, depth + 1) | found
        return found

    def values(self, node: dict[str, Any], depth: int = 0) -> Iterator[Any]:
        """Values that a schema allows: every alternative, every word of an enumeration, both ends of a range."""
        node = self.behind(node)
        if depth > DEEP:
            return
        if "const" in node or "enum" in node:
            yield from node.get("enum", [node.get("const")])
        elif "anyOf" in node:
            for part in node["anyOf"]:
                yield from self.values(part, depth + 1)
        elif "allOf" in node:
            merged: dict[str, Any] = {"type": "object", "properties": self.fields(node), "required": []}
            for part in node["allOf"]:
                merged["required"] += self.behind(part).get("required", [])
            plain = [self.behind(part) for part in node["allOf"] if "properties" not in self.behind(part)]
            yield from self.values(merged if merged["properties"] else plain[0], depth + 1)
        else:
            yield from self._plain(node, depth)

    def _plain(self, node: dict[str, Any], depth: int) -> Iterator[Any]:
        kinds = node.get("type", "object" if "properties" in node else "string")
        for kind in [kinds] if isinstance(kinds, str) else kinds:
            match kind:
                case "integer" | "number":
                    low, high = node.get("minimum", 1), node.get("maximum", max(node.get("minimum", 1), 2))
                    yield from dict.fromkeys([low, high])
                case "boolean":
                    yield from (True, False)
                case "array":
                    for value in self.values(node.get("items", {"type": "string"}), depth + 1):
                        yield [value] * max(1, node.get("minItems", 1))
                case "object":
                    yield from self._objects(node, depth)
                case "null":
                    yield None
                case _:
                    yield "x" * max(1, node.get("minLength", 1))

    def _objects(self, node: dict[str, Any], depth: int) -> Iterator[dict[str, Any]]:
        """The least object, and for every field of it each of the field's values."""
        required = [name for name in dict.fromkeys(node.get("required", ())) if name in node.get("properties", {})]
        choices = {name: list(self.values(node["properties"][name], depth + 1)) for name in required}
        if not all(choices.values()):
            return
        least = {name: values[0] for name, values in choices.items()}
        yield least
        for name, values in choices.items():
            for value in values[1:]:
                yield least | {name: value}


def bare(path: str) -> str:
    """A path with its parameters unnamed."""
    return re.sub(r"\{[^}]+\}", "{}", path.strip("/"))


def _milder(node: Any) -> Any:
    if isinstance(node, list):
        return [_milder(each) for each in node]
    if not isinstance(node, dict):
        return node
    found = {("anyOf" if key == "oneOf" else key): _milder(value) for key, value in node.items()}
    if found.get("exclusiveMinimum") is True:
        found["exclusiveMinimum"] = found.pop("minimum")
    if isinstance(found.get("properties"), dict) and all(
        isinstance(each, dict) for each in found["properties"].values()
    ):
        needed = found.get("required", ())
        found["properties"] = {
            name: schema if name in needed else {"anyOf": [schema, {"type": "null"}]}
            for name, schema in found["properties"].items()
        }
    return found
