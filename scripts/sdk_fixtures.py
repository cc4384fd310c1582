"""A server for the SDK's tests: a tiny random model under the names that they use, and a project with their ids."""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import delete, insert
from starlette.applications import Starlette

from causerie.infer import EngineConfig
from causerie.serve import EnginePool, Server, create_app
from causerie.store import Store, objects, open_store
from causerie.text import Tokenizer, train_bpe

OWNER = "default"
MODELS = ("gpt-6-astra", "gpt-3.5-turbo-instruct", "text-embedding-3-small", "model", "gpt-4o-mini")
FINE_TUNED = (
    "ft:gpt-4o-mini:acemeco:suffix:abc123",
    "ft:gpt-4o-mini-2024-07-18:org:weather:B7R9VjQd",
    "ft-AF1WoRqd3aJAHsqc9NY7iL8F",
)
NOW = 1_750_000_000


def tiny_model(folder: Path) -> Path:
    """A model folder with random weights."""
    from causerie.model import ModelShape, init_model, save_model

    text = "This is a test. The quick brown fox jumps over the lazy dog. user assistant system name string developer"
    tokenizer: Tokenizer = train_bpe([text] * 3, 320)
    shape = ModelShape(
        family="qwen3",
        n_layer=2,
        n_embd=32,
        n_head=4,
        n_kv_head=2,
        head_dim=8,
        ffn_dim=48,
        vocab_size=tokenizer.vocab_size,
        max_seq_len=2048,
    )
    source = folder / "tokenizer"
    source.mkdir(parents=True)
    tokenizer.save(source)
    place = folder / "model"
    place.mkdir()
    save_model(init_model(shape, 0), place, source)
    return place


class Fixtures:
    """Fills the fixture project.

    Args:
        store: the server's store.
        pool: its models.
        workspace: where its files are.
        loop: the server's event loop, once it runs.
    """

    def __init__(self, store: Store, pool: EnginePool, workspace: Path) -> None:
        self._store = store
        self._pool = pool
        self._files = workspace / "files"
        self.loop: asyncio.AbstractEventLoop | None = None
        self._served = dict(pool._served)

    def fill(self) -> None:
        """Empty the project and put every object in its place."""
        assert self.loop is not None
        asyncio.run_coroutine_threadsafe(self._fill(), self.loop).result(60)

    async def _fill(self) -> None:
        self._files.mkdir(exist_ok=True)
        for name, model in self._served.items():  # a test may have deleted a fine-tuned one
            self._pool._served[name] = replace(model, host=model, active=0, retired=False)
        rows = []
        for rank, (kind, parent, body) in enumerate(all_objects()):
            row = {"kind": kind, "parent": parent, "id": body["id"], "owner": OWNER, "rank": rank, "created": NOW}
            rows.append(row | {"status": body.get("status"), "body": body})
            if kind in ("file", "upload.part"):
                (self._files / body["id"]).write_bytes(content_of(body))
        self._store.write(delete(objects), (insert(objects), rows))


def content_of(body: dict[str, Any]) -> bytes:
    """The bytes of a file: a row for a purpose that needs rows."""
    if body["id"] == "file-abc123":
        return b'{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}\n'
    return b"Example data"


def _file(id: str, purpose: str = "assistants") -> dict[str, Any]:
    return {
        "id": id,
        "object": "file",
        "bytes": 12,
        "created_at": NOW,
        "expires_at": None,
        "filename": "upload",
        "purpose": purpose,
        "status": "processed",
        "status_details": None,
    }


def all_objects() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Kind, parent and body of everything that the tests name. Lists begin after an object called "after"."""
    yield from platform_objects()
    yield from said_objects()
    yield from eval_objects()
    yield from vector_objects()


def platform_objects() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Files, uploads, batches, fine-tuning."""
    for id in ("file_id", "after", "before", "string"):
        yield "file", "", _file(id)
    yield "file", "", _file("file-abc123", "fine-tune")
    yield "file", "", _file("input_file_id", "batch")
    upload = {
        "id": "upload_abc123",
        "object": "upload",
        "bytes": 12,
        "created_at": int(time.time()),
        "expires_at": int(time.time()) + 3600,
        "filename": "upload",
        "purpose": "assistants",
        "status": "pending",
        "file": None,
    }
    yield "upload", "", upload
    yield "upload.part", "upload_abc123", {"id": "string", "object": "upload.part", "bytes": 0, "created_at": NOW}
    batch = {
        "object": "batch",
        "endpoint": "/v1/responses",
        "errors": None,
        "input_file_id": "input_file_id",
        "completion_window": "24h",
        "status": "in_progress",
        "output_file_id": None,
        "error_file_id": None,
        "created_at": NOW,
        "expires_at": NOW + 86_400,
        "request_counts": {"total": 1, "completed": 0, "failed": 0},
        "metadata": None,
    }
    for id in ("batch_id", "after"):
        yield "batch", "", {"id": id, **batch}
    job = {
        "object": "fine_tuning.job",
        "created_at": NOW,
        "model": "gpt-4o-mini",
        "training_file": "file-abc123",
        "validation_file": None,
        "method": {"type": "supervised"},
        "hyperparameters": {"n_epochs": "auto", "batch_size": "auto", "learning_rate_multiplier": "auto"},
        "seed": 1,
        "metadata": {"foo": "string"},
        "integrations": [],
        "organization_id": "org-causerie",
        "fine_tuned_model": None,
        "finished_at": None,
        "estimated_finish": None,
        "trained_tokens": None,
        "result_files": [],
        "error": None,
    }
    yield "fine_tuning.job", "", {"id": "after", "status": "running", **job}
    name = "ft-AF1WoRqd3aJAHsqc9NY7iL8F"
    yield "fine_tuning.job", "", {"id": name, "status": "running", **job}
    for id in ("after", "ftevent-1"):
        event = {"object": "fine_tuning.job.event", "created_at": NOW, "level": "info", "message": "x"}
        yield "fine_tuning.job.event", name, {"id": id, "data": None, "type": "message", **event}
        checkpoint = {
            "object": "fine_tuning.job.checkpoint",
            "created_at": NOW,
            "fine_tuning_job_id": name,
            "fine_tuned_model_checkpoint": "ft:gpt-4o-mini:acemeco:suffix:abc123",
            "step_number": 1,
            "metrics": {"step": 1.0, "train_loss": 1.0},
        }
        yield "fine_tuning.job.checkpoint", name, {"id": id, **checkpoint}
    for model in FINE_TUNED:
        yield "fine_tuned_model", "", {"id": model, "object": "fine_tuned_model", "status": "kept"}
        for id in ("after", "cp_zc4Q7MP6XxulcVzj4MZdwsAB"):
            permission = {"object": "checkpoint.permission", "created_at": NOW, "project_id": "project_id"}
            yield "checkpoint.permission", model, {"id": id, **permission}


def said_objects() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Stored completions, responses, conversations."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "x", "refusal": None}, "logprobs": None}
    completion = {
        "object": "chat.completion",
        "created": NOW,
        "model": "model",
        "choices": [choice | {"finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        "metadata": {"foo": "string"},
    }
    for id in ("after", "completion_id"):
        yield "chat.completion", "", {"id": id, **completion}
        message = {"role": "assistant", "content": "x", "name": None, "content_parts": None, "refusal": None}
        yield "chat.completion.message", "completion_id", {"id": id, **message}
    message = {
        "type": "message",
        "role": "user",
        "status": "completed",
        "content": [{"type": "input_text", "text": "x"}],
    }
    for id in ("resp_677efb5139a88190b512bc3fef8e535d", "response_id", "resp_123", "previous_response_id"):
        yield "response", "", {"id": id, **response_body()}
    for id in ("after", "msg_abc"):
        yield "response.input_item", "response_id", {"id": id, **message}
        for parent in ("conv_123", "string"):
            yield "conversation.item", parent, {"id": id, **message}
    for id in ("conv_123", "string"):
        yield "conversation", "", {"id": id, "object": "conversation", "created_at": NOW, "metadata": {}}


def response_body() -> dict[str, Any]:
    """A finished background response."""
    part = {"type": "output_text", "text": "x", "annotations": [], "logprobs": []}
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    return {
        "object": "response",
        "created_at": NOW,
        "completed_at": NOW,
        "status": "completed",
        "background": True,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": "model",
        "output": [item],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "temperature": 1.0,
        "top_p": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "usage": None,
    }


def eval_objects() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Evals, runs, output items."""
    criterion = {"type": "string_check", "name": "n", "input": "x", "operation": "eq", "reference": "x"}
    schema = {"type": "object", "properties": {"item": {"type": "object"}}, "required": ["item"]}
    for id in ("after", "eval_id"):
        body = {"object": "eval", "created_at": NOW, "name": "eval", "metadata": {}, "testing_criteria": [criterion]}
        yield "eval", "", {"id": id, "data_source_config": {"type": "custom", "schema": schema}, **body}
        run = {
            "object": "eval.run",
            "eval_id": "eval_id",
            "created_at": NOW,
            "status": "queued",
            "name": "run",
            "model": "",
            "metadata": {},
            "data_source": {"type": "jsonl", "source": {"type": "file_content", "content": [{"item": {}}]}},
            "error": {"code": "", "message": ""},
            "per_model_usage": [],
            "per_testing_criteria_results": [],
            "report_url": "/",
            "result_counts": {"total": 0, "passed": 0, "failed": 0, "errored": 0},
        }
        yield "eval.run", "eval_id", {"id": "run_id" if id == "eval_id" else id, **run}
        sample = {
            "error": {"code": "", "message": ""},
            "finish_reason": "stop",
            "input": [],
            "output": [],
            "model": "",
            "max_completion_tokens": 1,
            "seed": 0,
            "temperature": 1.0,
            "top_p": 1.0,
            "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0, "cached_tokens": 0},
        }
        item = {
            "object": "eval.run.output_item",
            "created_at": NOW,
            "run_id": "run_id",
            "eval_id": "eval_id",
            "datasource_item": {},
            "datasource_item_id": 0,
            "status": "fail",
            "results": [],
            "sample": sample,
        }
        yield "eval.run.output_item", "run_id", {"id": "output_item_id" if id == "eval_id" else id, **item}


def vector_objects() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Vector stores, their files and batches."""
    counts = {"in_progress": 0, "completed": 1, "failed": 0, "cancelled": 0, "total": 1}
    for id in ("after", "vector_store_id", "vs_abc123", "before"):
        store = {
            "object": "vector_store",
            "created_at": NOW,
            "name": "x",
            "status": "completed",
            "usage_bytes": 1,
            "file_counts": counts,
            "expires_after": None,
            "last_active_at": NOW,
            "metadata": {},
            "expires_at": None,
        }
        yield "vector_store", "", {"id": id, **store}
    ids = {"vector_store_id": ("after", "file_id", "before"), "vs_abc123": ("file-abc123",)}
    for store_id, files in ids.items():
        for id in files:
            file = {
                "object": "vector_store.file",
                "created_at": NOW,
                "vector_store_id": store_id,
                "status": "completed",
                "last_error": None,
                "usage_bytes": 1,
                "attributes": {},
                "filename": "upload",
                "batch": "batch_id",
            }
            yield "vector_store.file", store_id, {"id": id, **file}
            yield "vector_store.chunks", store_id, {"id": id, "texts": ["a string"]}
        batch = {"object": "vector_store.files_batch", "created_at": NOW, "vector_store_id": store_id}
        for id in ("batch_id", "vsfb_abc123"):
            yield (
                "vector_store.files_batch",
                store_id,
                {"id": id, "status": "in_progress", "file_counts": counts, **batch},
            )


@contextmanager
def start_server() -> Iterator[tuple[str, Fixtures]]:
    """The server in a thread, its URL, and what fills its fixture project."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder) / "workspace"
        model = tiny_model(Path(folder))
        with open_store(workspace) as store:
            pool = EnginePool(config=EngineConfig(threads=1, cache_mb=32))
            fixtures = Fixtures(store, pool, workspace)
            ready = threading.Event()

            @asynccontextmanager
            async def load(_app: Starlette) -> AsyncIterator[None]:
                served = await pool.load(MODELS[0], model)
                for name in (*MODELS, *FINE_TUNED):
                    pool._served[name] = served
                fixtures._served = dict(pool._served)
                fixtures.loop = asyncio.get_running_loop()
                yield

            app = create_app(pool, store=store, workspace=workspace, lenient=True, lifespans=[load])
            server = Server(app, port=0, grace=1, on_ready=lambda _url: ready.set())
            thread = threading.Thread(target=server.run, daemon=True)
            thread.start()
            if not ready.wait(120):
                raise SystemExit("the server did not start")
            yield server.url, fixtures
            server.stop()
            thread.join(30)
