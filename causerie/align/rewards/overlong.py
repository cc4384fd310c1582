"""DAPO's soft punishment of long answers (arXiv:2503.14476, eq. 13)."""

from __future__ import annotations

from collections.abc import Sequence

from causerie.align.rewards import Answer, Reward


def overlong_punishment(max_tokens: int, buffer: int) -> Reward:
    """0 up to `max_tokens − buffer` tokens, then falling in a line to −1 at `max_tokens`; −1 for a cut answer."""

    def judge(answers: Sequence[Answer]) -> list[float]:
        free = max_tokens - buffer
        return [-1.0 if answer.truncated else min(0.0, (free - len(answer.ids)) / buffer) for answer in answers]

    return judge
