"""Responses in chains, with tools, in the background and read again; conversations' items."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest

from causerie.text import Tokenizer
from tests.serve.conftest import ANSWER, Script
from tests.serve.test_responses import CALL, WEATHER, said
from tests.waiting import wait_for


def test_a_chain_can_branch(client: openai.OpenAI, script: Script, tokenizer: Tokenizer) -> None:
    root = client.responses.create(model="petit", input="Racine.")
    left = client.responses.create(model="petit", input="Gauche.", previous_response_id=root.id)
    right = client.responses.create(model="petit", input="Droite.", previous_response_id=root.id)
    client.responses.create(model="petit", input="Suite.", previous_response_id=left.id)
    prompt = said(script, tokenizer)
    assert [word in prompt for word in ("Racine.", "Gauche.", "Suite.", "Droite.")] == [True, True, True, False]
    assert prompt.index("Racine.") < prompt.index("Gauche.") < prompt.index("Suite.")
    assert right.previous_response_id == root.id
    items = client.responses.input_items.list(left.id).data
    assert [item.content[0].text for item in items] == ["Gauche."]


def test_an_item_is_referred_to_by_its_id(client: openai.OpenAI, script: Script, tokenizer: Tokenizer) -> None:
    root = client.responses.create(model="petit", input="Racine.")
    (item,) = client.responses.input_items.list(root.id).data
    reference = {"type": "item_reference", "id": item.id}
    client.responses.create(model="petit", input=[reference], previous_response_id=root.id)
    assert said(script, tokenizer).count("Racine.") == 2
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="petit", input=[{"type": "item_reference", "id": "msg_none"}])


def test_a_chain_and_a_conversation_exclude_each_other(client: openai.OpenAI) -> None:
    root = client.responses.create(model="petit", input="x")
    talk = client.conversations.create()
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model="petit", input="x", previous_response_id=root.id, conversation=talk.id)


def test_a_tools_round_trip(client: openai.OpenAI, script: Script, tokenizer: Tokenizer) -> None:
    script.answer, script.max_seq_len = CALL, 4096
    first = client.responses.create(model="petit", input="Quel temps ?", tools=[WEATHER])
    (call,) = [item for item in first.output if item.type == "function_call"]
    assert (call.name, json.loads(call.arguments), call.status) == ("weather", {"city": "Orléans"}, "completed")
    script.answer = ANSWER
    output = {"type": "function_call_output", "call_id": call.call_id, "output": '{"sky": "bleu"}'}
    second = client.responses.create(model="petit", input=[output], previous_response_id=first.id, tools=[WEATHER])
    assert second.output_text == ANSWER
    prompt = said(script, tokenizer)
    assert prompt.index("Quel temps ?") < prompt.index('"weather", "arguments"') < prompt.index('{"sky": "bleu"}')
    (kept,) = client.responses.input_items.list(second.id).data
    assert (kept.type, kept.call_id, kept.output) == ("function_call_output", call.call_id, '{"sky": "bleu"}')
    by_hand = [
        {"role": "user", "content": "Quel temps ?"},
        call.model_dump(exclude_none=True),
        output,
    ]
    client.responses.create(model="petit", input=by_hand, tools=[WEATHER])
    assert said(script, tokenizer) == prompt


def test_a_tools_result_may_come_in_parts(client: openai.OpenAI, script: Script, tokenizer: Tokenizer) -> None:
    script.max_seq_len = 4096
    call = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"}
    parts = [{"type": "input_text", "text": "bleu"}, {"type": "input_text", "text": " et froid"}]
    output = {"type": "function_call_output", "call_id": "c1", "output": parts}
    client.responses.create(model="petit", input=[{"role": "user", "content": "?"}, call, output], tools=[WEATHER])
    assert "bleu et froid" in said(script, tokenizer)


def test_a_cancelled_background_response_stops_drawing(client: openai.OpenAI, script: Script) -> None:
    script.delay, script.endless, script.max_seq_len = 0.01, True, 10**6
    answer = client.responses.create(model="petit", input="x", background=True)
    wait_for(lambda: script.live)
    assert client.responses.cancel(answer.id).status == "cancelled"
    wait_for(lambda: script.live == 0)
    assert client.responses.cancel(answer.id).status == "cancelled"
    assert client.responses.retrieve(answer.id).status == "cancelled"
    plain = client.responses.create(model="petit", input="x", max_output_tokens=1)
    with pytest.raises(openai.BadRequestError, match="background"):
        client.responses.cancel(plain.id)


@pytest.mark.parametrize("after", [0, 3, 7])
def test_a_broken_stream_is_read_on_from_any_event(
    after: int, client: openai.OpenAI, http: httpx.Client, script: Script
) -> None:
    script.delay = 0.005
    seen: list[Any] = []
    with client.responses.create(model="petit", input="x", background=True, stream=True) as stream:
        for event in stream:
            seen.append(event)
            if event.sequence_number == after:
                break
    id = seen[0].response.id
    rest = list(client.responses.retrieve(id, stream=True, starting_after=after))
    assert [event.sequence_number for event in rest] == list(range(after + 1, after + 1 + len(rest)))
    assert rest[-1].type == "response.completed"
    text = "".join(e.delta for e in [*seen, *rest] if e.type == "response.output_text.delta")
    assert text == ANSWER == rest[-1].response.output_text
    again = list(client.responses.retrieve(id, stream=True))
    assert [e.sequence_number for e in again] == list(range(after + 1 + len(rest)))
    by_header = http.get(f"/v1/responses/{id}?stream=true", headers={"last-event-id": str(after)})
    numbers = [
        json.loads(row[6:])["sequence_number"] for row in by_header.text.splitlines() if row.startswith("data: {")
    ]
    assert numbers == [e.sequence_number for e in rest]
    assert http.get(f"/v1/responses/{id}?stream=true&starting_after=x").status_code == 400


def test_items_of_conversations(client: openai.OpenAI, script: Script, tokenizer: Tokenizer) -> None:
    talk = client.conversations.create(items=[{"type": "message", "role": "user", "content": "Un."}])
    call = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "c1", "output": "bleu"}
    added = client.conversations.items.create(talk.id, items=[call, output]).data
    assert [item.type for item in added] == ["function_call", "function_call_output"]
    assert client.conversations.items.retrieve(added[0].id, conversation_id=talk.id).name == "weather"
    client.responses.create(model="petit", input="Deux.", conversation=talk.id)
    items = list(client.conversations.items.list(talk.id, order="asc"))
    kinds = ["message", "function_call", "function_call_output", "message", "message"]
    assert [item.type for item in items] == kinds
    client.conversations.items.delete(items[0].id, conversation_id=talk.id)
    client.responses.create(model="petit", input="Trois.", conversation=talk.id)
    prompt = said(script, tokenizer)
    assert [word in prompt for word in ("Un.", "bleu", "Deux.", "Trois.")] == [False, True, True, True]
    with pytest.raises(openai.NotFoundError):
        client.conversations.items.retrieve(items[0].id, conversation_id=talk.id)
    client.conversations.delete(talk.id)
    with pytest.raises(openai.NotFoundError):
        client.conversations.items.list(talk.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="petit", input="x", conversation=talk.id)


@pytest.mark.parametrize(
    "items",
    [
        [{"type": "message", "role": "user", "content": "x"}] * 21,
        [{"type": "item_reference", "id": "x"}],
        [{"type": "message", "role": "wizard", "content": "x"}],
        [{"type": "function_call_output", "output": "x"}],
        "x",
    ],
)
def test_items_that_cannot_be(items: Any, client: openai.OpenAI, http: httpx.Client) -> None:
    talk = client.conversations.create()
    assert http.post(f"/v1/conversations/{talk.id}/items", json={"items": items}).status_code == 400
    assert http.post("/v1/conversations", json={"items": items}).status_code == 400
    assert list(client.conversations.items.list(talk.id)) == []


def test_the_same_items_in_another_conversation_are_not_there(client: openai.OpenAI) -> None:
    one = client.conversations.create(items=[{"type": "message", "role": "user", "content": "Un."}])
    two = client.conversations.create()
    (item,) = client.conversations.items.list(one.id)
    with pytest.raises(openai.NotFoundError):
        client.conversations.items.retrieve(item.id, conversation_id=two.id)
    with pytest.raises(openai.NotFoundError):
        client.conversations.items.delete(item.id, conversation_id=two.id)
    assert [each.id for each in client.conversations.items.list(one.id)] == [item.id]
