"""Custom tools (plain text, free or held to a grammar), some tools allowed, one call at most: chat and responses."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from causerie.core import CauserieError
from causerie.infer import Grammar
from causerie.infer.grammar import Grammars
from causerie.serve.tool_calls import CallParser
from causerie.serve.tools import InputFormat, Tool, ToolUse, plain_messages
from causerie.text import Tokenizer
from tests.serve.conftest import Running, Script

ASK: dict[str, Any] = {"model": "petit", "messages": [{"role": "user", "content": "Combien ?"}]}
SUM = "start: NUMBER (SIGN NUMBER)?\nSIGN: /[+-]/\nNUMBER: /[0-9]{1,3}/\n"
LARK = {"type": "grammar", "grammar": {"syntax": "lark", "definition": SUM}}
REGEX = {"type": "grammar", "grammar": {"syntax": "regex", "definition": r"\d{2}/[a-f]{1,4}"}}


def custom(name: str, format: Any = None, **more: Any) -> dict[str, Any]:
    """A custom tool of chat completions."""
    return {"type": "custom", "custom": {"name": name, **({"format": format} if format else {}), **more}}


def function(name: str) -> dict[str, Any]:
    """A function of chat completions."""
    city = {"type": "object", "properties": {"city": {"enum": ["Nice", "Lyon"]}}, "required": ["city"]}
    return {"type": "function", "function": {"name": name, "parameters": city}}


def flat(tool: dict[str, Any]) -> dict[str, Any]:
    """A tool of chat completions as responses know it."""
    inner = dict(tool[tool["type"]])
    if inner.get("format", {}).get("grammar"):
        inner["format"] = {"type": "grammar", **inner["format"]["grammar"]}
    return {"type": tool["type"], **inner}


@pytest.fixture(autouse=True)
def _room(script: Script) -> None:
    """A model long enough for descriptions of tools."""
    script.max_seq_len = 4096


def read(text: str, cuts: list[int], inside: bool = False) -> tuple[str, list[tuple[str, bool, str]]]:
    """Content and calls of a text that comes in parts."""
    parser, content, calls = CallParser(inside, frozenset({"sum", "run"})), "", list[list[Any]]()
    bounds = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    found = [piece for start, end in itertools.pairwise(bounds) for piece in parser.push(text[start:end])]
    for piece in (*found, *parser.finish()):
        if piece.kind == "text":
            content += piece.text
        elif piece.kind == "call":
            calls.append([piece.name, piece.custom, ""])
        else:
            assert piece.custom == calls[piece.index][1]
            calls[piece.index][2] += piece.text
    return content, [(name, kind, words) for name, kind, words in calls]


inputs = st.text(alphabet='ab</tool_c>:{}"\n é', max_size=40).filter(
    lambda text: "</tool_call>" not in text and not (text + "\n</tool_call>").startswith("</tool_call>")
)


@given(st.lists(inputs, min_size=1, max_size=3), st.lists(st.integers(0, 400), max_size=20))
def test_inputs_are_read_as_they_were_written(texts: list[str], cuts: list[int]) -> None:
    written = "".join(f"<tool_call>\nrun:\n{text}\n</tool_call>\n" for text in texts)
    assert read("Voyons. " + written, cuts) == ("Voyons. ", [("run", True, text) for text in texts])


@given(inputs, st.lists(st.integers(0, 400), max_size=20))
def test_an_answer_that_was_cut_keeps_what_came(text: str, cuts: list[int]) -> None:
    assert read(f"run:\n{text}", cuts, inside=True) == ("", [("run", True, text)])


@pytest.mark.parametrize(
    ("text", "content", "calls"),
    [
        ("<tool_call>\nother:\nx\n</tool_call>", "<tool_call>\nother:\nx\n</tool_call>", []),  # there is no such tool
        ('<tool_call>{"name":"sum","arguments":{"input":"1"}}</tool_call>', "", [("sum", True, '{"input":"1"}')]),
        ('<tool_call>{"name":"f","arguments":{}}</tool_call>', "", [("f", False, "{}")]),
        (
            '<tool_call>\nsum:\n1</tool_call> and <tool_call>{"name":"f","arguments":{}}</tool_call>',
            " and ",
            [("sum", True, "1"), ("f", False, "{}")],
        ),
    ],
)
def test_calls_of_both_kinds(text: str, content: str, calls: list[Any]) -> None:
    for cuts in ([], list(range(len(text)))):
        assert read(text, cuts) == (content, calls)


SLASHES = InputFormat("regex", "a/b\n[0-9]+\\/x")
TOOLS = (
    Tool("sum", custom=True, format=InputFormat("lark", SUM)),
    Tool("run", custom=True),
    Tool("when", parameters={"type": "object", "properties": {"day": {"enum": [1, 2]}}, "required": ["day"]}),
    Tool("path", custom=True, format=SLASHES),
)
WHEN = '{"name":"when","arguments":{"day":1}}'


def marked(call: str) -> str:
    """A call between its marks."""
    return f"<tool_call>\n{call}\n</tool_call>"


FREE, ONE = ToolUse(TOOLS), ToolUse(TOOLS, single=True)
SOME = ToolUse(TOOLS, allowed=frozenset({"run", "when"}))
MUST = ToolUse(TOOLS, required=True)
PLAN = Grammar.json_schema({"enum": ["oui"]})


@pytest.mark.parametrize(
    ("use", "answer", "whole", "never"),
    [
        (
            MUST,
            None,
            ["sum:\n1+22", "run:\n{\n", WHEN, "path:\na/b\n12/x"],
            ["sum:\n1+a", "sum:\n1234", "no:\n", "Oui"],
        ),
        (
            FREE,
            None,
            ["Oui.", "Oui " + marked("sum:\n7") + marked(WHEN) + " non"],
            [marked("sum:\nx"), marked("no:\n")],
        ),
        (ONE, None, ["Oui.", "Oui " + marked(WHEN)], [marked(WHEN) + marked(WHEN), marked(WHEN) + " non"]),
        (SOME, None, [marked("run:\nls -l"), marked(WHEN), "Oui."], [marked("sum:\n1"), marked("path:\na/b\n1/x")]),
        (FREE, PLAN, ['"oui"', marked("sum:\n1") + "\n" + marked(WHEN)], ["oui", '"non"', '"oui"' + marked(WHEN)]),
    ],
    ids=["must", "free", "one", "some", "format"],
)
def test_a_turn_is_held_to_what_was_asked(
    use: ToolUse, answer: Grammar | None, whole: list[str], never: list[str], tokenizer: Tokenizer
) -> None:
    """By the engine's own library of grammars, token by token."""
    grammar = use.grammar(answer)
    assert grammar is not None
    grammars = Grammars(lambda: tokenizer, tokenizer.vocab_size)
    for text in whole:
        matcher = grammars.start(grammar)
        assert all(matcher.accept(token) for token in tokenizer.encode(text)), text
        assert matcher.may_stop, text
    for text in never:
        matcher = grammars.start(grammar)
        assert not all(matcher.accept(token) for token in tokenizer.encode(text)), text


def test_free_text_with_plain_tools_is_held_to_nothing() -> None:
    assert ToolUse((Tool("a"), Tool("b", custom=True))).grammar(None) is None
    assert ToolUse(TOOLS, allowed=frozenset()).grammar(PLAN) is PLAN


@pytest.mark.parametrize("definition", ["start: nothing", "start: /(/", "{}", "start: @format_1", 'start: "a'])
def test_a_wrong_grammar_is_refused_in_words(definition: str, tokenizer: Tokenizer) -> None:
    grammar = ToolUse((Tool("x", custom=True, format=InputFormat("lark", definition)),), required=True).grammar(None)
    assert grammar is not None
    with pytest.raises(CauserieError) as caught:
        Grammars(lambda: tokenizer, tokenizer.vocab_size).start(grammar)
    assert caught.value.code == "CAU-3110"


def test_the_model_is_told_of_both_kinds_and_shown_its_calls() -> None:
    calls = [{"name": "run", "input": "ls\n-l"}, {"name": "when", "arguments": '{"day":1}'}]
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "", "tool_calls": calls}]
    system, _, told = plain_messages(said, SOME)
    assert told["content"] == marked("run:\nls\n-l") + "\n" + marked('{"name": "when", "arguments": {"day":1}}')
    lines = re.findall(r'^\{"type".*$', system["content"], re.MULTILINE)
    assert [json.loads(line)["type"] for line in lines] == ["custom", "custom", "function", "custom"]
    assert json.loads(lines[0])["custom"]["format"] == {"syntax": "lark", "definition": SUM}
    assert "To call a custom tool" in system["content"]
    assert "To call a function" in system["content"]


def test_a_custom_call_is_answered_and_goes_back(client: openai.OpenAI, script: Script, tokenizer: Tokenizer) -> None:
    script.answer = "Je compte. " + marked("sum:\n1+2") + "\n" + marked('{"name":"city","arguments":{"city":"Nice"}}')
    tools = [custom("sum", LARK, description="Adds"), function("city")]
    answer = client.chat.completions.create(**ASK, tools=tools).choices[0]
    assert (answer.finish_reason, answer.message.content) == ("tool_calls", "Je compte.")
    first, second = answer.message.tool_calls
    assert (first.type, first.custom.name, first.custom.input) == ("custom", "sum", "1+2")
    assert (second.type, second.function.name) == ("function", "city")
    said = [answer.message.model_dump(exclude_none=True, exclude={"annotations"})]
    said += [{"role": "tool", "tool_call_id": call.id, "content": "3"} for call in (first, second)]
    client.chat.completions.create(model="petit", messages=[*ASK["messages"], *said], tools=tools)
    assert marked("sum:\n1+2") in tokenizer.decode(script.asked[-1][0])


def test_custom_calls_are_streamed(client: openai.OpenAI, script: Script) -> None:
    """As OpenAI's server sends them; its specification has no word for them yet (openai-openapi issue 576)."""
    script.answer = "Bien. " + marked("run:\nprint(1)\nprint(2)")
    asked = {**ASK, "tools": [custom("run")]}
    chunks = list(client.chat.completions.create(**asked, stream=True))
    parts = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
    opening, *rest = [part.model_dump(exclude_unset=True) for part in parts]
    assert (opening["type"], opening["custom"]) == ("custom", {"name": "run", "input": ""})
    assert opening["id"].startswith("call_")
    assert "".join(part["custom"]["input"] for part in rest) == "print(1)\nprint(2)"
    assert len(rest) > 3
    assert all(part.keys() == {"index", "custom"} for part in rest)
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_responses_have_custom_calls_with_typed_events(client: openai.OpenAI, script: Script) -> None:
    script.answer = "Bien. " + marked("sum:\n40+2")
    tools = [flat(custom("sum", LARK)), flat(function("city")) | {"strict": False}]
    said = client.responses.create(model="petit", input="Combien ?", tools=tools)
    _, call = said.output
    assert (call.type, call.name, call.input, call.status) == ("custom_tool_call", "sum", "40+2", "completed")
    assert call.id.startswith("ctc_")
    assert said.tools[0].format.syntax == "lark"
    events = list(client.responses.create(model="petit", input="Combien ?", tools=tools, stream=True))
    kinds = [event.type for event in events]
    deltas = [event.delta for event in events if event.type == "response.custom_tool_call_input.delta"]
    done = [event for event in events if event.type == "response.custom_tool_call_input.done"]
    assert "".join(deltas) == done[0].input == "40+2"
    assert done[0].item_id == events[-1].response.output[1].id
    assert kinds.index("response.custom_tool_call_input.delta") > kinds.index("response.output_item.added")
    script.answer = "42."
    output = {"type": "custom_tool_call_output", "call_id": call.call_id, "output": "42"}
    after = client.responses.create(model="petit", previous_response_id=said.id, input=[output], tools=tools)
    kept = client.responses.input_items.list(after.id).data
    assert [(item.type, item.status) for item in kept] == [("custom_tool_call_output", "completed")]
    again = [call, output]
    assert client.responses.create(model="petit", input=again, tools=tools, store=False).output_text == "42."


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_all_tools_are_told_and_the_allowed_may_be_called(
    mode: str, client: openai.OpenAI, script: Script, tokenizer: Tokenizer
) -> None:
    tools = [function("city"), function("town"), custom("run")]
    named = [{"type": "function", "function": {"name": "town"}}]
    script.answer = '{"name":"town","arguments":{"city":"Nice"}}'
    script.answer = marked(script.answer) if mode == "auto" else script.answer
    chosen = {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": named}}
    answer = client.chat.completions.create(**ASK, tools=tools, tool_choice=chosen).choices[0]
    assert answer.message.tool_calls[0].function.name == "town"
    same = {"type": "allowed_tools", "mode": mode, "tools": [{"type": "function", "name": "town"}]}
    flat_tools = [flat(tools[0]) | {"strict": True}, flat(tools[1]) | {"strict": True}, flat(tools[2])]
    said = client.responses.create(model="petit", input="Combien ?", tools=flat_tools, tool_choice=same)
    assert said.output[0].name == "town"
    assert said.tool_choice.mode == mode
    client.chat.completions.create(**ASK, tools=tools)
    prompts = [tokenizer.decode(prompt) for prompt, _, _ in script.asked]
    assert all('"name": "city"' in prompt for prompt in prompts)
    if mode == "auto":  # so that what was read before is still in the cache
        assert prompts[0] == prompts[2]
    for _, sampling, _ in script.asked[:2]:
        assert '"town"' in sampling.grammar.value
        assert '"city"}' not in sampling.grammar.value


@pytest.mark.parametrize("kind", ["function", "custom"])
def test_one_tool_that_must_be_called(kind: str, client: openai.OpenAI, script: Script) -> None:
    tools = [function("city"), custom("city2")]
    name = {"function": "city", "custom": "city2"}[kind]
    script.answer = {"function": '{"name":"city","arguments":{"city":"Nice"}}', "custom": "city2:\nNice"}[kind]
    chosen = {"type": kind, kind: {"name": name}}
    (call,) = client.chat.completions.create(**ASK, tools=tools, tool_choice=chosen).choices[0].message.tool_calls
    assert (call.type, getattr(call, kind).name) == (kind, name)
    flat_tools = [flat(tools[0]) | {"strict": True}, flat(tools[1])]
    said = client.responses.create(model="petit", input="a", tools=flat_tools, tool_choice={"type": kind, "name": name})
    assert said.output[0].name == name
    assert said.tool_choice.name == name


def test_one_call_at_most_is_what_the_engine_is_held_to(client: openai.OpenAI, script: Script) -> None:
    for more, held in (({}, False), ({"parallel_tool_calls": True}, False), ({"parallel_tool_calls": False}, True)):
        client.chat.completions.create(**ASK, tools=[function("city")], **more)
        client.responses.create(model="petit", input="a", tools=[flat(function("city")) | {"strict": True}], **more)
        assert [bool(sampling.grammar) for _, sampling, _ in script.asked[-2:]] == [held] * 2


@pytest.mark.parametrize(
    "change",
    [
        {"tools": [custom("a"), function("a")]},
        {"tools": [custom("a b")]},
        {"tools": [custom("a", {"type": "grammar", "grammar": {"syntax": "ebnf", "definition": "x"}})]},
        {"tools": [custom("a", {"type": "grammar", "grammar": {"syntax": "lark", "definition": ""}})]},
        {"tools": [custom("a", {"type": "grammar", "grammar": {"syntax": "lark", "definition": "x" * 70_000}})]},
        {"tools": [custom("a")], "tool_choice": {"type": "custom", "custom": {"name": "b"}}},
        {"tools": [custom("a")], "tool_choice": {"type": "function", "custom": {"name": "a"}}},
        {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}},
        *(
            {"tools": [custom("a")], "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": m, "tools": t}}}
            for m, t in [
                ("required", []),
                ("some", [custom("a")]),
                ("auto", [custom("b")]),
                ("auto", [{"type": "custom", "name": "a"}]),
                ("auto", [{"type": "mcp", "server_label": "a"}]),
                ("auto", ["a"]),
            ]
        ),
    ],
)
def test_requests_that_cannot_be(change: dict[str, Any], client: openai.OpenAI, script: Script) -> None:
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(**ASK, **change)
    assert not script.asked


@pytest.mark.slow
def test_a_random_model_keeps_to_the_formats(real: Running) -> None:
    """Slow: a worker process loads torch. A random model writes a sum only when it is held to it."""
    tools = [custom("sum", LARK), custom("path", REGEX), custom("run"), function("city")]
    shapes = {"sum": r"\d{1,3}([+-]\d{1,3})?", "path": r"\d{2}/[a-f]{1,4}"}
    with openai.OpenAI(base_url=f"{real.url}/v1", api_key="x", max_retries=0) as client:
        for seed, name in itertools.product((1, 2), shapes):
            chosen = {"type": "custom", "custom": {"name": name}}
            asked = {**ASK, "tools": tools, "tool_choice": chosen, "max_tokens": 120, "seed": seed}
            (call,) = client.chat.completions.create(**asked).choices[0].message.tool_calls
            assert re.fullmatch(shapes[name], call.custom.input)
            parts = [
                part.custom["input"]
                for chunk in client.chat.completions.create(**asked, stream=True)
                for part in chunk.choices[0].delta.tool_calls or ()
            ]
            assert "".join(parts) == call.custom.input
        allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "custom", "name": "path"}]}
        said = client.responses.create(
            model="petit", input="Combien ?", tools=[flat(tools[0]), flat(tools[1])], tool_choice=allowed
        )
        assert re.fullmatch(shapes["path"], said.output[0].input)
        wrong = custom("x", {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: nothing"}})
        with pytest.raises(openai.BadRequestError, match="nothing"):
            client.chat.completions.create(**ASK, tools=[wrong])


@pytest.mark.slow
def test_a_hundred_and_twenty_eight_answers(real: Running) -> None:
    """Slow: shares the module's engine process. The most that OpenAI gives; the first is what one alone is."""
    with openai.OpenAI(base_url=f"{real.url}/v1", api_key="x", max_retries=0) as client:
        asked: dict[str, Any] = {**ASK, "max_tokens": 3, "seed": 4}
        alone = client.chat.completions.create(**asked).choices[0].message.content
        many = client.chat.completions.create(**asked, n=128)
        assert [choice.index for choice in many.choices] == list(range(128))
        assert many.choices[0].message.content == alone
        assert len({choice.message.content for choice in many.choices}) > 64
        ends = [
            chunk.choices[0].index
            for chunk in client.chat.completions.create(**asked, n=128, stream=True)
            if chunk.choices[0].finish_reason
        ]
        assert sorted(ends) == list(range(128))
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(**asked, n=129)
        assert len(client.completions.create(model="petit", prompt=["a", "b"], n=64, max_tokens=1).choices) == 128
