"""Rewards of sampled answers, each one file; a reward is a function from answers to numbers.

Adding one: a file with a function `(row, text) -> float` (lift it with `each`) or `(answers) -> list of floats`, a name
in `GrpoConfig.rewards`, and its line in `objective_grpo.pick_rewards`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """A sampled answer: the prompt's row in the file, ids, text without the end-of-turn token, whether it was cut."""

    row: Mapping[str, Any]
    prompt: tuple[int, ...]
    ids: tuple[int, ...]
    text: str
    truncated: bool


Reward = Callable[[Sequence[Answer]], list[float]]
"""Numbers for answers, in order; larger is better."""


def each(judge: Callable[[Mapping[str, Any], str], float]) -> Reward:
    """A reward of many answers from a judge of one row and text."""
    return lambda answers: [judge(answer.row, answer.text) for answer in answers]
