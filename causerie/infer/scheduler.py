"""Continuous batching: which sequences advance in the next step, by how many tokens.

A sequence is its tokens and how many of them are computed (have keys and values in the cache); prompts, chunks of
prompts, decoding and recomputation after preemption are all "compute the pending tokens". Each step takes
every decoding sequence first (one token each), fills the token budget with chunks of prompts, and then admits
waiting requests, first come first served. When blocks run out the youngest running sequence gives up its blocks and
waits at the front of the queue; its tokens are kept, so it goes on exactly where it was.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from causerie.infer.blocks import BlockPool, chain_digest, root_digest
from causerie.infer.request import Alternative, Pooling, Sampling

if TYPE_CHECKING:
    from torch import Tensor

    from causerie.infer.adapters import Adapter
    from causerie.infer.grammar import Matcher


@dataclass(eq=False)
class Sequence:
    """One request's tokens and its place in the cache."""

    request_id: str
    tokens: list[int]
    """Prompt and completion so far."""
    n_prompt: int
    sampling: Sampling
    seed: int
    salt: str = ""
    n_computed: int = 0
    blocks: list[int] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    cached_tokens: int = -1
    """Prompt tokens found in the cache at the first admission; -1 before."""
    counts: Counter[int] = field(default_factory=Counter)
    """How often each token stands in the completion; kept only where a penalty needs it."""
    stops: frozenset[int] = frozenset()
    """Ids that end the completion."""
    priority: int = 0
    """Higher ones leave the queue first."""
    adapter: Adapter | None = None
    matcher: Matcher | None = None
    """Where the completion stands in its grammar."""
    pooling: Pooling | None = None
    """The prompt is to be embedded, nothing is generated."""
    pooled: Tensor | None = None
    """Sum of the hidden states so far, or the last one: (D,) float32."""
    prompt_logprobs: list[float | None] = field(default_factory=list)
    prompt_top: list[list[Alternative]] = field(default_factory=list)

    @property
    def n_pending(self) -> int:
        """Tokens still to be computed; 1 while decoding."""
        return len(self.tokens) - self.n_computed

    @property
    def needs_whole(self) -> bool:
        """Whether the whole prompt must be computed, cached or not, because its hidden states are asked for."""
        return self.pooling is not None or (self.sampling.prompt_logprobs and self.n_completion == 0)

    @property
    def n_completion(self) -> int:
        """Tokens of the completion so far."""
        return len(self.tokens) - self.n_prompt

    @property
    def root(self) -> str:
        """What its cached blocks depend on besides the tokens: the tenant and the adapter."""
        return self.salt if self.adapter is None else f"{self.salt}\0{self.adapter.uid}"

    def block_digests(self, count: int, block_size: int) -> list[bytes]:
        """Digests of the first `count` full blocks."""
        while len(self.digests) < count:
            start = len(self.digests) * block_size
            parent = self.digests[-1] if self.digests else root_digest(self.root)
            self.digests.append(chain_digest(parent, self.tokens[start : start + block_size]))
        return self.digests[:count]


@dataclass(frozen=True)
class Work:
    """Compute `count` tokens of a sequence from position `start`; sample the next one when none is then pending."""

    sequence: Sequence
    start: int
    count: int

    @property
    def samples(self) -> bool:
        """Whether the last token computed is the sequence's last, so that the next one is sampled."""
        return self.start + self.count == len(self.sequence.tokens)


@dataclass
class Batch:
    """One step's work, single tokens first, then chunks; and the requests that it admitted."""

    budget: int
    work: dict[str, Work] = field(default_factory=dict)
    admitted: list[str] = field(default_factory=list)

    def put(self, sequence: Sequence, count: int) -> None:
        """Plan `count` pending tokens of a sequence."""
        self.budget -= count
        self.work[sequence.request_id] = Work(sequence, sequence.n_computed, count)

    def drop(self, sequence: Sequence) -> None:
        """Take a sequence out again."""
        work = self.work.pop(sequence.request_id, None)
        self.budget += work.count if work else 0

    def ordered(self) -> list[Work]:
        """All work, single tokens first, among them those of one adapter together."""
        return sorted(self.work.values(), key=_place)


def _place(work: Work) -> tuple[bool, int]:
    adapter = work.sequence.adapter
    return work.count > 1, 0 if adapter is None else adapter.uid


class Scheduler:
    """The waiting queue and the running sequences, and the blocks they hold. Not thread-safe."""

    def __init__(
        self, pool: BlockPool, *, block_size: int, max_running: int, max_batch_tokens: int, prefix_cache: bool = True
    ) -> None:
        self.pool = pool
        self.block_size = block_size
        self.max_running = max_running
        self.max_batch_tokens = max(max_batch_tokens, max_running)
        self.prefix_cache = prefix_cache
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.preemptions = 0

    def add(self, sequence: Sequence) -> None:
        """Put a sequence at the end of the queue, before those of a lower priority."""
        place = len(self.waiting)
        while place and self.waiting[place - 1].priority < sequence.priority:
            place -= 1
        self.waiting.insert(place, sequence)

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out, finished or not; its blocks are free at once."""
        if sequence in self.running:
            self.running.remove(sequence)
        else:
            self.waiting.remove(sequence)
        self._release(sequence)

    def preempt_all(self) -> None:
        """Take the blocks of all running sequences: what is computed of them is computed again."""
        while self.running:
            self._preempt(self.running[-1], Batch(0))

    def schedule(self) -> Batch:
        """Choose the next step's work and give it blocks."""
        batch = Batch(self.max_batch_tokens)
        before = self.preemptions
        for decoding in (True, False):
            for sequence in list(self.running):
                if (sequence.n_pending == 1) == decoding and batch.budget > 0:
                    self._advance(sequence, batch)
        for work in batch.work.values():
            self._register(work)
        if self.preemptions == before:
            self._admit(batch)
        return batch

    def _advance(self, sequence: Sequence, batch: Batch) -> None:
        count = min(sequence.n_pending, batch.budget)
        needed = self._n_blocks(sequence.n_computed + count) - len(sequence.blocks)
        while needed > self.pool.n_free and sequence in self.running:
            self._preempt(self.running[-1], batch)
        if sequence in self.running:
            sequence.blocks += self.pool.allocate(max(needed, 0))
            batch.put(sequence, count)

    def _preempt(self, victim: Sequence, batch: Batch) -> None:
        self.preemptions += 1
        batch.drop(victim)
        self.running.remove(victim)
        self._release(victim)
        self.waiting.appendleft(victim)

    def _admit(self, batch: Batch) -> None:
        while self.waiting and len(self.running) < self.max_running and batch.budget > 0:
            sequence = self.waiting[0]
            cached = self._cached_blocks(sequence)
            needed = self._n_blocks(len(sequence.tokens)) - len(cached)
            if needed > self.pool.n_free_after_hold(cached):
                return
            self.waiting.popleft()
            self.pool.hold(cached)
            sequence.blocks = cached + self.pool.allocate(needed)
            sequence.n_computed = len(cached) * self.block_size
            if sequence.cached_tokens < 0:
                sequence.cached_tokens = sequence.n_computed
            self.running.append(sequence)
            batch.put(sequence, min(sequence.n_pending, batch.budget))
            batch.admitted.append(sequence.request_id)
            # Registered at once: a later request of this very step may share blocks that this one is about to write,
            # because the step writes every key and value of a layer before it reads any.
            self._register(batch.work[sequence.request_id])

    def _cached_blocks(self, sequence: Sequence) -> list[int]:
        if not self.prefix_cache or sequence.needs_whole:
            return []
        full = (len(sequence.tokens) - 1) // self.block_size  # the last token is always computed: it gives the logits
        return self.pool.find(sequence.block_digests(full, self.block_size))

    def _register(self, work: Work) -> None:
        if self.prefix_cache:
            first, last = work.start // self.block_size, (work.start + work.count) // self.block_size
            if last > first:
                digests = work.sequence.block_digests(last, self.block_size)
                for index in range(first, last):
                    self.pool.register(work.sequence.blocks[index], digests[index])

    def _release(self, sequence: Sequence) -> None:
        self.pool.release(sequence.blocks)
        sequence.blocks = []
        sequence.n_computed = 0

    def _n_blocks(self, n_tokens: int) -> int:
        return -(-n_tokens // self.block_size)
