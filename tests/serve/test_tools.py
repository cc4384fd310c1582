"""Tool calls: told to the model, read back from its text, streamed, required by a grammar."""

from __future__ import annotations

import itertools
import json
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from causerie.serve.tool_calls import CallParser
from causerie.serve.tools import Tool, ToolUse, plain_messages
from causerie.text import Tokenizer, chat_format
from tests.serve.conftest import Script

QUESTION = [{"role": "user", "content": "Quel temps ?"}]
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "Le temps", "parameters": PARAMETERS}}
FUNCTION = {"name": "weather", "description": "Le temps", "parameters": PARAMETERS}
TIME = {"type": "function", "function": {"name": "time"}}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Orléans }\\" {"}}\n</tool_call>'


@pytest.fixture(autouse=True)
def _room(script: Script) -> None:
    """A model long enough for descriptions of tools."""
    script.max_seq_len = 4096


def pieces(text: str, cuts: list[int], inside: bool = False) -> tuple[str, list[dict[str, str]]]:
    """What a parser makes of a text that comes in parts."""
    parser, content, calls = CallParser(inside=inside), "", []
    bounds = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    found = []
    for start, end in itertools.pairwise(bounds):
        found += parser.push(text[start:end])
    for piece in (*found, *parser.finish()):
        if piece.kind == "text":
            content += piece.text
        elif piece.kind == "call":
            calls.append({"name": piece.name, "arguments": ""})
        else:
            calls[piece.index]["arguments"] += piece.text
    return content, calls


@given(st.lists(st.integers(0, 500), max_size=30))
def test_calls_are_read_however_the_text_is_cut(cuts: list[int]) -> None:
    content, calls = pieces(f"Je regarde. {CALL}\n{CALL.replace('weather', 'time')}", cuts)
    assert content == "Je regarde. "
    arguments = '{"city": "Orléans }\\" {"}'
    assert calls == [{"name": "weather", "arguments": arguments}, {"name": "time", "arguments": arguments}]
    assert json.loads(arguments) == {"city": 'Orléans }" {'}


@given(st.text(alphabet='<tool_call>/{}"name: x', max_size=60), st.lists(st.integers(0, 100), max_size=10))
def test_text_without_calls_stays_as_it_is(text: str, cuts: list[int]) -> None:
    content, calls = pieces(text, cuts)
    if not calls:
        assert content == text


@pytest.mark.parametrize(
    ("text", "arguments"),
    [('{"name":"f","arguments":{}}', "{}"), ('{ "name" : "f", "arguments" : [1, {"a": 2}] }', '[1, {"a": 2}]')],
)
def test_required_calls_begin_inside(text: str, arguments: str) -> None:
    assert pieces(text, list(range(40)), inside=True) == ("", [{"name": "f", "arguments": arguments}])


def test_a_broken_call_is_told_as_text() -> None:
    assert pieces("<tool_call>\nnot json</tool_call> after", [5, 20])[0] == "<tool_call>\nnot json</tool_call> after"
    assert pieces("<tool_call>\n{", [])[1] == []
    assert pieces("a < b", [1, 2, 3])[0] == "a < b"


def test_conversations_with_tools_become_plain_turns() -> None:
    use = ToolUse((Tool("weather", parameters=PARAMETERS),))
    calls = [{"name": "weather", "arguments": '{"city":"x"}'}]
    messages = [
        {"role": "system", "content": "Sois bref."},
        *QUESTION,
        {"role": "assistant", "content": "", "tool_calls": calls * 2},
        {"role": "tool", "content": "12°"},
        {"role": "tool", "content": "13°"},
    ]
    turns = plain_messages(messages, use)
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant", "user"]
    assert turns[0]["content"].startswith("Sois bref.\n\n# Tools")
    assert '"name": "weather"' in turns[0]["content"]
    assert turns[2]["content"].count("<tool_call>") == 2
    assert turns[3]["content"] == "<tool_response>\n12°\n</tool_response>\n<tool_response>\n13°\n</tool_response>"
    assert plain_messages(QUESTION, ToolUse()) == QUESTION


def test_a_call_is_answered_as_a_call(client: openai.OpenAI, script: Script, tokenizer: Tokenizer) -> None:
    script.answer = CALL
    answer = client.chat.completions.create(model="petit", messages=QUESTION, tools=[WEATHER, TIME])
    choice = answer.choices[0]
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    (call,) = choice.message.tool_calls
    assert (call.type, call.function.name) == ("function", "weather")
    assert json.loads(call.function.arguments) == {"city": 'Orléans }" {'}
    assert "# Tools" in tokenizer.decode(script.asked[0][0])
    script.answer = "Il pleut."
    after = [
        *QUESTION,
        choice.message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "pluie"},
    ]
    for message in after:
        message.pop("annotations", None) if isinstance(message, dict) else None
    answer = client.chat.completions.create(model="petit", messages=after, tools=[WEATHER])
    assert answer.choices[0].message.content == "Il pleut."
    assert "<tool_response>\npluie" in tokenizer.decode(script.asked[1][0])


def test_calls_are_streamed(client: openai.OpenAI, script: Script) -> None:
    script.answer = f"Voyons. {CALL}\n{CALL}"
    with client.chat.completions.stream(model="petit", messages=QUESTION, tools=[WEATHER]) as stream:
        for _ in stream:
            pass
        message = stream.get_final_completion().choices[0].message
    assert message.content == "Voyons. "
    assert [call.function.name for call in message.tool_calls] == ["weather", "weather"]
    assert len({call.id for call in message.tool_calls}) == 2
    assert all(json.loads(call.function.arguments) for call in message.tool_calls)
    chunks = list(client.chat.completions.create(model="petit", messages=QUESTION, tools=[WEATHER], stream=True))
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    parts = [c.choices[0].delta.tool_calls[0].function.arguments for c in chunks if c.choices[0].delta.tool_calls]
    assert len(parts) > 4  # arguments come as they are drawn


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_a_required_call_is_drawn_by_a_grammar(
    choice: Any, client: openai.OpenAI, script: Script, tokenizer: Tokenizer
) -> None:
    script.answer = '{"name":"weather","arguments":{"city":"x"}}'
    answer = client.chat.completions.create(model="petit", messages=QUESTION, tools=[WEATHER, TIME], tool_choice=choice)
    assert answer.choices[0].message.tool_calls[0].function.arguments == '{"city":"x"}'
    prompt, sampling, _ = script.asked[0]
    assert tokenizer.decode(prompt).endswith("<tool_call>\n")
    schema = json.loads(sampling.grammar.value)
    named = schema["anyOf"][0] if choice == "required" else schema
    assert named["properties"]["arguments"] == PARAMETERS | {"additionalProperties": False}
    assert named["properties"]["name"] == {"const": "weather"}


def test_without_tools_marks_are_text(client: openai.OpenAI, script: Script) -> None:
    script.answer = CALL
    for more in ({}, {"tools": [WEATHER], "tool_choice": "none"}):
        answer = client.chat.completions.create(model="petit", messages=QUESTION, **more)
        assert answer.choices[0].message.content == CALL
        assert answer.choices[0].message.tool_calls is None


def test_formats_reach_the_engine_as_grammars(client: openai.OpenAI, script: Script) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    formats = [
        {"type": "text"},
        {"type": "json_object"},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}},
    ]
    for format in formats:
        client.chat.completions.create(model="petit", messages=QUESTION, response_format=format)
    plain, some, exact = (sampling.grammar for _, sampling, _ in script.asked)
    assert plain is None
    assert (some.kind, some.value) == ("json_object", "")
    assert (exact.kind, json.loads(exact.value)) == ("json_schema", schema)
    client.chat.completions.create(model="petit", messages=QUESTION, response_format=formats[2], tools=[WEATHER])
    assert script.asked[-1][1].grammar.kind == "lark"


@pytest.mark.parametrize(
    "change",
    [
        {"tools": [WEATHER, WEATHER]},
        {"tool_choice": "required"},
        {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "other"}}},
        {"tools": [{"type": "function", "function": {"name": "a b"}}]},
        {"tools": [{"type": "function", "function": {"name": "a", "parameters": {"x": "y" * 70_000}}}]},
        {"tools": [{"type": "web_search"}]},
        {"tools": [WEATHER] * 129},
        {"top_logprobs": 3},
        {"top_logprobs": 21, "logprobs": True},
        {"response_format": {"type": "yaml"}},
        {"messages": [{"role": "user"}]},
        {"functions": [FUNCTION], "tool_choice": "auto"},
        {"functions": [FUNCTION], "function_call": {"name": "other"}},
        {"function_call": {"name": "weather"}},
        {"messages": [{"role": "function", "content": "x"}]},
        {"messages": [{"role": "user", "content": "x", "function_call": {"name": "f", "arguments": "{}"}}]},
        {"messages": [{"role": "tool", "content": "x"}]},
        {"messages": [{"role": "user", "content": "x", "tool_call_id": "y"}]},
        {"audio": {"voice": "x", "format": "wav"}},
    ],
)
def test_requests_that_cannot_be(change: dict[str, Any], client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(**{"model": "petit", "messages": QUESTION, **change})


def test_functions_are_answered_in_their_older_form(
    client: openai.OpenAI, script: Script, tokenizer: Tokenizer
) -> None:
    """`functions` and `function_call`, deprecated and in use: one call, streamed too, its answer of the role function."""
    asked: dict[str, Any] = {"model": "petit", "messages": QUESTION, "functions": [FUNCTION]}
    script.answer = CALL
    choice = client.chat.completions.create(**asked).choices[0]
    assert (choice.finish_reason, choice.message.content, choice.message.tool_calls) == ("function_call", None, None)
    assert choice.message.function_call.name == "weather"
    assert json.loads(choice.message.function_call.arguments) == {"city": 'Orléans }" {'}
    chunks = list(client.chat.completions.create(**asked, stream=True))
    parts = [chunk.choices[0].delta.function_call for chunk in chunks if chunk.choices[0].delta.function_call]
    assert parts[0].name == "weather"
    assert "".join(part.arguments for part in parts) == choice.message.function_call.arguments
    assert chunks[-1].choices[0].finish_reason == "function_call"
    assert all(sampling.grammar.kind == "lark" for _, sampling, _ in script.asked)  # one call at most
    script.answer = "Il pleut."
    said = [choice.message.model_dump(exclude_none=True, exclude={"annotations"})]
    said.append({"role": "function", "name": "weather", "content": "pluie"})
    after = client.chat.completions.create(**(asked | {"messages": [*QUESTION, *said]}))
    assert after.choices[0].message.content == "Il pleut."
    prompt = tokenizer.decode(script.asked[-1][0])
    assert '<tool_call>\n{"name": "weather"' in prompt
    assert "<tool_response>\npluie" in prompt


def test_the_newer_form_wins_where_both_are_given(client: openai.OpenAI, script: Script) -> None:
    """As the SDK's own tests send them: all parameters at once."""
    script.answer = CALL
    both: dict[str, Any] = {"functions": [{"name": "time"}], "function_call": "none", "tools": [WEATHER]}
    choice = client.chat.completions.create(model="petit", messages=QUESTION, **both).choices[0]
    assert (choice.finish_reason, choice.message.function_call) == ("tool_calls", None)
    assert choice.message.tool_calls[0].function.name == "weather"


@pytest.mark.parametrize("choice", ["none", {"name": "weather"}])
def test_function_call_chooses(choice: Any, client: openai.OpenAI, script: Script) -> None:
    script.answer = "Non." if choice == "none" else '{"name":"weather","arguments":{"city":"x"}}'
    answer = client.chat.completions.create(
        model="petit", messages=QUESTION, functions=[FUNCTION, {"name": "time"}], function_call=choice
    )
    message = answer.choices[0].message
    assert (message.content, message.function_call is None) == (("Non.", True) if choice == "none" else (None, False))


def test_likeliest_tokens_are_given(client: openai.OpenAI, script: Script) -> None:
    answer = client.chat.completions.create(model="petit", messages=QUESTION, logprobs=True, top_logprobs=3)
    rows = answer.choices[0].logprobs.content
    assert all(len(row.top_logprobs) == 3 for row in rows)
    assert script.asked[0][1].top_logprobs == 3
    got = client.completions.create(model="petit", prompt="Quelle", max_tokens=2, logprobs=3)
    assert all(len(row) >= 1 for row in got.choices[0].logprobs.top_logprobs)


def test_the_prompt_is_what_the_format_says(client: openai.OpenAI, script: Script, tokenizer: Tokenizer) -> None:
    client.chat.completions.create(model="petit", messages=QUESTION, tools=[WEATHER])
    use = ToolUse((Tool("weather", "Le temps", PARAMETERS),))
    assert script.asked[0][0] == chat_format(tokenizer).prompt(plain_messages(QUESTION, use))
