"""A walk through every operation of the API on one server, writing down what was asked and answered."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.waiting import wait_for

MODEL = "petit"
SAY = [{"role": "user", "content": "Dis oui."}]
TOOL = {
    "type": "function",
    "function": {
        "name": "sky",
        "parameters": {
            "type": "object",
            "properties": {"c": {"enum": ["blue", "grey"]}},
            "required": ["c"],
            "additionalProperties": False,
        },
    },
}
CHECK = {"type": "string_check", "name": "same", "operation": "eq", "input": "{{item.w}}", "reference": "oui"}
NEAR = {
    "type": "text_similarity",
    "name": "near",
    "evaluation_metric": "fuzzy_match",
    "input": "{{sample.output_text}}",
    "reference": "oui",
    "pass_threshold": 0.5,
}
CALL = 200
"""Tokens that a whole call of the tool fits into, whatever a model held to its grammar makes of the spaces."""
USAGE = [
    "audio_speeches",
    "audio_transcriptions",
    "code_interpreter_sessions",
    "completions",
    "embeddings",
    "file_search_calls",
    "images",
    "moderations",
    "vector_stores",
    "web_search_calls",
]


@dataclass
class Said:
    """One answer: its status, its JSON (or None), the events of a stream."""

    status: int
    body: Any = None
    events: list[Any] = field(default_factory=list)
    asked: Any = None


class Tour:
    """Asks, and remembers by operation: method and path with `{}` for every id.

    What is asked of the model is drawn the same way every time and is as long as it may be: at temperature 0, and
    without the ids that end an answer where nothing else ends it.

    Args:
        http: a client whose base is `.../v1/`.
        ends: ids of the tokens that end an answer.
    """

    def __init__(self, http: httpx.Client, ends: Iterable[int]) -> None:
        self.http = http
        self.even: dict[str, Any] = {"temperature": 0, "logit_bias": {str(id): -100 for id in ends}}
        self.said: dict[tuple[str, str], list[Said]] = defaultdict(list)

    def ask(self, method: str, path: str, *ids: str, expect: int | tuple[int, ...] = (200, 201), **how: Any) -> Any:
        """The JSON of an answer; `**how` is httpx's."""
        answer = self.http.request(method, path.format(*ids), **how)
        allowed = (expect,) if isinstance(expect, int) else expect
        assert answer.status_code in allowed, (method, path, answer.status_code, answer.text)
        is_json = answer.headers.get("content-type", "").startswith("application/json")
        body = answer.json() if is_json else None
        self.said[method, path].append(Said(answer.status_code, body, asked=how.get("json")))
        return body

    def get(self, path: str, *ids: str, **how: Any) -> Any:
        """GET."""
        return self.ask("GET", path, *ids, **how)

    def post(self, path: str, *ids: str, **body: Any) -> Any:
        """POST of a JSON object."""
        return self.ask("POST", path, *ids, json=body)

    def send(self, path: str, *ids: str, files: Any, data: Any = None) -> Any:
        """POST of a form."""
        return self.ask("POST", path, *ids, files=files, data=data)

    def drop(self, path: str, *ids: str) -> Any:
        """DELETE."""
        return self.ask("DELETE", path, *ids)

    def stream(self, path: str, **body: Any) -> list[Any]:
        """The JSON of every event of a streamed answer."""
        asked = body | {"stream": True}
        with self.http.stream("POST", path, json=asked) as answer:
            assert answer.status_code == 200, answer.read()
            lines = [line[6:] for line in answer.iter_lines() if line.startswith("data: ")]
        events = [json.loads(line) for line in lines if line != "[DONE]"]
        self.said["POST", path].append(Said(200, events=events, asked=asked))
        return events

    def until(self, path: str, *ids: str, ends: tuple[str, ...]) -> Any:
        """The object at a path once its status is one of these."""
        found: dict[str, Any] = {}
        wait_for(lambda: found.update(self.get(path, *ids)) or found["status"] in ends)
        return found

    def file(self, content: bytes | list[Any], purpose: str = "assistants", name: str = "a.txt") -> str:
        """The id of a new file; a list becomes lines of JSON."""
        raw = content if isinstance(content, bytes) else "\n".join(map(json.dumps, content)).encode()
        return str(self.send("files", files={"file": (name, raw)}, data={"purpose": purpose})["id"])


def answers(tour: Tour) -> None:
    """Chat completions, completions, embeddings, moderations, models."""
    ask: dict[str, Any] = {"model": MODEL, "messages": SAY, "max_tokens": 4, **tour.even}
    shape = {"type": "object", "properties": {"a": {"enum": [1]}}, "required": ["a"], "additionalProperties": False}
    schema = {"name": "x", "schema": shape}
    formed = {"response_format": {"type": "json_schema", "json_schema": schema}, "max_tokens": 40}
    for more in ({}, {"n": 2, "logprobs": True, "top_logprobs": 2, "seed": 1}, formed):
        tour.post("chat/completions", **(ask | more))
        tour.stream("chat/completions", **(ask | more | {"stream_options": {"include_usage": True}}))
    called = ask | {"tools": [TOOL], "tool_choice": "required", "max_tokens": CALL}
    message = tour.post("chat/completions", **called)["choices"][0]["message"]
    tour.stream("chat/completions", **called)
    told = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "blue"}
    kept = tour.post("chat/completions", **(ask | {"messages": [*SAY, message, told], "store": True}))["id"]
    tour.get("chat/completions")
    tour.get("chat/completions/{}", kept)
    tour.get("chat/completions/{}/messages", kept)
    tour.post("chat/completions/{}", kept, metadata={"a": "b"})
    tour.drop("chat/completions/{}", kept)
    for more in ({}, {"echo": True, "logprobs": 2}, {"n": 2, "best_of": 3}, {"prompt": ["a", "b"]}):
        tour.post("completions", **({"model": MODEL, "prompt": "a", "max_tokens": 3, **tour.even} | more))
    tour.stream("completions", model=MODEL, prompt="a", max_tokens=3, logprobs=1, **tour.even)
    tour.post("embeddings", model=MODEL, input=["a", "b"])
    tour.post("moderations", input=["I will kill you", "a nice day"])
    tour.get("models")
    tour.get("models/{}", MODEL)


def tools(tour: Tour) -> None:
    """Custom tools and allowed ones, by chat completions and by responses."""
    grammar = {"syntax": "regex", "definition": "[ab]{3}"}
    custom = {"name": "spell", "description": "Spells.", "format": {"type": "grammar", "grammar": grammar}}
    ask: dict[str, Any] = {"model": MODEL, "messages": SAY, "max_tokens": 60}
    ask["tools"] = [TOOL, {"type": "custom", "custom": custom}, {"type": "custom", "custom": {"name": "free"}}]
    named = {"type": "custom", "custom": {"name": "spell"}}
    for choice in (named, {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [named]}}):
        message = tour.post("chat/completions", **ask, tool_choice=choice)["choices"][0]["message"]
        tour.stream("chat/completions", **ask, tool_choice=choice)
    told = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "aaa"}
    after = {"messages": [*SAY, message, told], "tool_choice": "auto", "parallel_tool_calls": False, "n": 128}
    tour.post("chat/completions", **(ask | after | {"max_tokens": 1}))
    old: dict[str, Any] = {"model": MODEL, "messages": SAY, "functions": [TOOL["function"]], "max_tokens": 60}
    old["function_call"] = {"name": "sky"}
    message = tour.post("chat/completions", **old)["choices"][0]["message"]
    tour.stream("chat/completions", **old)
    after = {"messages": [*SAY, message, {"role": "function", "name": "sky", "content": "blue"}], "max_tokens": 2}
    tour.post("chat/completions", **(old | after | {"function_call": "none"}))
    ask = {"model": MODEL, "input": "Dis oui.", "max_output_tokens": 60}
    ask["tools"] = [{"type": "custom", **custom, "format": {"type": "grammar", **grammar}}]
    ask["tools"] += [{"type": "custom", "name": "free", "format": {"type": "text"}}]
    named = {"type": "custom", "name": "spell"}
    for choice in (named, {"type": "allowed_tools", "mode": "required", "tools": [named]}):
        said = tour.post("responses", **ask, tool_choice=choice)
        tour.stream("responses", **ask, tool_choice=choice)
    (call,) = said["output"]
    output = {"type": "custom_tool_call_output", "call_id": call["call_id"], "output": "aaa"}
    after = tour.post("responses", **(ask | {"input": [call, output], "max_output_tokens": 16}))["id"]
    tour.get("responses/{}/input_items", after)
    talk = tour.post("conversations", items=[call, output])["id"]
    tour.get("conversations/{}/items", talk)


def conversations(tour: Tour) -> None:
    """Responses and conversations."""
    ask: dict[str, Any] = {"model": MODEL, "input": "Dis oui.", "max_output_tokens": 16, "temperature": 0}
    answer = tour.post("responses", **ask)["id"]
    tool = {"type": "function", "name": "sky", "parameters": TOOL["function"]["parameters"], "strict": False}  # type: ignore[index]
    called = {**ask, "tools": [tool], "tool_choice": "required", "max_output_tokens": CALL}
    tour.post("responses", **called)
    for more in ({}, called, {"top_logprobs": 2, "include": ["message.output_text.logprobs"]}):
        tour.stream("responses", **(ask | more))
    tour.post("responses", **(ask | {"previous_response_id": answer, "metadata": {"a": "b"}}))
    tour.get("responses/{}", answer)
    tour.get("responses/{}/input_items", answer)
    begun = tour.post("responses", **(ask | {"background": True, "max_output_tokens": 1_500}))["id"]
    tour.post("responses/{}/cancel", begun)
    tour.post("responses/input_tokens", model=MODEL, input="Dis oui.")
    tour.post("responses/compact", model=MODEL, input="Dis oui.")
    tour.drop("responses/{}", answer)
    items = [{"type": "message", "role": "user", "content": "a"}]
    talk = tour.post("conversations", items=items, metadata={})["id"]
    tour.post("responses", **(ask | {"conversation": talk}))
    tour.get("conversations/{}", talk)
    tour.post("conversations/{}", talk, metadata={"a": "b"})
    tour.post("conversations/{}/items", talk, items=items)
    item = tour.get("conversations/{}/items", talk)["data"][0]["id"]
    tour.get("conversations/{}/items/{}", talk, item)
    tour.drop("conversations/{}/items/{}", talk, item)
    tour.drop("conversations/{}", talk)


def files(tour: Tour) -> None:
    """Files, uploads, vector stores."""
    one, two = tour.file(b"L'ete est chaud."), tour.file(b"Il neige.", name="b.md")
    tour.get("files")
    tour.get("files/{}", one)
    tour.get("files/{}/content", one)
    start = {"bytes": 6, "filename": "u.txt", "mime_type": "text/plain", "purpose": "assistants"}
    upload = tour.post("uploads", **start)["id"]
    parts = [tour.send("uploads/{}/parts", upload, files={"data": ("x", data)})["id"] for data in (b"abc", b"def")]
    tour.post("uploads/{}/complete", upload, part_ids=parts)
    tour.post("uploads/{}/cancel", tour.post("uploads", **start)["id"])
    shelf = tour.post("vector_stores", name="s", file_ids=[one], metadata={"a": "b"})["id"]
    tour.get("vector_stores")
    tour.post("vector_stores/{}", shelf, name="t", expires_after={"anchor": "last_active_at", "days": 1})
    chunking = {"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 10}}
    tour.post("vector_stores/{}/files", shelf, file_id=two, attributes={"n": 1}, chunking_strategy=chunking)
    tour.get("vector_stores/{}/files", shelf)
    tour.get("vector_stores/{}/files/{}", shelf, two)
    tour.post("vector_stores/{}/files/{}", shelf, two, attributes={"n": 2})
    tour.get("vector_stores/{}/files/{}/content", shelf, two)
    tour.post("vector_stores/{}/search", shelf, query="neige")
    batch = tour.post("vector_stores/{}/file_batches", shelf, file_ids=[tour.file(b"Il pleut.")])["id"]
    tour.get("vector_stores/{}/file_batches/{}", shelf, batch)
    tour.get("vector_stores/{}/file_batches/{}/files", shelf, batch)
    tour.ask("POST", "vector_stores/{}/file_batches/{}/cancel", shelf, batch, expect=(200, 400))
    tour.get("vector_stores/{}", shelf)
    tour.drop("vector_stores/{}/files/{}", shelf, two)
    tour.drop("vector_stores/{}", shelf)
    tour.drop("files/{}", two)


def begin_training(tour: Tour) -> str:
    """A job that trains, and one behind it that is turned about; the first one's id."""
    rows = [{"messages": [*SAY, {"role": "assistant", "content": word}]} for word in ("oui", "non")]
    file = tour.file(rows, "fine-tune")
    settings = {"n_epochs": 2, "batch_size": 2, "learning_rate_multiplier": 1}
    method = {"type": "supervised", "supervised": {"hyperparameters": settings}}
    job = tour.post("fine_tuning/jobs", model=MODEL, training_file=file, method=method, seed=1, metadata={"a": "b"})
    long = {"type": "supervised", "supervised": {"hyperparameters": settings | {"n_epochs": 50}}}
    waits = tour.post("fine_tuning/jobs", model=MODEL, training_file=file, method=long)["id"]
    for turn in ("pause", "resume", "cancel"):
        tour.post(f"fine_tuning/jobs/{{}}/{turn}", waits)
    return str(job["id"])


def end_training(tour: Tour, job: str) -> None:
    """What a job leaves; its model, shared and deleted."""
    tour.get("fine_tuning/jobs")
    done = tour.until("fine_tuning/jobs/{}", job, ends=("succeeded", "failed"))
    assert done["status"] == "succeeded", done
    tour.get("fine_tuning/jobs/{}/events", job)
    tour.get("fine_tuning/jobs/{}/checkpoints", job)
    model = done["fine_tuned_model"]
    place = "fine_tuning/checkpoints/{}/permissions"
    shared = tour.post(place, model, project_ids=["other"])["data"][0]["id"]
    tour.get(place, model)
    tour.drop(place + "/{}", model, shared)
    tour.get("models")
    tour.drop("models/{}", model)
    tour.post("fine_tuning/alpha/graders/run", grader=CHECK, item={"w": "oui"}, model_sample="x")
    tour.post("fine_tuning/alpha/graders/validate", grader=CHECK)


def requests(tour: Tour, count: int, tokens: int) -> list[dict[str, Any]]:
    """Lines of a batch: so many answers of so many tokens."""
    body = {"model": MODEL, "messages": SAY, "max_tokens": tokens, **tour.even}
    return [{"custom_id": f"{n}", "method": "POST", "url": "/v1/chat/completions", "body": body} for n in range(count)]


def work(tour: Tour) -> None:
    """Batches and evals."""
    ask = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
    few, many = (tour.file(requests(tour, *each), "batch") for each in ((3, 2), (200, 200)))
    batch = tour.post("batches", **ask, input_file_id=few, metadata={"a": "b"})["id"]
    tour.until("batches/{}", batch, ends=("completed",))
    stopped = tour.post("batches", **ask, input_file_id=many)["id"]
    tour.post("batches/{}/cancel", stopped)
    tour.until("batches/{}", stopped, ends=("cancelled",))
    faulty = tour.file(b"{}\n", "batch")
    tour.until("batches/{}", tour.post("batches", **(ask | {"input_file_id": faulty}))["id"], ends=("failed",))
    tour.get("batches")
    config = {"type": "custom", "item_schema": {"type": "object"}, "include_sample_schema": True}
    check = tour.post("evals", name="e", data_source_config=config, testing_criteria=[CHECK, NEAR])["id"]
    rows = {"type": "file_content", "content": [{"item": {"w": "oui"}}, {"item": {"w": "non"}}]}
    template = {"type": "template", "template": [{"role": "user", "content": "Dis {{item.w}}."}]}
    source: dict[str, Any] = {"type": "completions", "model": MODEL, "source": rows, "input_messages": template}
    source["sampling_params"] = {"temperature": 0, "max_completion_tokens": 4}
    run = tour.post("evals/{}/runs", check, data_source=source, name="r")["id"]
    tour.until("evals/{}/runs/{}", check, run, ends=("completed",))
    tour.get("evals/{}/runs", check)
    item = tour.get("evals/{}/runs/{}/output_items", check, run)["data"][0]["id"]
    tour.get("evals/{}/runs/{}/output_items/{}", check, run, item)
    much = {"type": "file_content", "content": [{"item": {"w": "oui"}}] * 200}
    source |= {"source": much, "sampling_params": {"temperature": 0, "max_completion_tokens": 200}}
    again = tour.post("evals/{}/runs", check, data_source=source)["id"]
    tour.post("evals/{}/runs/{}", check, again)
    tour.drop("evals/{}/runs/{}", check, again)
    tour.get("evals")
    tour.get("evals/{}", check)
    tour.post("evals/{}", check, name="f", metadata={"a": "b"})
    tour.drop("evals/{}", check)


def organization(tour: Tour, person: str) -> None:
    """Projects, people, keys, usage, costs. `person` has an account."""
    org = "organization/"
    project = tour.post(f"{org}projects", name="P")["id"]
    place = f"{org}projects/{{}}"
    tour.get(f"{org}projects")
    tour.get(place, project)
    tour.post(place, project, name="Q")
    key = tour.post(f"{place}/api_keys", project, name="k")["id"]
    tour.get(f"{place}/api_keys", project)
    tour.get(f"{place}/api_keys/{{}}", project, key)
    tour.drop(f"{place}/api_keys/{{}}", project, key)
    tour.post(f"{place}/api_keys/{{}}", project, tour.post(f"{place}/api_keys", project, name="l")["id"], name="m")
    limit = tour.get(f"{place}/rate_limits", project)["data"][0]["id"]
    tour.post(f"{place}/rate_limits/{{}}", project, limit, max_requests_per_1_minute=9)
    robot = tour.post(f"{place}/service_accounts", project, name="s")["id"]
    tour.get(f"{place}/service_accounts", project)
    tour.get(f"{place}/service_accounts/{{}}", project, robot)
    tour.drop(f"{place}/service_accounts/{{}}", project, robot)
    tour.get(f"{org}users")
    tour.get(f"{org}users/{{}}", person)
    tour.post(f"{org}users/{{}}", person, role="reader")
    tour.post(f"{place}/users", project, user_id=person, role="member")
    tour.get(f"{place}/users", project)
    tour.get(f"{place}/users/{{}}", project, person)
    tour.post(f"{place}/users/{{}}", project, person, role="owner")
    tour.drop(f"{place}/users/{{}}", project, person)
    tour.drop(f"{org}users/{{}}", person)
    root = tour.post(f"{org}admin_api_keys", name="root", expires_in_seconds=3600)["id"]
    tour.get(f"{org}admin_api_keys")
    tour.get(f"{org}admin_api_keys/{{}}", root)
    tour.drop(f"{org}admin_api_keys/{{}}", root)
    tour.get(f"{org}audit_logs")
    tour.post(f"{place}/archive", project)
    since = {"start_time": int(time.time()) - 3_600}
    for name in (*(f"usage/{each}" for each in USAGE), "costs"):
        tour.get(f"{org}{name}", params=since)


STOPS: tuple[Callable[[Tour], None], ...] = (answers, tools, conversations, files, work)


def walk(tour: Tour, person: str) -> Tour:
    """The whole walk; the trainer works meanwhile."""
    job = begin_training(tour)
    for stop in STOPS:
        stop(tour)
    organization(tour, person)
    end_training(tour, job)
    return tour
