"""The model under evaluation: its tokenizer, log-probabilities and answers, each loaded when first asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from causerie.align import length_batches
from causerie.core import CauserieError, track
from causerie.evals.config import EvalConfig
from causerie.evals.statistics import Floats
from causerie.infer import Completion, Engine, EngineConfig, Sampling, generate_batch
from causerie.model import Transformer, load_model, token_log_probs
from causerie.text import ChatFormat, Tokenizer, chat_format, load_tokenizer

T = TypeVar("T")


@dataclass(frozen=True)
class Scored:
    """A token sequence and which of its tokens are to be scored (the first never is)."""

    ids: Sequence[int]
    mask: Sequence[int]

    @classmethod
    def after(cls, context: Sequence[int], continuation: Sequence[int]) -> Scored:
        """Score the continuation given the context."""
        return cls([*context, *continuation], [0] * len(context) + [1] * len(continuation))


@dataclass(frozen=True)
class Answer:
    """A generated answer; `ended` tells whether the model ended it by itself."""

    text: str
    tokens: int
    """Tokens of the answer, the end-of-turn token not counted."""
    ended: bool
    ids: tuple[int, ...]


class Subject:
    """A model or adapter folder being evaluated.

    Args:
        folder: model or adapter folder.
        config: batch sizes, lengths and sampling of the evaluation.
    """

    def __init__(self, folder: Path, config: EvalConfig) -> None:
        self.folder = folder
        self.config = config

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The folder's tokenizer."""
        return load_tokenizer(self.folder)

    @cached_property
    def chat(self) -> ChatFormat:
        """The folder's chat format."""
        return chat_format(self.tokenizer)

    @cached_property
    def model(self) -> Transformer:
        """The weights, float32, an adapter merged."""
        return load_model(self.folder, dtype=torch.float32, merge_adapters=True).eval()

    @cached_property
    def engine(self) -> Engine:
        """The serving engine on the same weights."""
        return Engine(self.model, EngineConfig(dtype="float32"))

    @cached_property
    def max_length(self) -> int:
        """Longest sequence scored: as configured, and never beyond what the model was made for."""
        return min(self.config.max_length, self.model.shape.max_seq_len)

    def continued(self, context: str, continuation: str) -> Scored:
        """A text to be scored after another that begins a document; long contexts lose their beginning."""
        end = self.tokenizer.encode(continuation)[: self.max_length - 1]
        start = self.tokenizer.encode(context)
        room = self.max_length - len(end) - 1
        return Scored.after([self.tokenizer.eot_id, *(start[-room:] if room else [])], end)

    def log_probs(self, sequences: Sequence[Scored], label: str) -> list[Floats]:
        """Log-probabilities of each sequence's masked tokens, in nats, in the order given.

        Sequences are sorted by length and padded at the end to batches of at most `config.batch_tokens` tokens.
        """
        return self._in_batches(sequences, label, self._score)

    def greedy(self, sequences: Sequence[Scored], label: str) -> list[tuple[Floats, bool]]:
        """As `log_probs`, and whether every masked token is the model's most likely one at its place."""
        return self._in_batches(sequences, label, self._score_and_rank)

    def _in_batches(
        self, sequences: Sequence[Scored], label: str, score: Callable[[Sequence[Scored]], list[T]]
    ) -> list[T]:
        results: dict[int, T] = {}
        with track(label, len(sequences), "items") as tracker:
            for batch in length_batches([len(item.ids) for item in sequences], self.config.batch_tokens):
                results.update(zip(batch, score([sequences[i] for i in batch]), strict=True))
                tracker.advance(len(batch))
        return [results[index] for index in range(len(sequences))]

    @torch.inference_mode()
    def _score(self, batch: Sequence[Scored]) -> list[Floats]:
        ids, mask = _padded(batch)
        found = self._finite(token_log_probs(self.model, ids, mask).double())
        return [found[row][mask[row]].numpy() for row in range(len(batch))]

    @torch.inference_mode()
    def _score_and_rank(self, batch: Sequence[Scored]) -> list[tuple[Floats, bool]]:
        ids, mask = _padded(batch)
        targets = ids[mask]
        logits = self.model.logits(self.model(ids)[:, :-1][mask[:, 1:]]).float()
        log_p = self._finite(logits.log_softmax(-1).gather(1, targets[:, None])[:, 0].double())
        sizes = mask.sum(1).tolist()
        hits = (logits.argmax(-1) == targets).split(sizes)
        return [(values.numpy(), bool(hit.all())) for values, hit in zip(log_p.split(sizes), hits, strict=True)]

    def _finite(self, found: Tensor) -> Tensor:
        if not torch.isfinite(found).all():
            raise CauserieError(
                "CAU-4209", "the model's log-probabilities are not finite", where=str(self.folder), fix="train it anew"
            )
        return found

    def answers(self, prompts: Sequence[Sequence[int]], label: str) -> list[Answer]:
        """Answers to prompts (token ids), greedy or seeded as configured."""
        stops = self.chat.stop_ids
        sampling = Sampling(
            max_tokens=self.config.max_tokens,
            temperature=self.config.temperature,
            stop_ids=stops,
            seed=self.config.seed,
        )
        room = max(1, min(self.config.max_length, self.model.shape.max_seq_len - self.config.max_tokens))
        with track(label, len(prompts), "answers") as tracker:
            done = generate_batch(
                self.engine,
                [list(prompt)[-room:] for prompt in prompts],
                sampling,
                on_finish=lambda _index, _completion: tracker.advance(),
            )
        return [self._answer(completion) for completion in done]

    def _answer(self, completion: Completion) -> Answer:
        ids = tuple(completion.ids)
        if ids and ids[-1] in self.chat.stop_ids:
            ids = ids[:-1]
        return Answer(self.tokenizer.decode(ids), len(ids), completion.finish == "stop", ids)


def _padded(batch: Sequence[Scored]) -> tuple[Tensor, Tensor]:
    """Token ids, padded at the end, and which are to be scored; both (B, T)."""
    width = max(len(item.ids) for item in batch)
    ids = torch.zeros((len(batch), width), dtype=torch.long)
    mask = torch.zeros((len(batch), width), dtype=torch.bool)
    for row, item in enumerate(batch):
        ids[row, : len(item.ids)] = torch.tensor(item.ids)
        mask[row, : len(item.ids)] = torch.tensor(item.mask, dtype=torch.bool)
    mask[:, 0] = False
    return ids, mask
