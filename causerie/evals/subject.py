"""The model under evaluation: its tokenizer, its log-probabilities and its answers, each loaded when first asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from causerie.core import track
from causerie.evals.config import EvalConfig
from causerie.evals.statistics import Floats
from causerie.infer import Engine, EngineConfig, Sampling, generate_batch
from causerie.model import Transformer, load_model, token_log_probs
from causerie.text import ChatFormat, Tokenizer, chat_format, load_tokenizer


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
        """The serving engine on the same folder, in float32 so that greedy answers are those of the weights."""
        return Engine(self.folder, EngineConfig(dtype="float32", prefix_cache=True))

    def log_probs(self, sequences: Sequence[Scored], label: str) -> list[Floats]:
        """Log-probabilities of each sequence's masked tokens, in nats, in the order given.

        Sequences are sorted by length and padded at the end to batches of at most `config.batch_tokens` tokens.
        """
        results: list[Floats] = [np.empty(0)] * len(sequences)
        with track(label, len(sequences), "items") as tracker:
            for batch in _batches(sequences, self.config.batch_tokens):
                for index, values in zip(batch, self._score([sequences[i] for i in batch]), strict=True):
                    results[index] = values
                tracker.advance(len(batch))
        return results

    @torch.inference_mode()
    def _score(self, batch: Sequence[Scored]) -> list[Floats]:
        width = max(len(item.ids) for item in batch)
        ids = torch.zeros((len(batch), width), dtype=torch.long)
        mask = torch.zeros((len(batch), width), dtype=torch.bool)
        for row, item in enumerate(batch):
            ids[row, : len(item.ids)] = torch.tensor(item.ids)
            mask[row, : len(item.ids)] = torch.tensor(item.mask, dtype=torch.bool)
        mask[:, 0] = False
        found = token_log_probs(self.model, ids, mask).double()
        return [found[row][mask[row]].numpy() for row in range(len(batch))]

    def answers(self, prompts: Sequence[Sequence[int]], label: str) -> list[Answer]:
        """Answers to prompts (token ids), greedy or seeded as configured."""
        stops = self.chat.stop_ids
        sampling = Sampling(
            max_tokens=self.config.max_tokens,
            temperature=self.config.temperature,
            stop_ids=stops,
            seed=self.config.seed,
        )
        found: list[Answer] = []
        with track(label, len(prompts), "answers") as tracker:
            for start in range(0, len(prompts), ANSWERS_AT_ONCE):
                part = [list(prompt) for prompt in prompts[start : start + ANSWERS_AT_ONCE]]
                for done in generate_batch(self.engine, part, sampling):
                    ids = tuple(done.ids[:-1] if done.ids and done.ids[-1] in stops else done.ids)
                    found.append(Answer(self.tokenizer.decode(ids), len(ids), done.finish == "stop", ids))
                tracker.advance(len(part))
        return found


ANSWERS_AT_ONCE = 32
"""Prompts handed to the engine at once: enough to fill its batch, few enough that progress is seen."""


def _batches(sequences: Sequence[Scored], batch_tokens: int) -> list[list[int]]:
    """Indices of the sequences in batches of similar length, longest first (so that lack of memory shows at once)."""
    order = sorted(range(len(sequences)), key=lambda index: -len(sequences[index].ids))
    batches: list[list[int]] = []
    for index in order:
        if batches and (len(batches[-1]) + 1) * len(sequences[batches[-1][0]].ids) <= batch_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches
