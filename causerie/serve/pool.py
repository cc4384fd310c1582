"""The models being served: each name has an engine in its own process, a tokenizer and a chat format.

A promoted version replaces the one before it without a pause: its engine is started beside the old one, the name is
switched, and the old engine stops when its last answer has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from causerie.core import CauserieError, read_json, read_manifest
from causerie.hub import weights_key
from causerie.infer import EngineClient, EngineConfig, Event, Sampling
from causerie.serve.errors import model_not_found
from causerie.serve.gate import Gate
from causerie.text import ChatFormat, Tokenizer, chat_format, load_tokenizer

log = logging.getLogger("causerie.serve")

AWAKE: Final = 2
"""Models that are loaded only when asked for, such as checkpoints, that stay loaded."""


class EngineLike(Protocol):
    """What the pool needs of an engine; `causerie.infer.EngineClient` has it."""

    @property
    def info(self) -> dict[str, Any]:
        """Facts about the loaded model; `max_seq_len` is read."""
        ...

    async def start(self) -> None:
        """Start, returning when the model is loaded."""
        ...

    async def stop(self) -> None:
        """Stop, cancelling what is under way."""
        ...

    def generate(self, prompt_ids: list[int], sampling: Sampling, *, salt: str = "") -> AsyncIterator[Event]:
        """Events of one completion, from an async generator whose closing cancels it; cached prompts are shared
        only within a salt."""
        ...


EngineFactory = Callable[[Path], EngineLike]
"""Makes an engine, not started, for a model or adapter folder."""


@dataclass(frozen=True)
class ServedVersion:
    """Which weights answer: registry name, version number where it has one, artifact key, chat format."""

    name: str
    version: int | None
    key: str
    chat_format: str | None

    @property
    def label(self) -> str:
        """`name@N`, or the bare name of a model without a number."""
        return self.name if self.version is None else f"{self.name}@{self.version}"


@dataclass
class Served:
    """One version being served, with what turns text into its tokens."""

    version: ServedVersion
    folder: Path
    tokenizer: Tokenizer
    chat: ChatFormat | None
    engine: EngineLike
    created: int
    active: int = 0
    retired: bool = False
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    owner: str | None = None
    """The project that alone sees it; None for everybody."""
    shared: set[str] = field(default_factory=set)
    """Further projects that may use it."""
    adapter: str | None = None
    """Name of the adapter within an engine that other versions use too."""
    host: Served | None = None
    """The version whose engine it uses."""

    def seen_by(self, owner: str | None) -> bool:
        """Whether a project may use it; None asks for the server itself."""
        return owner is None or self.owner in (None, owner) or owner in self.shared

    @property
    def lane(self) -> str:
        """Where its requests queue: those of one engine share one line."""
        return (self.host or self).version.key

    @property
    def max_seq_len(self) -> int:
        """Tokens of prompt and answer together, at most."""
        return int(self.engine.info.get("max_seq_len") or 2048)

    def need_chat(self) -> ChatFormat:
        """The chat format.

        Raises:
            CauserieError: CAU-6005 for a model that has none.
        """
        if self.chat is None:
            raise CauserieError(
                "CAU-6005",
                f"the model {self.version.label!r} has no chat format",
                where="model",
                fix="use v1/completions, or a model trained to chat",
            )
        return self.chat


@dataclass
class Asleep:
    """A model that is loaded when somebody asks for it."""

    folder: Path
    owner: str
    shared: set[str] = field(default_factory=set)

    def seen_by(self, owner: str | None) -> bool:
        """See `Served.seen_by`."""
        return owner is None or owner == self.owner or owner in self.shared


class EnginePool:
    """Served models by name. All methods belong to one event loop.

    Args:
        make_engine: makes an engine for a folder; default: `EngineClient` with `config`.
        config: settings of the default engines.
        gate: bounds the answers under way, of the API and of the page together.
    """

    def __init__(
        self, make_engine: EngineFactory | None = None, config: EngineConfig | None = None, gate: Gate | None = None
    ) -> None:
        settings = config or EngineConfig()
        self.gate = gate or Gate()
        self._make = make_engine or (lambda folder: EngineClient(folder, settings))
        self._served: dict[str, Served] = {}
        self._asleep: OrderedDict[str, Asleep] = OrderedDict()
        self._waking = asyncio.Lock()
        self._changing: dict[str, asyncio.Lock] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self.closed = False

    def models(self) -> list[tuple[str, Served]]:
        """What is being served, by the name that callers ask for, in the order in which it was loaded."""
        return list(self._served.items())

    def get(self, model: str, owner: str | None = None) -> Served:
        """The served version for `name` or `name@N`, among those that a project sees (None: all).

        Raises:
            CauserieError: CAU-6003.
        """
        found = self._served.get(model)
        if found is None:
            current = self._served.get(model.rpartition("@")[0])
            found = current if current is not None and current.version.label == model else None
        if found is None or not found.seen_by(owner):
            raise model_not_found(model)
        return found

    def folder_of(self, model: str, owner: str | None = None) -> Path:
        """The folder of a model that is served, or asleep, for a project.

        Raises:
            CauserieError: CAU-6003.
        """
        asleep = self._asleep.get(model)
        if asleep is not None and asleep.seen_by(owner):
            return asleep.folder
        return self.get(model, owner).folder

    def offer(self, name: str, folder: Path, owner: str) -> None:
        """Serve a model to a project from when it is first asked for; of such models the `AWAKE` asked for last stay
        loaded."""
        self._asleep[name] = Asleep(folder, owner)

    async def _wake(self, name: str, owner: str | None) -> None:
        """Load a model that is asleep, letting the one that nobody has asked for the longest sleep again."""
        asleep = self._asleep[name]
        if not asleep.seen_by(owner):
            return
        async with self._waking:
            if name not in self._asleep:  # deleted meanwhile
                return
            self._asleep.move_to_end(name)
            if name not in self._served:
                served = await self.load(name, asleep.folder, owner=asleep.owner)
                served.shared = asleep.shared
            for tired in [each for each in self._asleep if each in self._served][:-AWAKE]:
                self._retire(self._served.pop(tired))

    async def load(self, name: str, folder: Path, version: int | None = None, *, owner: str | None = None) -> Served:
        """Start an engine for a folder and serve it as `name`; what had the name before is replaced (see `swap`).

        Args:
            name: what callers ask for; `name@N` keeps another version available beside the promoted one.
            folder: model or adapter folder with tokenizer files.
            version: the version's number in the registry.
            owner: the project that alone may use it; None for everybody.

        An adapter of a model that is being served joins that model's engine instead of starting one.

        Raises:
            CauserieError: CAU-1201 for a folder without tokenizer, CAU-31xx when the engine cannot start.
        """
        async with self._changing.setdefault(name, asyncio.Lock()):
            served = await self._start(name, folder, version)
            served.owner = owner
            old = self._served.get(name)
            self._served[name] = served
            if old is not None:
                self._retire(old)
        return served

    async def swap(self, name: str, folder: Path, version: int | None = None) -> Served:
        """Replace what `name` serves: answers under way end on the old version, new ones begin on the new."""
        return await self.load(name, folder, version)

    def share(self, name: str, projects: Iterable[str]) -> None:
        """Let further projects use a model that is being served."""
        for found in self._named(name):
            found.shared.update(projects)

    def unshare(self, name: str, project: str) -> None:
        """Take that back."""
        for found in self._named(name):
            found.shared.discard(project)

    def _named(self, name: str) -> list[Served | Asleep]:
        return [found for found in (self._served.get(name), self._asleep.get(name)) if found is not None]

    async def unload(self, name: str) -> None:
        """Stop serving a name; returns when its last answer has ended.

        Raises:
            CauserieError: CAU-6003.
        """
        asleep, served = self._asleep.pop(name, None), self._served.pop(name, None)
        if served is not None:
            await self._retire(served)
        elif asleep is None:
            raise model_not_found(name)

    async def _start(self, name: str, folder: Path, number: int | None) -> Served:
        tokenizer = await asyncio.to_thread(load_tokenizer, folder)
        chat = _chat_or_none(tokenizer)
        base = name.rpartition("@")[0] if number is not None and name.endswith(f"@{number}") else name
        key = await asyncio.to_thread(folder_key, folder)
        version = ServedVersion(base, number, key, chat.name if chat else None)
        created = int(time.time())
        host = self._host_of(folder)
        if host is not None:
            adapter = f"{name}-{key[:8]}"
            host.active += 1
            try:
                await host.engine.load_adapter(adapter, folder)  # type: ignore[attr-defined]
            except CauserieError as error:  # it does not fit, or is there already: an engine of its own always works
                host.active -= 1
                log.info("%s gets an engine of its own: %s", name, error.cause)
            else:
                return Served(version, folder, tokenizer, chat, host.engine, created, adapter=adapter, host=host)
        engine = self._make(folder)
        await engine.start()
        return Served(version, folder, tokenizer, chat, engine, created)

    def _host_of(self, folder: Path) -> Served | None:
        """The served version whose weights an adapter was made for; None for folders that are no adapters."""
        if not (folder / "adapter_config.json").is_file():
            return None
        base = read_json(folder / "adapter_config.json").get("base_model_name_or_path")
        if not isinstance(base, str):
            return None
        place = (folder / base).resolve()
        hosts = [each for each in self._served.values() if each.host is None and not each.retired]
        able = [each for each in hosts if hasattr(each.engine, "load_adapter")]
        return next((each for each in able if each.folder.resolve() == place), None)

    def _retire(self, served: Served) -> asyncio.Task[None]:
        served.retired = True
        task = asyncio.create_task(self._stop_when_idle(served))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)
        return task

    async def _stop_when_idle(self, served: Served) -> None:
        if served.active:
            await served.idle.wait()
        if served.host is None:
            await served.engine.stop()
            return
        with contextlib.suppress(CauserieError):
            await served.engine.unload_adapter(served.adapter)  # type: ignore[attr-defined]
        _release(served.host)

    @asynccontextmanager
    async def lease(self, model: str, owner: str | None = None) -> AsyncIterator[Served]:
        """Hold the version that serves `model` for a project for the block: it stays until the block ends.

        Raises:
            CauserieError: CAU-6003; CAU-31xx when a model that was asleep cannot be loaded.
        """
        if model in self._asleep:
            await self._wake(model, owner)
        served = self.get(model, owner)
        served.active += 1
        try:
            yield served
        finally:
            _release(served)

    async def close(self) -> None:
        """Stop every engine, also those with answers under way."""
        self.closed = True
        retiring = list(self._retiring)
        for task in retiring:
            task.cancel()
        engines = [served.engine for served in self._served.values() if served.host is None]
        self._served.clear()
        self._asleep.clear()
        stops: list[Awaitable[None]] = [engine.stop() for engine in engines]
        for result in await asyncio.gather(*retiring, *stops, return_exceptions=True):
            if isinstance(result, Exception):
                log.error("an engine did not stop in order: %s", result)


def _release(served: Served) -> None:
    served.active -= 1
    if served.retired and not served.active:
        served.idle.set()


def _chat_or_none(tokenizer: Tokenizer) -> ChatFormat | None:
    with contextlib.suppress(CauserieError):
        return chat_format(tokenizer)
    return None


def folder_key(folder: Path) -> str:
    """The artifact key of a model folder; for a folder without manifest the digest of its weights."""
    if (folder / "manifest.json").is_file():
        return read_manifest(folder).key
    return weights_key(folder)
