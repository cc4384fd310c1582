"""Running evals: every item is answered where it has no answer yet, every answer graded, every grade kept."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from causerie.core import CauserieError
from causerie.serve import files
from causerie.serve.answer import AnswerParams, Usage
from causerie.serve.asking import ask
from causerie.serve.chat_completions import format_grammar
from causerie.serve.errors import ApiError, as_api_error
from causerie.serve.evals.shapes import (
    MAX_ROWS,
    AskedSource,
    ContentRow,
    Criterion,
    DataSource,
    FileContent,
    FileId,
    ItemReference,
    SamplingParams,
    Template,
)
from causerie.serve.graders.grade import ROLES, Grade, grade
from causerie.serve.graders.templates import fill
from causerie.serve.objects import Body
from causerie.serve.responses.history import INPUT, RESPONSE, as_messages
from causerie.serve.routes import Office
from causerie.serve.stored_completions import KIND as COMPLETION
from causerie.serve.stored_completions import MESSAGE

EVAL: Final = "eval"
RUN: Final = "eval.run"
ITEM: Final = "eval.run.output_item"
OPEN: Final = ("queued", "in_progress")
AT_ONCE: Final = 4
LENGTH: Final = 1_024
"""Tokens of an answer, where the run names none."""
NO_ERROR: Final = {"code": "", "message": ""}
"""The published schema demands an error object also where there is none."""

_SOURCE: Final[TypeAdapter[Any]] = TypeAdapter(DataSource)
_CRITERIA: Final[TypeAdapter[Any]] = TypeAdapter(list[Criterion])


@dataclass(frozen=True)
class Sampled:
    """An item's answer, and how it came about."""

    sample: dict[str, Any]
    messages: list[dict[str, Any]]
    text: str
    finish: str = ""
    model: str = ""
    usage: Usage = field(default_factory=lambda: Usage(0, 0))
    error: str | None = None


def start_run(office: Office, owner: str, eval_id: str, run_id: str) -> None:
    """Run an eval in the background."""
    office.workers.start(f"eval {run_id}", _run(office, owner, eval_id, run_id))


async def resume_runs(office: Office) -> None:
    """Go on with the runs that were under way when the server ended."""
    for owner, eval_id, body in await office.objects.unfinished(RUN, OPEN):
        start_run(office, owner, eval_id, body["id"])


async def _run(office: Office, owner: str, eval_id: str, run_id: str) -> None:
    try:
        spec = await office.objects.get(EVAL, owner, eval_id)
        run = await office.objects.set(RUN, owner, run_id, parent=eval_id, status="in_progress")
        source = _SOURCE.validate_python(run["data_source"])
        criteria = _CRITERIA.validate_python(spec["testing_criteria"])
        rows = await items_of(office, owner, source)
        await _grade_all(office, owner, run, source, criteria, rows)
        await _finish(office, owner, run, criteria)
    except (ApiError, CauserieError, ValidationError, ValueError) as error:
        known = as_api_error(error) if isinstance(error, ApiError | CauserieError) else None
        told = {"code": known.code if known else "invalid_data", "message": known.message if known else str(error)}
        with contextlib.suppress(ApiError):  # deleted while it worked
            await office.objects.set(RUN, owner, run_id, parent=eval_id, status="failed", error=told)


async def items_of(office: Office, owner: str, source: Any) -> list[ContentRow]:
    """The items of a data source.

    Raises:
        ApiError: 400 for a file that is not there or has a line that is no item.
    """
    given = source.source
    if isinstance(given, FileContent):
        return list(given.content)
    if isinstance(given, FileId):
        return _read_items(await files.read_file(office, owner, given.id, "data_source.source.id"))
    rows = []
    kind = COMPLETION if given.type == "stored_completions" else RESPONSE
    for body in await office.objects.all(kind, owner):
        created = int(body.get("created") or body.get("created_at") or 0)
        after, before = given.created_after or 0, given.created_before or 2**40
        named = given.model in (None, body["model"], body["model"].rpartition("@")[0])
        if not (after <= created <= before and named):
            continue
        if not (given.metadata or {}).items() <= (body["metadata"] or {}).items():
            continue
        rows.append(await _stored(office, owner, body))
        if len(rows) >= (given.limit or MAX_ROWS):
            break
    return rows


async def _stored(office: Office, owner: str, body: Body) -> ContentRow:
    if body["object"] == "response":
        items = await office.objects.all(INPUT, owner, parent=body["id"])
        text = "".join(part["text"] for item in body["output"] for part in item.get("content", ()))
        messages = as_messages(items, body["instructions"])
    else:
        kept = await office.objects.all(MESSAGE, owner, parent=body["id"])
        messages = [{"role": each["role"], "content": each["content"] or ""} for each in kept]
        text = body["choices"][0]["message"]["content"] or ""
    return ContentRow(item={"input": messages, "output": text}, sample={"output_text": text})


def _read_items(content: bytes) -> list[ContentRow]:
    rows: list[ContentRow] = []
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        if len(rows) >= MAX_ROWS:
            raise ApiError(400, f"line {number}: more than {MAX_ROWS} items", code="invalid_data")
        try:
            rows.append(ContentRow.model_validate(json.loads(line)))
        except (ValueError, RecursionError) as error:
            message = f'line {number}: not an object such as {{"item": {{...}}}}'
            raise ApiError(400, message, code="invalid_data", param="data_source") from error
    return rows


async def _grade_all(
    office: Office, owner: str, run: Body, source: Any, criteria: list[Any], rows: list[ContentRow]
) -> None:
    """Answer and grade what is not done yet."""
    there = {item["datasource_item_id"] for item in await office.objects.all(ITEM, owner, parent=run["id"])}
    waiting = iter([(n, row) for n, row in enumerate(rows) if n not in there])

    async def work() -> None:
        for number, row in waiting:
            current = await office.objects.get(RUN, owner, run["id"], parent=run["eval_id"])
            if current["status"] != "in_progress":
                return
            sampled = await _sample(office, owner, source, row)
            known = {"item": row.item, "sample": sampled.sample}
            grades = [await grade(office, owner, each, known) for each in criteria]
            await office.objects.add(
                ITEM, owner, _output_item(run, source, number, row, sampled, grades), parent=run["id"]
            )

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(AT_ONCE, max(1, len(rows)))):
                group.create_task(work())
    except ExceptionGroup as several:
        raise several.exceptions[0] from several


async def _sample(office: Office, owner: str, source: Any, row: ContentRow) -> Sampled:
    """The answer that is graded: the row's own, or a model's."""
    if not isinstance(source, AskedSource) or source.model is None:
        given = dict(row.sample or {})
        return Sampled(given, [], str(given.get("output_text", "")))
    messages = _messages(source, row)
    settings = source.sampling_params or SamplingParams()
    params = AnswerParams(
        max_tokens=settings.max_completion_tokens or LENGTH,
        temperature=1.0 if settings.temperature is None else settings.temperature,
        top_p=1.0 if settings.top_p is None else settings.top_p,
        seed=settings.seed,
        logprobs=False,
    )
    try:
        grammar = format_grammar(settings.response_format)
        (said,) = await ask(office, owner, source.model, messages, params, grammar=grammar, route="evals")
    except (ApiError, CauserieError) as error:
        return Sampled({"output_text": ""}, messages, "", "error", source.model, error=as_api_error(error).message)
    sample: dict[str, Any] = {"output_text": said.text}
    try:
        sample["output_json"] = json.loads(said.text)
    except (ValueError, RecursionError):
        sample["output_json"] = None
    return Sampled(sample, messages, said.text, said.finish, source.model, said.usage)


def _messages(source: AskedSource, row: ContentRow) -> list[dict[str, Any]]:
    known = {"item": row.item}
    if isinstance(source.input_messages, Template):
        template = source.input_messages.template
        return [{"role": ROLES.get(each.role, "user"), "content": fill(each.text, known)} for each in template]
    path = source.input_messages.item_reference if isinstance(source.input_messages, ItemReference) else "item.input"
    found: Any = known
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    if not isinstance(found, list):
        found = [{"role": "user", "content": "" if found is None else str(found)}]
    plain = [each for each in found if isinstance(each, Mapping)]
    return [{"role": ROLES.get(each.get("role", ""), "user"), "content": str(each.get("content"))} for each in plain]


def _output_item(run: Body, source: Any, number: int, row: ContentRow, sampled: Sampled, grades: list[Grade]) -> Body:
    settings = getattr(source, "sampling_params", None) or SamplingParams()
    wrong = sampled.error or next((each.error for each in grades if each.error), None)
    usage = sampled.usage
    results = [
        {"name": each.name, "type": each.type, "passed": each.passed, "score": each.score}
        | ({"sample": {**each.details, "error": each.error}} if each.details or each.error else {})
        for each in grades
    ]
    sample = {
        "error": {"code": "sample_error", "message": wrong} if wrong else NO_ERROR,
        "finish_reason": sampled.finish,
        "input": [{"role": each["role"], "content": each["content"]} for each in sampled.messages],
        "output": [{"role": "assistant", "content": sampled.text}],
        "model": sampled.model,
        "max_completion_tokens": settings.max_completion_tokens or LENGTH,
        "seed": settings.seed or 0,
        "temperature": 1.0 if settings.temperature is None else settings.temperature,
        "top_p": 1.0 if settings.top_p is None else settings.top_p,
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
            "cached_tokens": usage.cached_tokens,
        },
    }
    status = "error" if wrong else "pass" if all(each.passed for each in grades) else "fail"
    return {
        "id": f"outputitem_{run['id'].rpartition('_')[2]}_{number}",
        "object": ITEM,
        "created_at": int(time.time()),
        "run_id": run["id"],
        "eval_id": run["eval_id"],
        "datasource_item": row.item,
        "datasource_item_id": number,
        "status": status,
        "results": results,
        "sample": sample,
    }


async def _finish(office: Office, owner: str, run: Body, criteria: list[Any]) -> None:
    items = await office.objects.all(ITEM, owner, parent=run["id"])
    counts = Counter(item["status"] for item in items)
    per = []
    for place, each in enumerate(criteria):
        passed = sum(item["results"][place]["passed"] for item in items)
        per.append({"testing_criteria": each.name, "passed": passed, "failed": len(items) - passed})
    values = {
        "result_counts": {
            "total": len(items),
            "passed": counts["pass"],
            "failed": counts["fail"],
            "errored": counts["error"],
        },
        "per_testing_criteria_results": per,
        "per_model_usage": _usage(items),
    }

    def change(body: Body) -> Body:
        return body | values | ({"status": "completed"} if body["status"] == "in_progress" else {})

    await office.objects.change(RUN, owner, run["id"], change, parent=run["eval_id"])


def _usage(items: list[Body]) -> list[dict[str, Any]]:
    models: dict[str, dict[str, Any]] = {}
    for item in items:
        sample = item["sample"]
        if not sample["model"]:
            continue
        row = models.setdefault(sample["model"], {"model_name": sample["model"], "invocation_count": 0})
        row["invocation_count"] += 1
        for name, value in sample["usage"].items():
            row[name] = row.get(name, 0) + value
    return list(models.values())
