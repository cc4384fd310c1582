"""`causerie generate` and `causerie chat`: a model in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from causerie.cli.flags import JSON, WHOLE, WHOLE_OR_NONE, WORKSPACE, show, show_dash
from causerie.core import workspace_path
from causerie.hub import resolve
from causerie.infer import EngineConfig, Event, Sampling
from causerie.store import open_store
from causerie.text import ChatFormat, StreamDecoder, load_chat_format

if TYPE_CHECKING:
    from causerie.infer import Engine

MODEL = Annotated[str, Parameter(help="Registry name, name@number, or a model folder.")]


def folder_of(ref: str, workspace: Path) -> Path:
    """The folder of the model that `ref` names."""
    if not (workspace / "causerie.db").exists():
        return resolve(None, workspace, ref).path
    with open_store(workspace) as store:
        return resolve(store, workspace, ref).path


def generate(
    model: MODEL,
    *,
    prompt: Annotated[str, Parameter(help="The question, or with --raw the text to continue.")],
    greedy: Annotated[bool, Parameter(help="Always the likeliest token.", negative="")] = False,
    raw: Annotated[bool, Parameter(help="Continue the text instead of answering it.", negative="")] = False,
    max_tokens: WHOLE = 256,
    temperature: float = 0.8,
    top_p: float = 0.95,
    seed: WHOLE_OR_NONE = None,
    workspace: WORKSPACE = None,
    json: JSON = False,
) -> None:
    """Answer a prompt, or continue a text."""
    folder = folder_of(model, workspace_path(workspace))
    chat = load_chat_format(folder)
    prompt = show_dash(prompt)
    messages = [{"role": "user", "content": prompt}]
    ids = [chat.tokenizer.eot_id, *chat.tokenizer.encode(prompt)] if raw else chat.prompt(messages)
    heat = 0.0 if greedy else temperature
    sampling = Sampling(max_tokens=max_tokens, temperature=heat, top_p=top_p, seed=seed, stop_ids=_stops(chat))
    pieces, finish = [], "stop"
    for text, event in _stream(_engine(folder), chat, ids, sampling):
        pieces.append(text)
        finish = event.finish or finish
        if not json:
            sys.stdout.write(text)
            sys.stdout.flush()
    result = {"text": "".join(pieces), "finish": finish, "prompt_tokens": len(ids)}
    if json:
        show(result, json)
    else:
        sys.stdout.write("\n")


def chat(
    model: MODEL,
    *,
    system: Annotated[str, Parameter(help="What the assistant is told beforehand.")] = "",
    temperature: float = 0.8,
    top_p: float = 0.95,
    max_tokens: WHOLE = 512,
    workspace: WORKSPACE = None,
) -> None:
    """Talk to a model: one question a line; an empty line or end of input leaves."""
    folder = folder_of(model, workspace_path(workspace))
    chat_format = load_chat_format(folder)
    engine = _engine(folder)
    sampling = Sampling(max_tokens=max_tokens, temperature=temperature, top_p=top_p, stop_ids=_stops(chat_format))
    messages = [{"role": "system", "content": system}] if system else []
    while question := _ask():
        messages.append({"role": "user", "content": question})
        answer = ""
        for text, _ in _stream(engine, chat_format, chat_format.prompt(messages), sampling):
            answer += text
            sys.stdout.write(text)
            sys.stdout.flush()
        sys.stdout.write("\n")
        messages.append({"role": "assistant", "content": answer})


def _ask() -> str:
    try:
        return input("> " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return ""


def _engine(folder: Path) -> Engine:
    from causerie.infer import Engine

    return Engine(folder, EngineConfig())


def _stops(chat_format: ChatFormat) -> tuple[int, ...]:
    """Tokens that end an answer: the end of a turn, and the end of a document (a base model knows no turns)."""
    return (chat_format.tokenizer.eot_id, *chat_format.stop_ids)


def _stream(engine: Engine, chat_format: ChatFormat, ids: list[int], sampling: Sampling) -> Iterator[tuple[str, Event]]:
    """Text as it comes, each piece with the event that brought it."""
    decoder = StreamDecoder(chat_format.tokenizer)
    engine.add("cli", ids, sampling)
    event = None
    while engine.has_work:
        for event in engine.step():
            yield decoder.push([i for i in event.ids if i not in sampling.stop_ids]), event
    if event is not None and (rest := decoder.finish()):
        yield rest, event
