"""A reward model's judgement of an answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from causerie.align.reward_model import load_reward, rewards
from causerie.align.rewards import Answer, Reward
from causerie.align.scoring import score_groups
from causerie.align.shared_rows import Group
from causerie.core import CauserieError
from causerie.text import ChatFormat, load_chat_format


def learned_reward(folder: Path, chat: ChatFormat) -> Reward:
    """The reward model in `folder`; answers to one prompt share its computation.

    The policy's token ids are given to it as they are, so both must have the same tokenizer.

    Raises:
        CauserieError: CAU-4104 when it is no reward model or its tokens are others.
    """
    model = load_reward(folder)
    if load_chat_format(folder).tokenizer.vocab_size != chat.tokenizer.vocab_size:
        raise CauserieError(
            "CAU-4104",
            "the reward model has another tokenizer than the policy",
            where=str(folder),
            fix="train the reward model from the same base",
        )

    def judge(answers: Sequence[Answer]) -> list[float]:
        rows: dict[tuple[int, ...], list[int]] = {}
        for index, answer in enumerate(answers):
            rows.setdefault(answer.prompt, []).append(index)
        groups = [Group(prompt, tuple(answers[i].ids for i in indices)) for prompt, indices in rows.items()]
        found = [0.0] * len(answers)
        scored = score_groups(model, groups, label="reward", score=rewards)
        for indices, values in zip(rows.values(), scored, strict=True):
            for index, value in zip(indices, values.tolist(), strict=False):
                found[index] = value
        return found

    return judge
