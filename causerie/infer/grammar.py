"""Structured output: which tokens may come next so that the completion matches a grammar. By llguidance, torch-free.

The rest of the engine sees `Grammars.start` and a `Matcher`'s four methods, nothing of llguidance.
Compiled grammars are kept, least recently used dropped first, within a number and a number of bytes of their texts.
A compilation is bounded by llguidance's own limits on states and time: a bad grammar is an error, not a dead worker.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from causerie.core import CauserieError
from causerie.infer.request import GRAMMAR_KINDS, Grammar
from causerie.text import Tokenizer

MAX_CACHED: Final = 64
"""Compiled grammars kept, at most."""
MAX_CACHED_BYTES: Final = 4 * 2**20
"""Bytes of the texts of compiled grammars kept, at most; llguidance bounds the compiled size of each."""
LIMITS: Final = {"max_items_in_row": 2000, "initial_lexer_fuel": 1_000_000, "step_lexer_fuel": 200_000}
"""Work that compiling a grammar and one step of it may take; more is an error."""

_SPACING: Final = {"whitespace_flexible": True, "whitespace_pattern": " ?"}
"""At most one space where JSON allows any: a model cannot pad its answer for ever."""


class Matcher(Protocol):
    """Where one completion stands in its grammar."""

    def mask(self) -> NDArray[np.int32]:
        """(ceil(V / 32),) bits, lowest first: which ids may come next; none when it became too complex on the way."""
        ...

    def accept(self, token: int) -> bool:
        """Go on by a token; False when the grammar does not allow it."""
        ...

    @property
    def may_stop(self) -> bool:
        """Whether the completion so far matches the grammar."""
        ...

    @property
    def done(self) -> bool:
        """Whether nothing can follow."""
        ...


class Grammars:
    """Compiled grammars for one tokenizer.

    Args:
        load: loads the tokenizer whose ids the masks are about, when the first grammar comes; None: there is none.
        vocab_size: rows of the model's output projection, at least the tokenizer's ids.
    """

    def __init__(self, load: Callable[[], Tokenizer] | None, vocab_size: int) -> None:
        self._load = load
        self._vocab_size = vocab_size
        self._table: Any = None
        self.eos_id = -1
        """The id that llguidance allows where the completion may end; known once a grammar was started."""
        self._cache: OrderedDict[Grammar, Any] = OrderedDict()
        self._bytes = 0

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of grammars that can be used here."""
        return GRAMMAR_KINDS if self._load is not None and _library() is not None else ()

    def start(self, grammar: Grammar) -> Matcher:
        """A matcher at the beginning of a grammar.

        Raises:
            CauserieError: CAU-3110 for an invalid or too complex grammar, or without llguidance or a tokenizer.
        """
        found = self._cache.get(grammar)
        if found is None:
            found = self._compile(grammar)
            self._keep(grammar, found)
        if grammar in self._cache:
            self._cache.move_to_end(grammar)
        return _LlgMatcher(found.deep_copy(), self._vocab_size)

    def _compile(self, grammar: Grammar) -> Any:
        library = _library()
        if library is None:
            raise _bad("llguidance is not installed", "install llguidance")
        if self._load is None:
            raise _bad("the model was given without a tokenizer", "load the engine from a folder")
        if self._table is None:
            tokenizer = self._load()
            self._table, self.eos_id = _token_table(library, tokenizer, self._vocab_size), tokenizer.eos_id
        matcher = library.LLMatcher(
            self._table, _text(library, grammar), log_level=0, limits=library.LLParserLimits(**LIMITS)
        )
        if matcher.is_error():
            raise _bad(str(matcher.get_error()).strip().splitlines()[0][:500], "correct the grammar")
        return matcher

    def _keep(self, grammar: Grammar, compiled: Any) -> None:
        self._cache[grammar] = compiled
        self._bytes += len(grammar.value)
        while len(self._cache) > MAX_CACHED or self._bytes > MAX_CACHED_BYTES:
            dropped, _ = self._cache.popitem(last=False)
            self._bytes -= len(dropped.value)


class _LlgMatcher:
    """A `Matcher` by llguidance."""

    def __init__(self, matcher: Any, vocab_size: int) -> None:
        self._matcher = matcher
        self._words = -(-vocab_size // 32)

    def mask(self) -> NDArray[np.int32]:
        out = np.zeros(self._words, dtype=np.int32)
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.int32)[: self._words]
        if not self._matcher.is_error():
            out[: len(bits)] = bits
        return out

    def accept(self, token: int) -> bool:
        return bool(self._matcher.consume_token(token))

    @property
    def may_stop(self) -> bool:
        return bool(self._matcher.is_accepting())

    @property
    def done(self) -> bool:
        return bool(self._matcher.is_stopped())


def _text(library: Any, grammar: Grammar) -> str:
    if grammar.kind == "lark":
        return str(library.LLMatcher.grammar_from_lark(grammar.value))
    if grammar.kind == "regex":
        return str(library.LLMatcher.grammar_from_regex(grammar.value))
    try:
        schema = {"type": "object"} if grammar.kind == "json_object" else json.loads(grammar.value)
        return str(library.LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=_SPACING))
    except (ValueError, RecursionError) as error:
        raise _bad(f"the schema is not valid JSON: {error}", "give the JSON text of a schema") from error


class _TokenList:
    """What llguidance asks of a tokenizer: every token's bytes, and how text becomes ids."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        n_known = min(tokenizer.vocab_size, vocab_size)
        self.tokens = [tokenizer.token_bytes(token) for token in range(n_known)]
        self.tokens += [b""] * (vocab_size - n_known)
        empty = {token for token, text in enumerate(self.tokens) if not text}
        self.special_token_ids = sorted(empty | {token for token in tokenizer.special.values() if token < vocab_size})
        self.eos_token_id = tokenizer.eos_id
        self.bos_token_id = None
        self._tokenizer = tokenizer

    def __call__(self, text: str) -> list[int]:
        return self._tokenizer.encode(text)


def _token_table(library: Any, tokenizer: Tokenizer, vocab_size: int) -> Any:
    wrapper = library.TokenizerWrapper(_TokenList(tokenizer, vocab_size))
    return library.LLTokenizer(wrapper, n_vocab=vocab_size, eos_token=tokenizer.eos_id)


def _library() -> Any:
    try:
        import llguidance
    except ImportError:
        return None
    return llguidance


def _bad(cause: str, fix: str) -> CauserieError:
    return CauserieError("CAU-3110", cause, where="grammar", fix=fix)
