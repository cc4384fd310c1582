"""The page served twice: over a scripted engine, for what must be said exactly, and over real engines with tiny weights
that were taught a few sentences, for everything that people do on it. Both in front of Debian's Chromium."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from causerie.chat import create_chat_app
from causerie.chat.accounts import Accounts
from causerie.chat.signin import Door
from causerie.core import Artifact, write_artifact
from causerie.hub import get_version, register
from causerie.infer import EngineConfig, Event, Sampling
from causerie.serve import EnginePool, Server
from causerie.store import Store, open_store
from causerie.text import Tokenizer, load_tokenizer, train_bpe
from tests.waiting import PATIENCE

TEXT = "The sea is blue. La mer est bleue. Bread costs $5 and $10, never more. " * 20


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_bpe([TEXT], 320)


@dataclass
class Script:
    """What the fake engines say: a function of the prompt's text and the seed; how long a token takes, how many fit."""

    answer: Callable[[str, int], str] = lambda prompt, seed: "The sea is blue."
    pause: float = 0.0
    cancelled: int = 0
    length: int = 4096
    prompts: list[str] = field(default_factory=list)


class FakeEngine:
    """An engine that says what the script wants, token by token."""

    def __init__(self, folder: Path, script: Script) -> None:
        self._tokenizer = load_tokenizer(folder)
        self._script = script

    @property
    def info(self) -> dict[str, Any]:
        return {"max_seq_len": self._script.length}

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
    workspace: Path,
    store: Store,
    script: Script | None,
    improve: tuple[str, ...],
    door: Door | None = None,
    names: Sequence[str] = ("demo",),
    pool: EnginePool | None = None,
) -> tuple[Server, threading.Thread]:
    """Serve versions in a thread, over a script or a pool of real engines; returns when it answers."""
    pool = pool or EnginePool(make_engine=lambda folder: FakeEngine(folder, script or Script()))

    @contextlib.asynccontextmanager
    async def load(_app: Any) -> AsyncIterator[None]:
        for name in names:
            version = get_version(store, name)
            await pool.load(name, version.path(workspace), version.number)
        yield

    app = create_chat_app(workspace, store, pool, improve_command=improve, lifespans=[load], door=door)
    ready = threading.Event()
    server = Server(app, "127.0.0.1", 0, grace=1, on_ready=lambda _url: ready.set())
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    assert ready.wait(PATIENCE)
    return server, thread


@pytest.fixture
def served(workspace: Path, tokenizer: Tokenizer) -> Iterator[Served]:
    """A server with versions demo@1 (retired) and demo@2 (promoted)."""
    with open_store(workspace) as store:
        terms = {"licence": "Apache-2.0", "notices": ["Made for tests."], "card": {"summary": "A small test model."}}
        register(store, workspace, "demo", make_model(workspace, tokenizer, "a1"), status="promoted", **terms)
        second = make_model(workspace, tokenizer, "b2", {"base": "a1" * 32})
        register(store, workspace, "demo", second, parents=["demo@1"], status="promoted", **terms)
        script = Script()
        server, thread = start_server(workspace, store, script, (sys.executable, str(IMPROVE)))
        with httpx.Client(base_url=server.url, timeout=60) as client:
            yield Served(server.url, workspace, store, script, client)
        server.stop()
        thread.join(PATIENCE)
        assert not thread.is_alive()


def taught(folder: Path, tokenizer: Tokenizer, seed: int) -> None:
    """A real model of 0.1 million parameters that says `TEXT` on and on: answers end where they are cut.

    It is taught never to end them itself, so that no test meets the one answer in a thousand that is short by chance
    (a special token has a chance of 1e-8).
    """
    import torch

    from causerie.model import ModelShape, init_model, save_model

    sizes = {"n_layer": 2, "n_embd": 64, "n_head": 4, "n_kv_head": 2, "head_dim": 16, "ffn_dim": 128}
    shape = ModelShape(family="qwen3", vocab_size=tokenizer.vocab_size, max_seq_len=8192, **sizes)
    model = init_model(shape, seed)
    ids, chance = torch.tensor(tokenizer.encode(TEXT)), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        starts = torch.randint(0, len(ids) - 65, (8, 1), generator=chance)
        rows = ids[starts + torch.arange(65)]
        logits = model.logits(model(rows[:, :-1]))
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
        loss = loss + 0.3 * logits[..., sorted(tokenizer.special.values())].logsumexp(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    tokenizer.save(folder)
    save_model(model, folder, folder)


@dataclass
class RealServed(Served):
    """A server with real engines."""

    pool: EnginePool
    accounts: Accounts | None = None

    def engine(self, name: str = "demo") -> dict[str, int]:
        """What an engine's process last told of its work."""
        stats: dict[str, int] = self.pool.get(name).engine.stats  # type: ignore[attr-defined]
        return stats

    def begin_again(self) -> None:
        """No conversations, nothing said: what a newcomer sees."""
        for one in self.get("/api/conversations")["conversations"]:
            self.send("DELETE", f"/api/conversations/{one['id']}")
        self.send("DELETE", "/api/feedback")


@pytest.fixture(scope="session")
def weights(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Folders of two models, taught alike from other beginnings."""
    folders = [tmp_path_factory.mktemp("weights") for _ in range(2)]
    for seed, folder in enumerate(folders):
        taught(folder, tokenizer, seed)
    return folders


@contextlib.contextmanager
def real_server(workspace: Path, weights: Sequence[Path], signed: bool = False) -> Iterator[RealServed]:
    """Serve `demo` (@1 and the promoted @2) and `other@1` over engines in processes of their own."""
    import shutil

    with open_store(workspace) as store:
        card = {"summary": "A tiny model of the sea.", "parameters": 100_000}
        terms = {"licence": "Apache-2.0", "notices": ["Made for tests."], "card": card}
        made = (("demo", "a1", 0, None), ("demo", "b2", 1, {"base": "a1" * 32}), ("other", "c3", 0, None))
        for name, key, which, inputs in made:
            with write_artifact(workspace, "model", name, key * 32, inputs=inputs) as draft:
                shutil.copytree(weights[which], draft.path, dirs_exist_ok=True)
            assert draft.artifact is not None
            parents = ["demo@1"] if inputs else []
            register(store, workspace, name, draft.artifact, parents=parents, status="promoted", **terms)
        pool = EnginePool(config=EngineConfig(threads=1, cache_mb=64))
        accounts = Accounts(store) if signed else None
        improve = (sys.executable, str(IMPROVE))
        server, thread = start_server(
            workspace, store, None, improve, Door(accounts), ("demo",) if signed else ("demo", "other"), pool
        )
        with httpx.Client(base_url=server.url, timeout=60) as client:
            yield RealServed(server.url, workspace, store, Script(), client, pool, accounts)
        server.stop()
        thread.join(PATIENCE)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def real_house(weights: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServed]:
    """One server with real engines for all tests of this process."""
    with real_server(tmp_path_factory.mktemp("real"), weights) as found:
        yield found


@pytest.fixture
def real(real_house: RealServed) -> RealServed:
    """That server as a newcomer finds it."""
    real_house.begin_again()
    return real_house


CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-quic",
]  # fmt: skip
needs_chromium = pytest.mark.skipif(not CHROMIUM.exists(), reason="no Chromium at /usr/bin/chromium")

expect.set_options(timeout=60_000)  # machines that run this are sometimes busy


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, for a module: while playwright is there, its event loop runs in this thread."""
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield found
        found.close()


@contextlib.contextmanager
def reader(browser: Browser, url: str, **options: Any) -> Iterator[Page]:
    """Somebody new; anything that the browser complains about, or a request to elsewhere, fails the test."""
    usual: dict[str, Any] = {"locale": "en-GB", "viewport": {"width": 1180, "height": 800}}
    context = browser.new_context(base_url=url, **{**usual, **options})
    found = context.new_page()
    complaints: list[str] = []
    found.on("pageerror", lambda error: complaints.append(str(error)))
    found.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    found.on("request", lambda request: None if request.url.startswith(url) else complaints.append(request.url))
    found.on("dialog", lambda dialog: dialog.accept())
    found.goto("/")
    yield found
    context.close()
    assert complaints == []


@pytest.fixture
def page(browser: Browser, served: Served) -> Iterator[Page]:
    """A reader of the page over the script."""
    with reader(browser, served.url) as found:
        yield found


@pytest.fixture
def live(browser: Browser, real: RealServed) -> Iterator[Page]:
    """A reader of the page over real engines."""
    with reader(browser, real.url) as found:
        yield found


def ask(page: Page, text: str) -> None:
    """Ask and wait for the whole answer."""
    page.get_by_label("Your message").fill(text)
    page.keyboard.press("Enter")
    expect(page.get_by_text("Answer finished.")).to_be_attached()
