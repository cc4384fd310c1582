"""Rollouts: answers sampled by our own engine from the weights being trained, judged, and laid out for updates.

The engine shares the trainer's module, so a rollout always comes from the newest weights without any copy. What is
sampled at an update is a function of the weights, the seed and the update's number alone: a run that was killed goes
back to its checkpoint's weights and samples the very same answers again; none is trained on twice.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from causerie.align.config import GrpoConfig
from causerie.align.pairs import encode_prompt, read_rows
from causerie.align.ppo import sample_advantages
from causerie.align.rewards import Answer, Reward
from causerie.align.shared_rows import Group, completion_token_log_probs, layout
from causerie.core import CauserieError, Run, crashpoint, read_json, seed_for, sha256_json, write_json
from causerie.infer import Completion, Engine, EngineConfig, Sampling, generate_batch
from causerie.model import Transformer
from causerie.text import ChatFormat
from causerie.train import autocast, uses_bf16

FOLDER = "rollouts"
MICRO_TOKENS = 4096
"""Tokens of a forward pass of the log-probabilities of a rollout."""


@dataclass(frozen=True)
class Prompt:
    """A prompt as token ids, and the row of its file, which rewards read."""

    ids: tuple[int, ...]
    row: Mapping[str, Any]


@dataclass
class Rollout:
    """Answers to one update's prompts: prompts by `rows`, then `group_size` answers each."""

    index: int
    rows: list[int]
    completions: list[list[list[int]]]
    old_log_probs: list[list[list[float]]]
    """Of the sampled tokens: the engine's; with several passes the trainer's own, which do not depend on what the
    engine did before, so that a rollout sampled again after a kill is the same to the bit."""
    truncated: list[list[bool]]
    rewards: list[list[float]] = field(default_factory=list)
    reference: list[list[list[float]]] | None = None
    """Log-probabilities of the reference, when a KL term needs them."""


def read_prompts(path: Path, chat: ChatFormat, max_prompt: int) -> tuple[list[Prompt], dict[str, int]]:
    """Prompts of a JSONL file of `{"prompt": text or messages, ...}`; unusable rows are counted by reason.

    Left out: lines that are no JSON object, rows without a prompt, prompts above `max_prompt` tokens, repeated rows.

    Raises:
        CauserieError: CAU-1001 when the file is missing, CAU-4105 when no prompt is left.
    """
    if not path.is_file():
        raise CauserieError("CAU-1001", "no such file", where=str(path), fix="check the path")
    found: list[Prompt] = []
    counts: Counter[str] = Counter()
    seen: set[str] = set()
    for _, row in read_rows(path, counts):
        given = row.get("prompt")
        messages = [{"role": "user", "content": given}] if isinstance(given, str) and given.strip() else given
        try:
            if not isinstance(messages, list) or not messages:
                raise ValueError
            ids = encode_prompt(chat, messages)
        except (CauserieError, ValueError):
            counts["malformed"] += 1
            continue
        key = sha256_json(row)
        reason = "too long" if len(ids) > max_prompt else "repeated" if key in seen else ""
        if reason:
            counts[reason] += 1
            continue
        seen.add(key)
        found.append(Prompt(ids, row))
    if not found:
        left = ", ".join(f"{reason}: {count}" for reason, count in counts.items() if count) or "the file is empty"
        raise CauserieError("CAU-4105", f"no usable prompt ({left})", where=str(path), fix='give {"prompt": "…"} lines')
    return found, {reason: count for reason, count in counts.items() if count}


class Sampler:
    """Samples and judges answers with the model that is being trained."""

    def __init__(
        self, model: Transformer, chat: ChatFormat, config: GrpoConfig, rewards: Sequence[tuple[Reward, float]]
    ) -> None:
        self.model, self.chat, self.config, self.rewards = model, chat, config, rewards
        at_once = config.batch_size * config.group_size
        sizes = EngineConfig(
            device=str(model.embed_tokens.weight.device), max_running=min(512, at_once), max_batch_tokens=2048
        )
        self.engine = Engine(model, sizes)

    def sample(
        self, prompts: Sequence[Prompt], copies: int, seeds: Sequence[int], *, greedy: bool = False
    ) -> list[Completion]:
        """`copies` completions of each prompt, one after the other, by the weights as they are now."""
        config = self.config
        self.model.eval()
        self.engine.forget_prefixes()
        repeated = [list(prompt.ids) for prompt in prompts for _ in range(copies)]
        settings = [
            Sampling(
                max_tokens=config.max_tokens,
                temperature=0.0 if greedy else config.temperature,
                stop_ids=self.chat.stop_ids,
                seed=seed,
                logprobs=config.temperature == 1.0,
            )
            for seed in seeds
        ]
        return generate_batch(self.engine, repeated, settings)

    def judge(self, answers: Sequence[Answer]) -> list[float]:
        """The weighted sum of all rewards."""
        total = [0.0] * len(answers)
        for reward, weight in self.rewards:
            total = [so_far + weight * value for so_far, value in zip(total, reward(answers), strict=True)]
        return total

    def answer(self, prompt: Prompt, ids: Sequence[int], truncated: bool) -> Answer:
        """A completion as rewards see it."""
        kept = [token for token in ids if token not in self.chat.stop_ids]
        return Answer(prompt.row, prompt.ids, tuple(ids), self.chat.tokenizer.decode(kept), truncated)


@dataclass
class GrpoBatches:
    """Batches of `fit` that are sampled when they are asked for; see the module's first lines."""

    prompts: Sequence[Prompt]
    sampler: Sampler
    config: GrpoConfig
    run: Run
    reference: Mapping[str, Tensor] | None
    """Trained parameters as they were at the start, when a KL term needs them."""
    gap: list[float] = field(default_factory=lambda: [0.0])
    """Largest |Δ log-prob| between engine and trainer since it was last logged; the objective writes it."""
    _now: Rollout | None = None

    @cached_property
    def fingerprint(self) -> str:
        """Digest of prompts and of the settings that choose them."""
        rows = [dict(prompt.row) for prompt in self.prompts]
        config = self.config
        return sha256_json([rows, config.batch_size, config.group_size, config.passes, config.max_tokens, config.seed])

    @property
    def steps_per_epoch(self) -> int:
        """Updates in one pass over the prompts."""
        return max(1, len(self.prompts) // self.config.batch_size) * self.config.passes

    def chosen(self, index: int) -> list[int]:
        """Prompts of rollout `index`: every prompt once per epoch, in a new order each."""
        size = min(self.config.batch_size, len(self.prompts))
        epoch, place = divmod(index, max(1, len(self.prompts) // size))
        order = np.random.default_rng(seed_for(self.config.seed, "prompts", epoch)).permutation(len(self.prompts))
        return order[place * size : (place + 1) * size].tolist()

    def micro_batches(self, step: int) -> list[dict[str, Tensor]]:
        """See `Batches`; samples at the first pass over a rollout, reads it back when a killed run resumes after it."""
        index, number = divmod(step, self.config.passes)
        if self._now is None or self._now.index != index or number == 0:
            self._now = self._stored(index) if number else self._sampled(index)
        return rollout_batches(self._now, self.prompts, self.config)

    def _stored(self, index: int) -> Rollout:
        return Rollout(**read_json(self.run.path / FOLDER / f"{index:06d}.json"))

    def _sampled(self, index: int) -> Rollout:
        began = time.monotonic()
        rows, copies, seed = self.chosen(index), self.config.group_size, self.config.seed
        prompts = [self.prompts[row] for row in rows]
        seeds = [seed_for(seed, "rollout", index, place) for place in range(len(rows) * copies)]
        found = self.sampler.sample(prompts, copies, seeds)
        sampled = time.monotonic()
        rollout = Rollout(
            index,
            rows,
            _grouped([item.ids for item in found], copies),
            _grouped([item.logprobs for item in found], copies),
            _grouped([item.finish != "stop" for item in found], copies),
        )
        rollout.rewards = self._judged(rollout, prompts)
        if self.config.passes > 1:
            trainers = self._per_token(rollout)
            if self.config.temperature == 1.0:  # the engine's are those at temperature 1
                self.gap[0] = max(self.gap[0], _largest_difference(trainers, rollout.old_log_probs))
            rollout.old_log_probs = trainers
        if self.reference is not None:
            with parameters_of(self.sampler.model, self.reference):
                rollout.reference = self._per_token(rollout)
        self._write(rollout)
        self._log(rollout, sampled - began, time.monotonic() - sampled)
        return rollout

    def _per_token(self, rollout: Rollout) -> list[list[list[float]]]:
        """`per_token` in the arithmetic of the updates, so that the first ratio of a rollout is 1."""
        model = self.sampler.model
        device = next(model.parameters()).device
        with autocast(device, uses_bf16(self.config, device)):
            return per_token(model, rollout, self.prompts, self.config.temperature)

    def _judged(self, rollout: Rollout, prompts: Sequence[Prompt]) -> list[list[float]]:
        answers = [
            self.sampler.answer(prompt, ids, cut)
            for prompt, group, cuts in zip(prompts, rollout.completions, rollout.truncated, strict=True)
            for ids, cut in zip(group, cuts, strict=True)
        ]
        return _grouped(self.sampler.judge(answers), self.config.group_size)

    def _write(self, rollout: Rollout) -> None:
        folder = self.run.path / FOLDER
        folder.mkdir(exist_ok=True)
        crashpoint("align.before_rollout")
        write_json(folder / f"{rollout.index:06d}.json", asdict(rollout))
        crashpoint("align.rollout_written")
        for old in sorted(folder.glob("*.json"))[:-64]:
            old.unlink(missing_ok=True)

    def _log(self, rollout: Rollout, sampling: float, judging: float) -> None:
        rewards = torch.tensor(rollout.rewards, dtype=torch.float32)
        lengths = [len(ids) for group in rollout.completions for ids in group]
        self.run.log(
            "rollout",
            index=rollout.index,
            reward=round(float(rewards.mean()), 6),
            reward_deviation=round(float(rewards.std()), 6),
            flat_groups=int((rewards == rewards[:, :1]).all(1).sum()),
            tokens=sum(lengths),
            mean_length=round(sum(lengths) / len(lengths), 2),
            truncated=sum(map(sum, rollout.truncated)),
            sampling_seconds=round(sampling, 3),
            judging_seconds=round(judging, 3),
            log_prob_gap=self.gap[0],
        )


def rollout_batches(rollout: Rollout, prompts: Sequence[Prompt], config: GrpoConfig) -> list[dict[str, Tensor]]:
    """A rollout as micro-batches of `micro_batch` prompts, with per-token values and what the loss divides by.

    Groups whose answers have no advantage have no gradient (without KL term) and are not computed; "dapo" leaves them
    out of its denominator too, the others count them there.
    """
    rewards = torch.tensor(rollout.rewards, dtype=torch.float32)
    advantages = sample_advantages(rewards, config.advantage, scale=config.variant != "dr_grpo")
    keep = [
        [not (config.mask_truncated and cut) for cut in cuts] if any(advantages[i] != 0) or config.beta else []
        for i, cuts in enumerate(rollout.truncated)
    ]
    places = [i for i, kept in enumerate(keep) if any(kept)]
    counted = sum(len(c) for c in rollout.completions) - (
        sum(map(sum, rollout.truncated)) if config.mask_truncated else 0
    )
    if not places:  # nothing to learn: one answer with advantage 0, so that the update is one with a zero gradient
        places, keep[0] = [0], [True] + [False] * (config.group_size - 1)
    size = config.micro_batch or len(places)
    parts = [places[i : i + size] for i in range(0, len(places), size)]
    trained = sum(sum(keep[i]) for i in places)
    found = [_batch(rollout, prompts, advantages, keep, part) for part in parts]
    if config.variant != "dapo":
        found[0]["uncounted"] = torch.tensor(float(counted - trained))
    return found


def per_token(
    model: Transformer, rollout: Rollout, prompts: Sequence[Prompt], temperature: float
) -> list[list[list[float]]]:
    """The model's log-probability of every token of a rollout, in its nesting; no gradients."""
    found: list[list[list[float]]] = []
    device = next(model.parameters()).device
    model.eval()
    with torch.no_grad():
        for row, group in zip(rollout.rows, rollout.completions, strict=True):
            batch = {n: v.to(device) for n, v in layout([Group(prompts[row].ids, tuple(group))]).items()}
            values = completion_token_log_probs(model, batch, temperature).cpu()
            found.append([part.tolist() for part in values.split([len(ids) for ids in group])])
    return found


@contextmanager
def parameters_of(model: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """The model with other values of the named parameters, inside the block."""
    named = {name: p for name, p in model.named_parameters() if name in values}
    own = {name: p.data for name, p in named.items()}
    try:
        for name, p in named.items():
            p.data = values[name]
        yield
    finally:
        for name, p in named.items():
            p.data = own[name]


def _batch(
    rollout: Rollout, prompts: Sequence[Prompt], advantages: Tensor, keep: list[list[bool]], part: Sequence[int]
) -> dict[str, Tensor]:
    groups, per_answer = [], []
    flat: dict[str, list[float]] = {"old": [], "reference": []}
    for i in part:
        chosen = [j for j, kept in enumerate(keep[i]) if kept]
        groups.append(Group(prompts[rollout.rows[i]].ids, tuple(rollout.completions[i][j] for j in chosen)))
        per_answer.append(advantages[i, chosen])
        for j in chosen:
            flat["old"] += rollout.old_log_probs[i][j]
            flat["reference"] += rollout.reference[i][j] if rollout.reference is not None else ()
    batch = layout(groups)
    values = {name: torch.tensor(value) for name, value in flat.items() if value}
    return {**batch, **values, "advantage": torch.cat(per_answer)[batch["owner"]], "uncounted": torch.tensor(0.0)}


def _grouped(items: Sequence[Any], size: int) -> list[list[Any]]:
    return [list(items[i : i + size]) for i in range(0, len(items), size)]


def _largest_difference(one: Sequence[Sequence[Sequence[float]]], other: Sequence[Sequence[Sequence[float]]]) -> float:
    pairs = zip(chain.from_iterable(one), chain.from_iterable(other), strict=True)
    return max((abs(a - b) for these, those in pairs for a, b in zip(these, those, strict=True)), default=0.0)
