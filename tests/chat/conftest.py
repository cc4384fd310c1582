"""A served page over a scripted engine: everything is real but the weights."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from causerie.chat import create_chat_app
from causerie.chat.signin import Door
from causerie.core import Artifact, write_artifact
from causerie.hub import register
from causerie.infer import Event, Sampling
from causerie.serve import EnginePool, Server
from causerie.store import Store, open_store
from causerie.text import Tokenizer, load_tokenizer, train_bpe

TEXT = "The sea is blue. La mer est bleue. Bread costs $5 and $10, never more. " * 20


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_bpe([TEXT], 320)


@dataclass
class Script:
    """What the fake engines say: a function of the prompt's text and the seed, and how long a token takes."""

    answer: Callable[[str, int], str] = lambda prompt, seed: "The sea is blue."
    pause: float = 0.0
    cancelled: int = 0
    prompts: list[str] = field(default_factory=list)


class FakeEngine:
    """An engine that says what the script wants, token by token."""

    def __init__(self, folder: Path, script: Script) -> None:
        self.info: dict[str, Any] = {"max_seq_len": 4096}
        self._tokenizer = load_tokenizer(folder)
        self._script = script

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def generate(self, prompt_ids: list[int], sampling: Sampling, *, salt: str = "") -> AsyncIterator[Event]:
        prompt = self._tokenizer.decode(prompt_ids)
        self._script.prompts.append(prompt)
        ids = self._tokenizer.encode(self._script.answer(prompt, sampling.seed or 0))
        cut = len(ids) > sampling.max_tokens
        ids = ids[: sampling.max_tokens] if cut else [*ids, sampling.stop_ids[0]]
        counts = {"prompt_tokens": len(prompt_ids), "completion_tokens": len(ids)}
        try:
            for token in ids[:-1]:
                yield Event("r", [token], [-0.5], None, **counts)
                await asyncio.sleep(self._script.pause)
            yield Event("r", ids[-1:], [-0.1], "length" if cut else "stop", **counts)
        except (GeneratorExit, asyncio.CancelledError):
            self._script.cancelled += 1
            raise


def make_model(workspace: Path, tokenizer: Tokenizer, key: str, inputs: dict[str, str] | None = None) -> Artifact:
    """A model artifact with a tokenizer and no weights."""
    with write_artifact(workspace, "model", "demo", key * 32, inputs=inputs) as draft:
        tokenizer.save(draft.path)
        (draft.path / "config.json").write_text("{}")
    assert draft.artifact is not None
    return draft.artifact


@dataclass
class Served:
    """A running server and what stands behind it."""

    url: str
    workspace: Path
    store: Store
    script: Script
    client: httpx.Client

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        return self.client.request(method, path, json=body, headers=headers)

    def get(self, path: str) -> Any:
        response = self.client.get(path)
        assert response.status_code == 200, response.text
        return response.json()

    def post(self, path: str, body: Any) -> Any:
        response = self.client.post(path, json=body)
        assert response.status_code < 300, response.text
        return response.json()


IMPROVE = Path(__file__).parent / "fake_improve.py"


def start_server(
    workspace: Path, store: Store, script: Script, improve: tuple[str, ...], door: Door | None = None
) -> tuple[Server, threading.Thread]:
    """Serve `demo` in a thread; returns when it answers."""
    import contextlib

    pool = EnginePool(make_engine=lambda folder: FakeEngine(folder, script))

    @contextlib.asynccontextmanager
    async def load(_app: Any) -> AsyncIterator[None]:
        from causerie.hub import get_version

        version = get_version(store, "demo")
        await pool.load("demo", version.path(workspace), version.number)
        yield

    app = create_chat_app(workspace, store, pool, improve_command=improve, lifespans=[load], door=door)
    ready = threading.Event()
    server = Server(app, "127.0.0.1", 0, grace=1, on_ready=lambda _url: ready.set())
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    assert ready.wait(20)
    return server, thread


@pytest.fixture
def served(workspace: Path, tokenizer: Tokenizer) -> Iterator[Served]:
    """A server with versions demo@1 (retired) and demo@2 (promoted)."""
    import sys

    with open_store(workspace) as store:
        terms = {"licence": "Apache-2.0", "notices": ["Made for tests."], "card": {"summary": "A small test model."}}
        register(store, workspace, "demo", make_model(workspace, tokenizer, "a1"), status="promoted", **terms)
        second = make_model(workspace, tokenizer, "b2", {"base": "a1" * 32})
        register(store, workspace, "demo", second, parents=["demo@1"], status="promoted", **terms)
        script = Script()
        server, thread = start_server(workspace, store, script, (sys.executable, str(IMPROVE)))
        with httpx.Client(base_url=server.url, timeout=20) as client:
            yield Served(server.url, workspace, store, script, client)
        server.stop()
        thread.join(20)
        assert not thread.is_alive()
