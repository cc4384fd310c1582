"""Learning from a grader: the served model answers each prompt several times, the grader orders the answers, and the
best and worst of each prompt become a pair for DPO. One round, on the model's own answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from causerie.core import CauserieError, seed_for
from causerie.serve.answer import AnswerParams
from causerie.serve.asking import Said, ask
from causerie.serve.fine_tuning.plan import ANSWERS, LENGTH
from causerie.serve.fine_tuning.shapes import Method
from causerie.serve.fine_tuning.training_files import TrainingRows
from causerie.serve.graders.grade import grade
from causerie.serve.routes import Office

AT_ONCE: Final = 4
PATIENCE: Final = 30
"""How often a full server is asked again, a second apart."""


async def graded_pairs(
    office: Office,
    owner: str,
    model: str,
    method: Method,
    rows: TrainingRows,
    seed: int,
    tell: Callable[[str], Awaitable[None]],
) -> TrainingRows:
    """Pairs of the best and the worst answer to each prompt; prompts whose answers are all worth the same give none."""
    assert method.reinforcement is not None
    settings, grader = method.settings, method.reinforcement.grader
    factor = 1.0 if settings.compute_multiplier in (None, "auto") else settings.compute_multiplier
    answers = max(2, min(16, round(ANSWERS * factor)))
    slots = asyncio.Semaphore(AT_ONCE)
    done = 0
    rewards: list[float] = []

    async def one(number: int, row: dict[str, Any]) -> dict[str, Any] | None:
        nonlocal done
        async with slots:
            params = AnswerParams(max_tokens=LENGTH, seed=seed_for(seed, number) % 2**63, logprobs=False)
            said = await _patiently(office, owner, model, row["messages"], params, answers)
            grades = []
            for each in said:
                known = {"item": row, "sample": {"output_text": each.text}}
                found = await grade(office, owner, grader, known)
                if found.error:
                    raise CauserieError("CAU-6008", f"the grader failed: {found.error}", where="method.reinforcement")
                grades.append(found.score)
        rewards.extend(grades)
        done += 1
        if done % 50 == 0:
            await tell(f"Graded the answers to {done} prompts")
        return _pair(row, said, grades)

    found = await asyncio.gather(*(one(number, row) for number, row in enumerate(rows.rows)))
    pairs = [pair for pair in found if pair is not None]
    mean = sum(rewards) / len(rewards) if rewards else 0.0
    await tell(f"Graded {len(rewards)} answers: mean reward {mean:.4f}, {len(pairs)} prompts with a difference")
    return TrainingRows(pairs)


def _pair(row: dict[str, Any], said: list[Said], grades: list[float]) -> dict[str, Any] | None:
    best = max(range(len(said)), key=lambda at: (grades[at], -len(said[at].text)))
    worst = min(range(len(said)), key=lambda at: grades[at])
    if grades[best] <= grades[worst] or not said[best].text.strip():
        return None
    return {"prompt": row["messages"], "chosen": said[best].text, "rejected": said[worst].text}


async def _patiently(
    office: Office, owner: str, model: str, messages: list[dict[str, Any]], params: AnswerParams, n: int
) -> list[Said]:
    """Ask, waiting while the server is full: callers go before jobs."""
    for _ in range(PATIENCE):
        try:
            return await ask(office, owner, model, messages, params, n=n, route="fine_tuning")
        except CauserieError as error:
            if error.code != "CAU-6006":
                raise
            await asyncio.sleep(1.0)
    return await ask(office, owner, model, messages, params, n=n, route="fine_tuning")
