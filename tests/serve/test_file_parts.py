"""Files in messages: by id and with the request, in chat completions and responses; what is no text is refused."""

from __future__ import annotations

import base64
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from causerie.serve import create_app, create_key
from causerie.serve.chat_shapes import ChatMessage
from causerie.store import Store
from causerie.text import Tokenizer
from tests.serve.conftest import Running, Script, Start, serving

TEXT = "L'été 🙂\n"
QUESTION = {"type": "text", "text": "Quoi ?"}


@pytest.fixture(autouse=True)
def _room(script: Script) -> None:
    """A model long enough for a file."""
    script.max_seq_len = 4096


def data_of(content: bytes, url: bool = True) -> str:
    """Content as clients send it."""
    return ("data:text/plain;base64," if url else "") + base64.b64encode(content).decode()


def kept(client: openai.OpenAI, content: bytes = TEXT.encode(), name: str = "été.txt") -> str:
    """The id of a file of the project."""
    return client.files.create(file=(name, content), purpose="user_data").id


def chat(client: openai.OpenAI, *files: dict[str, Any]) -> Any:
    """A question with files, by chat completions."""
    parts = [QUESTION, *({"type": "file", "file": file} for file in files)]
    return client.chat.completions.create(model="petit", messages=[{"role": "user", "content": parts}])


def respond(client: openai.OpenAI, *files: dict[str, Any], **more: Any) -> Any:
    """The same by responses."""
    parts = [{"type": "input_text", "text": "Quoi ?"}, *({"type": "input_file", **file} for file in files)]
    return client.responses.create(model="petit", input=[{"role": "user", "content": parts}], **more)


@pytest.mark.parametrize("ask", [chat, respond])
def test_the_model_reads_what_the_file_says(
    ask: Any, client: openai.OpenAI, script: Script, tokenizer: Tokenizer
) -> None:
    given_data = {"filename": 'a"b.md', "file_data": data_of(b"\xef\xbb\xbf# Un")}
    ask(client, {"file_id": kept(client)}, given_data, {"file_data": data_of(b"deux", url=False)})
    prompt = tokenizer.decode(script.asked[-1][0])
    wanted = (f'<file name="été.txt">\n{TEXT}\n</file>', '<file name="a\'b.md">\n# Un\n</file>', "deux\n</file>")
    places = [prompt.index(text) for text in wanted]
    assert prompt.index("Quoi ?") < places[0] < places[1] < places[2]


def test_a_response_keeps_the_file_and_goes_on_from_it(
    client: openai.OpenAI, script: Script, tokenizer: Tokenizer
) -> None:
    id = kept(client)
    first = respond(client, {"file_id": id})
    (item,) = client.responses.input_items.list(first.id).data
    assert (item.content[1].type, item.content[1].file_id) == ("input_file", id)
    assert getattr(item.content[1], "text", None) is None
    client.responses.create(model="petit", input="Et ?", previous_response_id=first.id)
    assert f"\n{TEXT}\n</file>" in tokenizer.decode(script.asked[-1][0])
    with_file = [{"type": "input_text", "text": "Quoi ?"}, {"type": "input_file", "file_id": id}]
    counted = client.responses.input_tokens.count(model="petit", input=[{"role": "user", "content": with_file}])
    assert counted.input_tokens == len(script.asked[0][0])
    client.files.delete(id)
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model="petit", input="Et ?", previous_response_id=first.id)


def test_what_a_tool_gave_may_be_a_file(client: openai.OpenAI, script: Script, tokenizer: Tokenizer) -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    parts = [{"type": "input_file", "file_data": data_of(b"trois"), "filename": "x"}]
    output = {"type": "function_call_output", "call_id": "c", "output": parts}
    client.responses.create(model="petit", input=[call, output])
    assert '<tool_response>\n<file name="x">\ntrois\n</file>' in tokenizer.decode(script.asked[-1][0])


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ({"file_data": data_of(b"\xff\xd8\xff")}, "unsupported_file"),
        ({"file_data": data_of(b"a\0b")}, "unsupported_file"),
        ({"file_data": data_of(b"a" * (2**20 + 1))}, "unsupported_file"),
        ({"file_data": "data:text/plain;base64,@@"}, "invalid_value"),
        ({"file_id": "file-nothing"}, "file_not_found"),
        ({"file_id": "file-a", "file_data": data_of(b"a")}, "invalid_value"),
        ({"filename": "a"}, "invalid_value"),
    ],
)
@pytest.mark.parametrize("ask", [chat, respond])
def test_files_that_cannot_be_read_are_refused(
    ask: Any, file: dict[str, Any], code: str, client: openai.OpenAI, script: Script
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, file)
    assert caught.value.code == code
    assert not script.asked


@pytest.mark.parametrize("ask", [chat, respond])
def test_too_many_files_are_refused(ask: Any, client: openai.OpenAI, script: Script) -> None:
    with pytest.raises(openai.BadRequestError):
        ask(client, *[{"file_data": data_of(b"a")}] * 65)
    assert not script.asked


@pytest.mark.parametrize("ask", [chat, respond])
def test_nobody_reads_the_file_of_another_project(
    ask: Any, start: Start, shared_pool: Any, store: Store, folder: Any, home: Any, script: Script
) -> None:
    app = create_app(
        shared_pool, store=store, workspace=home, keys_required=True, lifespans=[serving(shared_pool, folder)]
    )
    url = start(app).url
    both = ("inference", "platform")
    mine, yours = (create_key(store, name, project=name, scopes=both)[1] for name in ("mine", "yours"))
    narrow = create_key(store, "narrow", project="mine", scopes=("inference",))[1]
    with openai.OpenAI(base_url=f"{url}/v1", api_key=mine, max_retries=0) as client:
        id = kept(client)
        ask(client, {"file_id": id})
    script.asked.clear()
    with (
        openai.OpenAI(base_url=f"{url}/v1", api_key=yours, max_retries=0) as client,
        pytest.raises(openai.BadRequestError) as caught,
    ):
        ask(client, {"file_id": id})
    assert caught.value.code == "file_not_found"
    with (
        openai.OpenAI(base_url=f"{url}/v1", api_key=narrow, max_retries=0) as client,
        pytest.raises(openai.PermissionDeniedError, match=r"file\.read"),
    ):
        ask(client, {"file_id": id})
    assert not script.asked


parts = st.lists(st.one_of(st.text("ab", max_size=3), st.none()), min_size=1, max_size=6)


@given(parts)
def test_texts_take_the_places_of_the_files(given_parts: list[str | None]) -> None:
    """None stands for a file; its text is its number."""
    content: list[Any] = [
        {"type": "file", "file": {"file_id": "f"}} if part is None else {"type": "text", "text": part}
        for part in given_parts
    ]
    message = ChatMessage.model_validate({"role": "user", "content": content})
    files = [part for part in given_parts if part is None]
    assert len(message.files) == len(files)
    numbers = iter(range(len(files)))
    wanted = "".join(f"<{next(numbers)}>" if part is None else part for part in given_parts)
    assert message.with_texts(iter([f"<{number}>" for number in range(len(files))])).text == wanted


def test_rows_to_train_on_have_no_files(client: openai.OpenAI, server: Running) -> None:
    from causerie.serve.fine_tuning.training_files import read_training_file

    row = b'{"messages":[{"role":"user","content":[{"type":"file","file":{"file_id":"f"}}]},{"role":"assistant","content":"a"}]}'
    rows = read_training_file(row, "supervised")
    assert not rows.rows
    assert "has a file" in str(rows.complaint())
