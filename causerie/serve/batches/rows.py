"""A batch's input: one request a line, every faulty line named."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError

from causerie.serve.limits import MAX_BATCH_ROWS, MAX_BODY
from causerie.serve.shapes import Name, Strict

FAULTS: Final = 50
"""Faults that are told, at most."""


class BatchRow(Strict):
    """One request of a batch."""

    custom_id: Name
    method: Literal["POST"]
    url: Annotated[str, Field(max_length=64)]
    body: dict[str, Any]


@dataclass
class BatchInput:
    """The requests of a file, and what is wrong with it as the API tells it."""

    rows: list[BatchRow] = field(default_factory=list)
    faults: list[dict[str, Any]] = field(default_factory=list)

    def fault(self, line: int | None, code: str, message: str, param: str | None = None) -> None:
        """Note a fault."""
        if len(self.faults) < FAULTS:
            self.faults.append({"code": code, "line": line, "message": message, "param": param})


def read_batch(content: bytes, endpoint: str) -> BatchInput:
    """The requests in a file for one endpoint."""
    found, ids = BatchInput(), set()
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        if len(found.rows) >= MAX_BATCH_ROWS:
            found.fault(number, "too_many_requests", f"a batch has at most {MAX_BATCH_ROWS} requests")
            break
        row = _row(line, number, found)
        if row is None:
            continue
        if row.custom_id in ids:
            found.fault(number, "duplicate_custom_id", f"the custom_id {row.custom_id!r} is there twice", "custom_id")
        elif row.url != endpoint:
            found.fault(number, "mismatched_url", f"the url is {row.url!r}; the batch is for {endpoint}", "url")
        elif row.body.get("stream"):
            found.fault(number, "invalid_request", "a batch cannot stream", "body.stream")
        else:
            ids.add(row.custom_id)
            found.rows.append(row)
    if not found.rows and not found.faults:
        found.fault(None, "empty_file", "the file has no requests")
    return found


def _row(line: bytes, number: int, found: BatchInput) -> BatchRow | None:
    try:
        if len(line) > MAX_BODY:
            raise ValueError("the line is too long")
        value = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        found.fault(number, "invalid_json_line", "the line is not a JSON object")
        return None
    try:
        return BatchRow.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        param = ".".join(map(str, first["loc"]))[:100] or None
        found.fault(number, "invalid_request", first["msg"], param)
        return None
