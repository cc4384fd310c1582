"""Running batches: each request goes through the very endpoint that answers it over HTTP, a few at a time.

Answers are appended to files in the workspace as they come; a server that starts again reads there what is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from causerie.core import CauserieError
from causerie.serve import files
from causerie.serve.batches.rows import BatchRow, read_batch
from causerie.serve.chat_completions import create_chat_completion
from causerie.serve.completions import create_completion
from causerie.serve.embeddings import create_embedding
from causerie.serve.errors import ApiError, as_api_error
from causerie.serve.keys import Principal
from causerie.serve.limits import BATCH_AT_ONCE
from causerie.serve.moderations import create_moderation
from causerie.serve.objects import Body
from causerie.serve.responses.create import create_response
from causerie.serve.routes import Endpoint, Office
from causerie.store import new_id

KIND: Final = "batch"
ANSWERS: Final[Mapping[str, Endpoint]] = {
    "/v1/chat/completions": create_chat_completion,
    "/v1/completions": create_completion,
    "/v1/embeddings": create_embedding,
    "/v1/responses": create_response,
    "/v1/moderations": create_moderation,
}
OPEN: Final = ("validating", "in_progress", "finalizing", "cancelling")
TOLD_SECONDS: Final = 1.0
"""How often the counts of a running batch are written down."""


@dataclass
class Progress:
    """What of a batch is done: lines of answers and of errors, in files of their own until the batch has ended."""

    folder: Path
    total: int = 0
    completed: int = 0
    failed: int = 0
    done: set[str] = field(default_factory=set)
    usage: dict[str, int] = field(default_factory=lambda: {"input": 0, "output": 0, "cached": 0})
    told: float = 0.0

    def load(self) -> None:
        """Read what is done; a last line that was cut off is dropped."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("output", "errors"):
            path = self.folder / f"{name}.jsonl"
            lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
            if path.exists():
                path.write_bytes(b"".join(line + b"\n" for line in lines))
            for line in lines:
                self._count(json.loads(line))

    def add(self, row: Mapping[str, Any]) -> None:
        """Append one answer or error."""
        name = "errors" if self._count(row) else "output"
        with open(self.folder / f"{name}.jsonl", "ab") as file:
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")

    def _count(self, row: Mapping[str, Any]) -> bool:
        """Count a row; whether it is an error."""
        self.done.add(row["custom_id"])
        response = row["response"]
        if row["error"] is not None or response["status_code"] >= 400:
            self.failed += 1
            return True
        self.completed += 1
        usage = response["body"].get("usage") or {}
        self.usage["input"] += usage.get("prompt_tokens") or usage.get("input_tokens") or 0
        self.usage["output"] += usage.get("completion_tokens") or usage.get("output_tokens") or 0
        details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
        self.usage["cached"] += details.get("cached_tokens") or 0
        return False

    def fields(self) -> dict[str, Any]:
        """Counts and usage as the batch tells them."""
        given, drawn = self.usage["input"], self.usage["output"]
        usage = {
            "input_tokens": given,
            "input_tokens_details": {"cached_tokens": self.usage["cached"]},
            "output_tokens": drawn,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": given + drawn,
        }
        counts = {"total": self.total, "completed": self.completed, "failed": self.failed}
        return {"request_counts": counts, "usage": usage}


def start_batch(office: Office, principal: Principal, id: str) -> None:
    """Run a batch for whoever made it."""
    office.workers.start(f"batch {id}", _run(office, principal, id))


async def resume_batches(office: Office) -> None:
    """Go on with the batches that were under way when the server ended."""
    for owner, _, body in await office.objects.unfinished(KIND, OPEN):
        start_batch(office, Principal(body.get("key_id"), None, ("*",), owner), body["id"])


async def _run(office: Office, principal: Principal, id: str) -> None:
    owner = principal.owner
    try:
        batch = await office.objects.get(KIND, owner, id)
        content = await files.read_file(office, owner, batch["input_file_id"], "input_file_id", "batch")
        found = await asyncio.to_thread(read_batch, content, batch["endpoint"])
        if found.faults:
            errors = {"object": "list", "data": found.faults}
            await office.objects.set(KIND, owner, id, status="failed", errors=errors, failed_at=int(time.time()))
            return
        progress = Progress(_folder(office, id), len(found.rows))
        await asyncio.to_thread(progress.load)
        await office.objects.change(KIND, owner, id, _begun(progress))
        await _answer_all(office, principal, batch, found.rows, progress)
        await _finish(office, owner, id, found.rows, progress)
    except (ApiError, CauserieError) as error:
        fault = {"code": as_api_error(error).code, "line": None, "message": as_api_error(error).message, "param": None}
        errors = {"object": "list", "data": [fault]}
        with contextlib.suppress(ApiError):
            await office.objects.set(KIND, owner, id, status="failed", errors=errors, failed_at=int(time.time()))


def _begun(progress: Progress) -> Any:
    def change(body: Body) -> Body:
        if body["status"] == "validating":
            body |= {"status": "in_progress", "in_progress_at": int(time.time())}
        return body | progress.fields()

    return change


def _folder(office: Office, id: str) -> Path:
    assert office.workspace is not None
    return office.workspace / "batches" / id


async def _answer_all(
    office: Office, principal: Principal, batch: Body, rows: list[BatchRow], progress: Progress
) -> None:
    """Answer what is not done yet, until the end, a cancellation or the expiry."""
    waiting = iter([row for row in rows if row.custom_id not in progress.done])

    async def work() -> None:
        for row in waiting:
            if _over(office, batch):
                return
            line = await _answer(office, principal, row, lambda: _over(office, batch))
            if line is None:
                return
            progress.add(line)
            if time.monotonic() - progress.told > TOLD_SECONDS:
                progress.told = time.monotonic()
                await office.objects.set(KIND, principal.owner, batch["id"], **progress.fields())

    current = await office.objects.get(KIND, principal.owner, batch["id"])
    if current["status"] == "cancelling":
        office.cancelled_batches.add(batch["id"])
    async with asyncio.TaskGroup() as group:
        for _ in range(min(BATCH_AT_ONCE, len(rows))):
            group.create_task(work())


def _over(office: Office, batch: Body) -> bool:
    """Whether no further request is answered: the batch has expired or is being cancelled, or the server ends."""
    expired = time.time() >= batch["expires_at"]
    return expired or batch["id"] in office.cancelled_batches or office.drain.draining


async def _answer(
    office: Office, principal: Principal, row: BatchRow, over: Callable[[], bool]
) -> dict[str, Any] | None:
    """One line of the output; None when the batch was over before there was one.

    A full server is asked again, callers go before batches.
    """
    body = json.dumps(row.body).encode()
    while True:
        try:
            response = await ANSWERS[row.url](office, internal_request(row.url, body), principal)
        except Exception as error:
            response = as_api_error(error).response()
        if response.status_code not in (429, 503):
            break
        if over():
            return None
        await asyncio.sleep(1.0)
    return _line(row.custom_id, response)


def _line(custom_id: str, response: Response) -> dict[str, Any]:
    status, value = response.status_code, json.loads(bytes(response.body))
    request_id = response.headers.get("x-request-id") or new_id("req")
    answer = {"status_code": status, "request_id": request_id, "body": value}
    return {"id": new_id("batch_req"), "custom_id": custom_id, "response": answer, "error": None}


def internal_request(path: str, body: bytes) -> Request:
    """A request of the server's own to one of its endpoints."""
    pending = [body]

    async def receive() -> dict[str, Any]:
        if pending:
            return {"type": "http.request", "body": pending.pop(), "more_body": False}
        await asyncio.Event().wait()  # nobody leaves
        return {"type": "http.disconnect"}

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
        "path_params": {},
        "route": SimpleNamespace(path=f"batch {path}"),
        "state": {"ignored": None},
    }
    return Request(scope, receive)


async def _finish(office: Office, owner: str, id: str, rows: list[BatchRow], progress: Progress) -> None:
    """Write the files and the last status; requests that were not begun in time are told as such."""
    batch = await office.objects.get(KIND, owner, id)
    if office.workers.closing or office.drain.draining:
        return  # what is left is done when the server starts again
    cancelled = batch["status"] == "cancelling"
    status = "cancelled" if cancelled else "completed"
    left = [row for row in rows if row.custom_id not in progress.done]
    if left and not cancelled:
        status = "expired"
        error = {"code": "batch_expired", "message": "the request was not answered within the completion window"}
        for row in left:
            progress.add({"id": new_id("batch_req"), "custom_id": row.custom_id, "response": None, "error": error})
    if not cancelled:
        await office.objects.set(KIND, owner, id, status="finalizing", finalizing_at=int(time.time()))
    values: dict[str, Any] = progress.fields()
    for name, field_name in (("output", "output_file_id"), ("errors", "error_file_id")):
        path = progress.folder / f"{name}.jsonl"
        if path.exists() and path.stat().st_size:
            content = await asyncio.to_thread(path.read_bytes)
            lifetime = batch.get("output_lifetime")
            expires_at = int(time.time()) + lifetime if lifetime else None
            file = await files.write_file(office, owner, f"{id}_{name}.jsonl", "batch_output", content, expires_at)
            values[field_name] = file["id"]
    values |= {"status": status, f"{status}_at": int(time.time())}
    await office.objects.set(KIND, owner, id, **values)
    office.cancelled_batches.discard(id)
    await asyncio.to_thread(_drop, progress.folder)


def _drop(folder: Path) -> None:
    for path in folder.glob("*.jsonl"):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()
