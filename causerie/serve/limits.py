"""Every bound of the API in one place, and the gate that keeps the work in hand bounded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from causerie.core import CauserieError
from causerie.serve.errors import RETRY_SECONDS, ApiError

MAX_BODY: Final = 4 * 2**20
"""Bytes of a request's body."""
MAX_TEXT: Final = 2**20
"""Characters of one text."""
MAX_MESSAGES: Final = 2_048
MAX_PROMPTS: Final = 64
MAX_CHOICES: Final = 16
"""Answers drawn for one request (`n` times prompts)."""
MAX_TOKENS: Final = 2**20
MAX_STOPS: Final = 4
MAX_STOP_LENGTH: Final = 256
MAX_BIASES: Final = 300
MAX_NAME: Final = 256
MAX_TOP_LOGPROBS: Final = 20
MAX_TOOLS: Final = 128
MAX_SCHEMA: Final = 64 * 1024
"""Characters of a JSON schema, as JSON text."""
MAX_METADATA: Final = 16
"""Pairs of an object's metadata; keys up to 64, values up to 512 characters."""
PAGE: Final = 20
"""Objects of a list when the request names no limit."""
MAX_PAGE: Final = 100
MAX_FILE: Final = 512 * 2**20
"""Bytes of one uploaded file."""
MAX_UPLOAD: Final = 8 * 2**30
"""Bytes of a file uploaded in parts."""
MAX_PART: Final = 64 * 2**20
MAX_PARTS: Final = 1_024
MAX_BATCH_ROWS: Final = 50_000
MAX_BATCH_FILE: Final = 200 * 2**20
BATCH_AT_ONCE: Final = 8
"""Requests of one batch under way at the same time."""
MAX_EMBEDDINGS: Final = 2_048
MAX_ITEMS: Final = 2_048
"""Items of a response's input or of a conversation in one request."""
MAX_CRITERIA: Final = 32
MAX_CHUNKS: Final = 20_000
"""Chunks of one vector store's file."""
HEARTBEAT_SECONDS: Final = 10.0
"""An idle event stream gets a comment this often, so that nothing between takes it for dead."""
SEND_SECONDS: Final = 30.0
"""A reader that takes longer than this for one piece is taken for gone."""


@dataclass
class Gate:
    """Counts the answers under way and refuses more than the server takes; slots are given back by leaving a block.

    Args:
        max_answers: answers under way in all, waiting ones included; beyond it requests get 503.
        max_tokens: tokens (prompts, and answers at their longest) under way in all; beyond it 503.
        max_per_key: answers under way for one API key; beyond it 429.
    """

    max_answers: int = 256
    max_tokens: int = 1_000_000
    max_per_key: int = 128
    answers: int = 0
    tokens: int = 0
    by_key: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def admit(self, key: str | None, answers: int, tokens: int) -> Iterator[None]:
        """Hold slots for the block.

        Args:
            key: id of the caller's API key; None in single-user mode, where only the totals count.
            answers: answers to draw.
            tokens: tokens they may need in all. One request alone is never refused for its tokens.

        Raises:
            CauserieError: CAU-6006 (503) when the server is full.
            ApiError: 429 when the key has as many answers under way as it may.
        """
        if key is not None and self.by_key[key] + answers > self.max_per_key:
            raise ApiError(
                429,
                f"this key has {self.by_key[key]} answers under way; at most {self.max_per_key} are allowed",
                type="requests",
                code="rate_limit_exceeded",
                retry_after=RETRY_SECONDS,
            )
        if self.answers + answers > self.max_answers or (self.answers and self.tokens + tokens > self.max_tokens):
            cause = f"{self.answers} answers with up to {self.tokens} tokens are under way"
            raise CauserieError("CAU-6006", cause, where="server", fix=f"try again in {RETRY_SECONDS} seconds")
        self._count(key, answers, tokens)
        try:
            yield
        finally:
            self._count(key, -answers, -tokens)

    def _count(self, key: str | None, answers: int, tokens: int) -> None:
        self.answers += answers
        self.tokens += tokens
        if key is not None:
            self.by_key[key] += answers
            if not self.by_key[key]:
                del self.by_key[key]
