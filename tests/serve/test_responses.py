"""v1/responses and v1/conversations through the official client."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import openai
import pytest

from causerie.text import Tokenizer
from tests.serve.conftest import ANSWER, Script
from tests.waiting import wait_for

WEATHER = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Orléans"}}\n</tool_call>'


def said(script: Script, tokenizer: Tokenizer, place: int = -1) -> str:
    """The prompt that the engine was given."""
    return tokenizer.decode(script.asked[place][0])


def test_a_response_has_every_field(client: openai.OpenAI, script: Script, tokenizer: Tokenizer) -> None:
    answer = client.responses.create(
        model="petit", input="Ça va ?", instructions="Sois bref.", metadata={"a": "b"}, temperature=0.5
    )
    assert (answer.status, answer.output_text, answer.model) == ("completed", ANSWER, "petit@3")
    assert (answer.instructions, answer.metadata, answer.temperature) == ("Sois bref.", {"a": "b"}, 0.5)
    assert (answer.error, answer.incomplete_details, answer.tools, answer.tool_choice) == (None, None, [], "auto")
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    assert "system\nSois bref." in said(script, tokenizer)
    short = client.responses.create(model="petit", input="x", max_output_tokens=2)
    assert (short.status, short.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert short.output[0].status == "incomplete"


def test_responses_are_kept_continued_and_deleted(client: openai.OpenAI, script: Script, tokenizer: Tokenizer) -> None:
    first = client.responses.create(model="petit", input=[{"role": "user", "content": "Un."}], instructions="Poli.")
    assert client.responses.retrieve(first.id).output_text == ANSWER
    (item,) = client.responses.input_items.list(first.id).data
    assert (item.role, item.content[0].text) == ("user", "Un.")
    second = client.responses.create(model="petit", input="Deux.", previous_response_id=first.id)
    third = client.responses.create(model="petit", input="Trois.", previous_response_id=second.id)
    prompt = said(script, tokenizer)
    assert [part in prompt for part in ("Un.", "Deux.", "Trois.", "Poli.")] == [True, True, True, False]
    assert prompt.count(ANSWER) == 2
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="petit", input="x", previous_response_id=third.id)
    loose = client.responses.create(model="petit", input="x", store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(loose.id)


def test_a_stream_has_typed_events_in_order(client: openai.OpenAI) -> None:
    with client.responses.stream(model="petit", input="Ça va ?") as stream:
        events = list(stream)
        final = stream.get_final_response()
    kinds = [event.type for event in events if event.type != "response.output_text.delta"]
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == ANSWER
    assert final.output_text == ANSWER
    assert client.responses.retrieve(final.id).output_text == ANSWER


def test_functions_are_called_and_answered(client: openai.OpenAI, script: Script, tokenizer: Tokenizer) -> None:
    script.answer, script.max_seq_len = CALL, 4096
    first = client.responses.create(model="petit", input="Le temps ?", tools=[WEATHER])
    (call,) = first.output
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "weather", {"city": "Orléans"})
    stream = client.responses.create(model="petit", input="Le temps ?", tools=[WEATHER], stream=True)
    kinds = [event.type for event in stream]
    assert "response.function_call_arguments.delta" in kinds
    assert kinds[-3:] == [
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]
    script.answer = "Il fait beau."
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "soleil"}
    last = client.responses.create(model="petit", previous_response_id=first.id, input=[output], tools=[WEATHER])
    assert last.output_text == "Il fait beau."
    prompt = said(script, tokenizer)
    assert '<tool_call>\n{"name": "weather"' in prompt
    assert "<tool_response>\nsoleil" in prompt


def test_formats_hold_the_text(client: openai.OpenAI, script: Script) -> None:
    schema = {"type": "object", "properties": {}}
    format = {"type": "json_schema", "name": "x", "schema": schema, "strict": True}
    answer = client.responses.create(model="petit", input="x", text={"format": format})
    assert json.loads(script.asked[-1][1].grammar.value) == schema
    assert answer.text.format.type == "json_schema"
    with_logprobs = client.responses.create(
        model="petit", input="x", include=["message.output_text.logprobs"], top_logprobs=0
    )
    rows = with_logprobs.output[0].content[0].logprobs
    assert b"".join(bytes(row.bytes) for row in rows).decode() == ANSWER


def test_the_background_goes_on_alone_and_is_resumed(client: openai.OpenAI, script: Script) -> None:
    script.delay = 0.01
    begun = client.responses.create(model="petit", input="x", background=True)
    assert begun.status == "queued"
    assert wait(client, begun.id).output_text == ANSWER
    stream = client.responses.create(model="petit", input="x", background=True, stream=True)
    first = []
    for event in stream:
        first.append(event)
        if len(first) == 6:
            break
    stream.close()  # the client goes away; the work goes on
    id, number = first[0].response.id, first[-1].sequence_number
    rest = list(client.responses.retrieve(id, stream=True, starting_after=number))
    assert [event.sequence_number for event in rest] == list(range(number + 1, number + 1 + len(rest)))
    assert rest[-1].type == "response.completed"
    deltas = [event.delta for event in [*first, *rest] if event.type == "response.output_text.delta"]
    assert "".join(deltas) == ANSWER
    again = list(client.responses.retrieve(id, stream=True))
    assert again[0].type == "response.created"
    assert len(again) == len(first) + len(rest)


def wait(client: openai.OpenAI, id: str) -> Any:
    wait_for(lambda: client.responses.retrieve(id).status not in ("queued", "in_progress"))
    return client.responses.retrieve(id)


def test_the_background_is_cancelled(client: openai.OpenAI, script: Script) -> None:
    script.endless, script.delay = True, 0.01
    begun = client.responses.create(model="petit", input="x", background=True)
    assert client.responses.cancel(begun.id).status == "cancelled"
    wait_for(lambda: script.live == 0)
    time.sleep(0.1)
    assert script.live == 0
    assert client.responses.retrieve(begun.id).status == "cancelled"
    script.endless, script.delay = False, 0.0
    plain = client.responses.create(model="petit", input="x")
    with pytest.raises(openai.BadRequestError, match="background"):
        client.responses.cancel(plain.id)


def test_failures_are_told(client: openai.OpenAI, script: Script) -> None:
    script.fail_after = 2
    with pytest.raises(openai.APIError):
        client.responses.create(model="petit", input="x")
    events = list(client.responses.create(model="petit", input="x", stream=True))
    assert events[-1].type == "response.failed"
    assert events[-1].response.error.code == "server_error"
    begun = client.responses.create(model="petit", input="x", background=True)
    assert wait(client, begun.id).status == "failed"


def test_conversations_grow(client: openai.OpenAI, script: Script, tokenizer: Tokenizer) -> None:
    talk = client.conversations.create(items=[{"role": "user", "content": "Je suis Léa."}], metadata={"a": "b"})
    client.responses.create(model="petit", input="Qui suis-je ?", conversation=talk.id)
    assert "Je suis Léa." in said(script, tokenizer)
    items = client.conversations.items.list(talk.id, order="asc").data
    assert [item.role for item in items] == ["user", "user", "assistant"]
    assert items[-1].content[0].text == ANSWER
    added = client.conversations.items.create(talk.id, items=[{"role": "user", "content": "Encore."}])
    assert client.conversations.items.retrieve(added.data[0].id, conversation_id=talk.id).content[0].text == "Encore."
    client.conversations.items.delete(added.data[0].id, conversation_id=talk.id)
    assert len(client.conversations.items.list(talk.id).data) == 3
    assert client.conversations.update(talk.id, metadata={"c": "d"}).metadata == {"c": "d"}
    assert client.conversations.delete(talk.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.conversations.items.list(talk.id)


def test_tokens_are_counted_and_talks_compacted(client: openai.OpenAI, script: Script, tokenizer: Tokenizer) -> None:
    counted = client.responses.input_tokens.count(model="petit", input="Ça va ?", instructions="Bref.")
    answer = client.responses.create(model="petit", input="Ça va ?", instructions="Bref.")
    assert counted.input_tokens == answer.usage.input_tokens
    short = client.responses.compact(model="petit", input="Une longue histoire.")
    (item,) = short.output
    client.responses.create(
        model="petit", input=[item.model_dump(exclude_none=True), {"role": "user", "content": "Et ?"}]
    )
    assert f"in short: {ANSWER}" in said(script, tokenizer)


def test_long_input_is_cut_or_refused(client: openai.OpenAI, script: Script, tokenizer: Tokenizer) -> None:
    items = [{"role": "user", "content": f"Question numéro {n}."} for n in range(60)]
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model="petit", input=items)
    assert client.responses.create(model="petit", input=items, truncation="auto").status == "completed"
    assert "numéro 59" in said(script, tokenizer)
    assert "numéro 1." not in said(script, tokenizer)


@pytest.mark.parametrize(
    "change",
    [
        {"input": [{"role": "wizard", "content": "x"}]},
        {"input": [{"type": "teleport"}]},
        {"input": [{"type": "item_reference", "id": "none"}]},
        {"input": [{"type": "compaction", "encrypted_content": "%%%"}]},
        {"previous_response_id": "resp_none"},
        {"conversation": "conv_none"},
        {"conversation": "a", "previous_response_id": "b"},
        {"tools": [{"type": "web_search"}]},
        {"tool_choice": "required"},
        {"background": True, "store": False},
        {"max_output_tokens": -1},
        {"prompt": {"id": "x"}},
        {"text": {"format": {"type": "xml"}}},
    ],
)
def test_requests_that_cannot_be(change: dict[str, Any], http: httpx.Client) -> None:
    answer = http.post("/v1/responses", json={"model": "petit", "input": "x", **change})
    assert answer.status_code in (400, 404), answer.text
    assert answer.json()["error"]["message"]


def test_stored_answers_are_listed_named_and_resumed(client: openai.OpenAI, http: httpx.Client, script: Script) -> None:
    question = [{"role": "user", "content": "Ça va ?"}]
    kept = client.chat.completions.create(model="petit", messages=question, store=True, metadata={"of": "me"})
    loose = client.chat.completions.create(model="petit", messages=question)
    found = client.chat.completions.retrieve(kept.id)
    assert found.choices[0].message.content == ANSWER
    assert [each.id for each in client.chat.completions.list(metadata={"of": "me"})] == [kept.id]
    assert [each.id for each in client.chat.completions.list(model="other")] == []
    assert [each.content for each in client.chat.completions.messages.list(kept.id)] == ["Ça va ?"]
    assert client.chat.completions.update(kept.id, metadata={"of": "you"}).metadata == {"of": "you"}
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.retrieve(loose.id)
    script.delay = 0.01
    ids, text = [], ""
    body = {"model": "petit", "messages": question, "store": True, "stream": True}
    with http.stream("POST", "/v1/chat/completions", json=body) as stream:
        for line in stream.iter_lines():
            if line.startswith("id: "):
                ids.append(int(line[4:]))
            if line.startswith("data: "):
                chunk = json.loads(line[6:])
                text += chunk["choices"][0]["delta"].get("content") or ""
            if len(ids) == 6 and line == "":
                break
    place = f"/v1/chat/completions/{chunk['id']}?stream=true"
    rest = http.get(place, headers={"last-event-id": str(ids[-1])}).text
    for line in rest.splitlines():
        if line.startswith("data: {"):
            for choice in json.loads(line[6:])["choices"]:
                text += choice["delta"].get("content") or ""
    assert text == ANSWER
    assert f"id: {ids[-1] + 1}\n" in rest
    assert rest.endswith("data: [DONE]\n\n")
    assert client.chat.completions.retrieve(chunk["id"]).choices[0].message.content == ANSWER
    assert client.chat.completions.delete(kept.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.messages.list(kept.id)
