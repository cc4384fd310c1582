"""Asking a served model from within the server: graders, evals and jobs are callers like any other, and metered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from causerie.infer import Grammar
from causerie.serve.answer import AnswerParams, Usage
from causerie.serve.chat_completions import prepare_chat
from causerie.serve.drawing import draw_all
from causerie.serve.gate import Asking
from causerie.serve.metering import Meter
from causerie.serve.routes import Office
from causerie.serve.tools import ToolUse


@dataclass(frozen=True)
class Said:
    """An answer, why it ended, and what it cost."""

    text: str
    finish: str
    usage: Usage


async def ask(
    office: Office,
    owner: str,
    model: str,
    messages: Sequence[dict[str, Any]],
    params: AnswerParams | None = None,
    *,
    n: int = 1,
    grammar: Grammar | None = None,
    route: str = "work",
) -> list[Said]:
    """Answers of a model to a conversation, for a project.

    Raises:
        CauserieError: CAU-6003, CAU-6006 and what the engine raises.
    """
    async with office.pool.lease(model, owner) as served:
        job = await prepare_chat(served, messages, ToolUse(), grammar, params or AnswerParams(logprobs=False), n)
        meter = Meter(office.store, route, None, project=owner, tally=office.tally)
        async with office.pool.gate.admit(Asking(tenant=owner), n, job.tokens, served.lane, meter):
            with meter:
                choices = await draw_all(job, meter)
    return [Said(each.text, each.finish or "stop", each.usage or Usage(0, 0)) for each in choices]
