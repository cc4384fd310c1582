"""A server with a scripted engine: what it says, how fast, and what goes wrong are chosen by each test."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import openai
import pytest
from starlette.applications import Starlette

from causerie.core import write_artifact
from causerie.infer import EngineConfig, Event, Sampling
from causerie.serve import EnginePool, Server, create_app
from causerie.store import Store, open_store
from causerie.text import Tokenizer, train_bpe
from tests.waiting import PATIENCE

ANSWER = "Bonjour ! L'été est là 🙂, et voilà."


@dataclass
class Script:
    """What every scripted engine does."""

    answer: str = ANSWER
    delay: float = 0.0
    fail_after: int | None = None
    endless: bool = False
    held_after: int | None = None
    """So many answers come; whoever asks after them gets nothing while this stands."""
    max_seq_len: int = 256
    live: int = 0
    drawn: int = 0
    peak: int = 0
    asked: list[tuple[list[int], Sampling, str]] = field(default_factory=list)

    def reset(self) -> None:
        """As it was made; answers under way are not forgotten."""
        live = self.live
        self.__init__()  # type: ignore[misc]
        self.live = live


class ScriptedEngine:
    """An engine that says what the script holds, one token a step."""

    def __init__(self, folder: Path, script: Script, tokenizer: Tokenizer) -> None:
        self.folder = folder
        self.script = script
        self.tokenizer = tokenizer
        self.running = False

    @property
    def info(self) -> dict[str, int]:
        """The model's length."""
        return {"max_seq_len": self.script.max_seq_len}

    async def start(self) -> None:
        """Begin."""
        self.running = True

    async def stop(self) -> None:
        """End."""
        self.running = False

    async def generate(self, prompt_ids: list[int], sampling: Sampling, *, salt: str = "") -> AsyncIterator[Event]:
        """The scripted answer."""
        script = self.script
        script.asked.append((prompt_ids, sampling, salt))
        script.live += 1
        script.peak = max(script.peak, script.live)
        number = len(script.asked)
        try:
            async for event in self._events(len(prompt_ids), sampling):
                await asyncio.sleep(script.delay)
                while script.held_after is not None and number > script.held_after:
                    await asyncio.sleep(0.005)
                script.drawn += 1
                yield event
        finally:
            script.live -= 1

    async def _events(self, prompt: int, sampling: Sampling) -> AsyncIterator[Event]:
        ids = self.tokenizer.encode(self.script.answer)
        drawn = 0
        while True:
            for id in ids:
                drawn += 1
                last = drawn == sampling.max_tokens
                logprobs = [-drawn / 100] if sampling.logprobs else []
                top = [[(id, -drawn / 100), *((other, -9.0) for other in range(1, sampling.top_logprobs))]]
                tops = top if sampling.top_logprobs else []
                yield Event("r", [id], logprobs, "length" if last else None, prompt, drawn, top_logprobs=tops)
                if last:
                    return
                if drawn == self.script.fail_after:
                    yield Event("r", [], [], "error", prompt, drawn)
                    return
            if not self.script.endless:
                break
        logprobs = [-0.01] if sampling.logprobs else []
        tops = [[(sampling.stop_ids[0], -0.01)]] if sampling.top_logprobs else []
        yield Event("r", [sampling.stop_ids[0]], logprobs, "stop", prompt, drawn + 1, top_logprobs=tops)

    async def embed(
        self, batch: list[list[int]], *, pooling: str = "mean", adapter: str | None = None
    ) -> list[list[float]]:
        """Vectors of length 1 that depend on the ids."""
        vectors = []
        for ids in batch:
            raw = [sum(id % (place + 2) for id in ids) + 1.0 for place in range(8)]
            length = sum(value * value for value in raw) ** 0.5
            vectors.append([value / length for value in raw])
        return vectors


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """A small tokenizer of ours."""
    return train_bpe([ANSWER, "Quelle belle journée ! The quick brown fox. user assistant system"] * 3, 320)


@pytest.fixture(scope="module")
def script_of_module() -> Script:
    """The script that all engines of a test module follow."""
    return Script()


@pytest.fixture
def script(script_of_module: Script) -> Script:
    """The script, as at first; change it before asking."""
    script_of_module.reset()
    return script_of_module


@pytest.fixture(autouse=True)
def _fresh_script(script: Script) -> None:
    """No test sees what another left in the script."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace for a test module."""
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture(scope="module")
def folder(tokenizer: Tokenizer, home: Path) -> Path:
    """A model folder as far as the server reads it."""
    with write_artifact(home, "model", "petit", "ab" * 32) as draft:
        tokenizer.save(draft.path)
    assert draft.artifact is not None
    return draft.artifact.path


@pytest.fixture
def pool(script_of_module: Script, tokenizer: Tokenizer) -> EnginePool:
    """A pool of scripted engines."""
    return EnginePool(lambda folder: ScriptedEngine(folder, script_of_module, tokenizer))


@pytest.fixture(scope="module")
def store(home: Path) -> Iterator[Store]:
    """An open store."""
    with open_store(home) as store:
        yield store


@pytest.fixture
def app(pool: EnginePool, store: Store, folder: Path, home: Path) -> Starlette:
    """The application in single-user mode, serving the model `petit` version 3."""
    return create_app(pool, store=store, workspace=home, lifespans=[serving(pool, folder)])


@pytest.fixture(scope="module")
def shared_pool(script_of_module: Script, tokenizer: Tokenizer) -> EnginePool:
    """The pool of the module's server."""
    return EnginePool(lambda folder: ScriptedEngine(folder, script_of_module, tokenizer))


def serving(pool: EnginePool, folder: Path) -> Callable[[Starlette], object]:
    """A lifespan that loads the model."""

    @asynccontextmanager
    async def life(_app: Starlette) -> AsyncIterator[None]:
        await pool.load("petit", folder, 3)
        yield

    return life


@dataclass
class Running:
    """A server in a thread."""

    server: Server
    thread: threading.Thread

    @property
    def url(self) -> str:
        """Its address."""
        return self.server.url

    def stop(self) -> None:
        """End it and wait for that."""
        self.server.stop()
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()


Start = Callable[..., Running]


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    """Start servers on free ports; they are stopped at the end."""
    running: list[Running] = []

    def begin(app: Starlette, **options: object) -> Running:
        ready = threading.Event()
        server = Server(app, port=0, on_ready=lambda _url: ready.set(), **{"grace": 1, **options})
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        assert ready.wait(120)
        running.append(Running(server, thread))
        return running[-1]

    yield begin
    for each in running:
        each.stop()


@pytest.fixture(scope="module")
def server(start: Start, shared_pool: EnginePool, store: Store, folder: Path, home: Path) -> Running:
    """The application on a free loopback port, the same for all tests of a module."""
    return start(create_app(shared_pool, store=store, workspace=home, lifespans=[serving(shared_pool, folder)]))


@pytest.fixture
def client(server: Running) -> Iterator[openai.OpenAI]:
    """The official client, without retries."""
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="anything", max_retries=0) as client:
        yield client


@pytest.fixture
def http(server: Running) -> Iterator[httpx.Client]:
    """A plain HTTP client."""
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def model_folder(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with random weights."""
    from causerie.model import ModelShape, init_model, save_model

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
    folder = tmp_path_factory.mktemp("tiny")
    source = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(source)
    save_model(init_model(shape, 0), folder, source)
    return folder


@pytest.fixture(scope="module")
def real_pool() -> EnginePool:
    """A pool of real engines."""
    return EnginePool(config=EngineConfig(threads=1, cache_mb=16))


@pytest.fixture(scope="module")
def real_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace of the server with a real engine."""
    return tmp_path_factory.mktemp("real")


@pytest.fixture(scope="module")
def real_store(real_home: Path) -> Iterator[Store]:
    """Its store."""
    with open_store(real_home) as store:
        yield store


@pytest.fixture(scope="module")
def real(start: Start, real_pool: EnginePool, model_folder: Path, real_store: Store, real_home: Path) -> Running:
    """A server with a real engine, a store and a workspace."""
    app = create_app(real_pool, store=real_store, workspace=real_home, lifespans=[serving(real_pool, model_folder)])
    return start(app)
