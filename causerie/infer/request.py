"""What a caller asks of the engine and what it is told: plain frozen dataclasses, free of torch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from causerie.core import CauserieError, seed_for

Finish = Literal["stop", "length", "cancelled", "error"]
GrammarKind = Literal["json_schema", "json_object", "regex", "lark"]
Pooling = Literal["mean", "last"]

GRAMMAR_KINDS: Final = ("json_schema", "json_object", "regex", "lark")
POOLINGS: Final = ("mean", "last")
MAX_TOP_LOGPROBS: Final = 20
"""Alternatives told per token, at most (OpenAI's limit)."""
MAX_BIAS: Final = 1024
"""Entries of `logit_bias`, and ids in `stop_ids`, at most."""
MAX_GRAMMAR: Final = 256 * 1024
"""Characters of a grammar's text, at most."""

Alternative = tuple[int, float]
"""A token id and its log-probability."""


@dataclass(frozen=True)
class Grammar:
    """What the completion must match; enforced token by token.

    Raises:
        CauserieError: CAU-3102 for an unknown kind or a text that is too long. Whether the text is a valid grammar is
            found when the request reaches the engine (CAU-3110).
    """

    kind: GrammarKind
    value: str = ""
    """The JSON text of a schema, a regular expression or a grammar in Lark's notation; empty for `json_object`."""

    def __post_init__(self) -> None:
        if self.kind not in GRAMMAR_KINDS:
            raise _bad("grammar", f"kind {self.kind!r} is unknown", f"use one of {', '.join(GRAMMAR_KINDS)}")
        if not isinstance(self.value, str) or len(self.value) > MAX_GRAMMAR:
            raise _bad("grammar", "its text is missing or too long", f"give at most {MAX_GRAMMAR} characters")
        if bool(self.value) == (self.kind == "json_object"):
            raise _bad("grammar", f"kind {self.kind} {'takes no' if self.value else 'needs a'} value", "see `Grammar`")

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any] | bool) -> Grammar:
        """The grammar of a JSON schema."""
        return cls("json_schema", json.dumps(schema))


@dataclass(frozen=True)
class Sampling:
    """How the next tokens are chosen.

    The logits are changed in this order: repetition penalty, the other penalties and bias, grammar and minimum
    length, temperature, top-k, top-p (of what top-k left), min-p (relative to the likeliest token). Stop strings are
    for the caller, who knows text; the engine sees `stop_ids`.

    Raises:
        CauserieError: CAU-3102 naming the field that is out of range.
    """

    max_tokens: int = 256
    """0 only together with `prompt_logprobs`: the prompt is scored and nothing is generated."""
    min_tokens: int = 0
    """Stop ids are not sampled before the completion has so many tokens; a grammar's own end comes when it comes."""
    temperature: float = 1.0
    """0 takes the likeliest token."""
    top_p: float = 1.0
    top_k: int = 0
    """0 keeps the whole vocabulary."""
    min_p: float = 0.0
    stop: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()
    """A sampled stop id ends the completion and is its last id."""
    seed: int | None = None
    """Same seed, same prompt: same tokens, alone or in a full batch. None draws a fresh seed."""
    logprobs: bool = False
    """Give each token's log-probability under the unmodified distribution at temperature 1."""
    top_logprobs: int = 0
    """Give so many of the likeliest tokens too, with theirs; needs `logprobs`."""
    prompt_logprobs: bool = False
    """Give the prompt's log-probabilities in the first event (with `top_logprobs` alternatives each)."""
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    """Both penalties count the tokens of the completion, not of the prompt."""
    repetition_penalty: float = 1.0
    """Divides positive and multiplies negative logits of every token seen, prompt included (arXiv:1909.05858)."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    grammar: Grammar | None = None
    adapter: str | None = None
    """Name of a loaded adapter; None is the model as it was loaded."""

    def __post_init__(self) -> None:
        _in_range("max_tokens", self.max_tokens, 0 if self.prompt_logprobs else 1, 2**31, whole=True)
        _in_range("min_tokens", self.min_tokens, 0, 2**31, whole=True)
        _in_range("temperature", self.temperature, 0, 100)
        _in_range("top_p", self.top_p, 0, 1)
        _in_range("top_k", self.top_k, 0, 2**31, whole=True)
        _in_range("min_p", self.min_p, 0, 1)
        _in_range("top_logprobs", self.top_logprobs, 0, MAX_TOP_LOGPROBS, whole=True)
        _in_range("frequency_penalty", self.frequency_penalty, -100, 100)
        _in_range("presence_penalty", self.presence_penalty, -100, 100)
        _in_range("repetition_penalty", self.repetition_penalty, 0.01, 100)
        if self.seed is not None:
            _in_range("seed", self.seed, -(2**63), 2**64, whole=True)
        _at_most("logit_bias", len(self.logit_bias))
        _at_most("stop_ids", len(self.stop_ids))
        for _, bias in self.logit_bias:
            _in_range("logit_bias", bias, -1e4, 1e4)
        if self.adapter is not None and not (isinstance(self.adapter, str) and 0 < len(self.adapter) <= 200):
            raise _bad("adapter", "its name is not a short text", "give the name it was loaded under")

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken; temperatures below 1e-5 count as 0."""
        return self.temperature < 1e-5

    def for_choice(self, index: int) -> Sampling:
        """The settings of choice `index` of n: the same but for the seed; choice 0 keeps it."""
        if index == 0 or self.seed is None:
            return self
        return replace(self, seed=seed_for(self.seed, "choice", index))


@dataclass(frozen=True)
class Event:
    """What one step brought one request; the last one carries `finish`."""

    request_id: str
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    """One per id, where asked for."""
    finish: Finish | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    """Tokens of the completion so far, a final stop id included."""
    cached_tokens: int = 0
    """Tokens of the prompt that were taken from the cache."""
    top_logprobs: list[list[Alternative]] = field(default_factory=list)
    """One list per id, likeliest first, where asked for."""
    prompt_logprobs: list[float | None] | None = None
    """In the first event, where asked for: one per prompt token, None for the first token."""
    prompt_top_logprobs: list[list[Alternative]] | None = None
    embedding: list[float] | None = None
    """The answer to an embedding: (n_embd,), of length 1."""


@dataclass(frozen=True)
class Completion:
    """A finished answer: its ids (a final stop id included), log-probabilities where asked for, and why it ended."""

    ids: list[int]
    logprobs: list[float]
    finish: Finish
    prompt_tokens: int = 0
    cached_tokens: int = 0
    top_logprobs: list[list[Alternative]] = field(default_factory=list)
    prompt_logprobs: list[float | None] | None = None


def join_events(events: list[Event]) -> Completion:
    """One request's events, the last one with `finish`, as a completion."""
    last = events[-1]
    assert last.finish is not None
    told = next((event.prompt_logprobs for event in events if event.prompt_logprobs is not None), None)
    return Completion(
        ids=[token for event in events for token in event.ids],
        logprobs=[value for event in events for value in event.logprobs],
        finish=last.finish,
        prompt_tokens=last.prompt_tokens,
        cached_tokens=last.cached_tokens,
        top_logprobs=[some for event in events for some in event.top_logprobs],
        prompt_logprobs=told,
    )


def _bad(where: str, cause: str, fix: str) -> CauserieError:
    return CauserieError("CAU-3102", f"{where}: {cause}", where=where, fix=fix)


def _at_most(name: str, length: int) -> None:
    if length > MAX_BIAS:
        raise _bad(name, f"has {length} entries", f"give at most {MAX_BIAS}")


def _in_range(name: str, value: object, low: float, high: float, whole: bool = False) -> None:
    kind = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kind) or not math.isfinite(value) or not low <= value <= high:
        what = "a whole number" if whole else "a number"
        raise CauserieError("CAU-3102", f"{name} is {value!r}", where=name, fix=f"give {what} from {low:g} to {high:g}")
