"""What of attached files goes into a prompt."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causerie.chat.passages import MOST, Room, Said, prompt_of

from .conftest import Served
from .test_api import ask, new_conversation, tree


def words(text: str) -> int:
    return len(text.split())


WIDE = Room(words, 10_000)
FILLER = "Nothing was seen of note that day, nor on the next one. " * 12


def file(name: str, text: str) -> dict[str, Any]:
    return {"name": name, "text": text}


def test_short_files_are_given_whole_before_their_question_and_numbered_through() -> None:
    way = [
        Said("user", "First?", [file("a.txt", "Alpha"), file("b.txt", "Beta")]),
        Said("assistant", "One."),
        Said("user", "Second?", [file("c.txt", "Gamma")]),
    ]
    found = prompt_of(way, WIDE)
    assert found.passages is None
    assert [message["content"] for message in found.messages] == [
        "[1] a.txt\nAlpha\n\n[2] b.txt\nBeta\n\nFirst?",
        "One.",
        "[3] c.txt\nGamma\n\nSecond?",
    ]


def test_of_long_files_the_passages_that_answer_the_last_question_stand_before_it() -> None:
    log = (
        FILLER * 4 + "The keeper of Ouessant was Aveline. " + FILLER * 4 + "Her boat was called Mouette. " + FILLER * 4
    )
    way = [
        Said("system", "Be brief."),
        Said("user", "Who kept Ouessant?", [file("log.txt", log)]),
        Said("assistant", "Aveline."),
    ]
    way.append(Said("user", "What was her boat called?"))
    room = Room(words, 400)
    found = prompt_of(way, room)
    assert found.passages
    assert any("Mouette" in one["text"] for one in found.passages)
    assert [message["content"] for message in found.messages[:3]] == ["Be brief.", "Who kept Ouessant?", "Aveline."]
    last = found.messages[3]["content"]
    assert last.endswith("\n\nWhat was her boat called?")
    for number, one in enumerate(found.passages, 1):
        assert f"[{number}] log.txt\n{one['text']}" in last
        assert one["text"] in log
    assert [one["part"] for one in found.passages] == sorted(one["part"] for one in found.passages)
    first = prompt_of(way[:2], room)
    assert any("Aveline" in one["text"] for one in first.passages or ())


def test_a_question_that_shares_no_word_gets_the_beginning() -> None:
    found = prompt_of([Said("user", "Zzz?", [file("log.txt", FILLER * 9)])], Room(words, 400))
    assert [one["part"] for one in found.passages or ()][:2] == [1, 2]


def test_without_room_for_any_passage_the_question_stands_alone() -> None:
    found = prompt_of([Said("user", "What?", [file("log.txt", FILLER * 9)])], Room(words, 20))
    assert found.passages == []
    assert found.messages == [{"role": "user", "content": "What?"}]


def test_an_answer_that_goes_on_gets_the_passages_it_had() -> None:
    way = [Said("user", "Who?", [file("log.txt", FILLER * 9)])]
    had = [{"name": "log.txt", "text": "Something else.", "part": 3, "parts": 9}]
    found = prompt_of(way, Room(words, 400), had)
    assert found.passages == had
    assert found.messages[0]["content"] == "[1] log.txt\nSomething else.\n\nWho?"


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.text(st.sampled_from("abc éà.\n \U0001f642"), max_size=900), min_size=1, max_size=3),
    room=st.integers(10, 400),
    question=st.text(st.sampled_from("abc é?"), min_size=1, max_size=40),
)
def test_whatever_the_files_the_prompt_keeps_to_its_room(texts: list[str], room: int, question: str) -> None:
    way = [Said("user", question, [file(f"{number}.txt", text) for number, text in enumerate(texts)])]
    found = prompt_of(way, Room(len, room))
    assert found.messages[-1]["content"].endswith(question)
    if found.passages is not None:
        assert len(found.passages) <= MOST
        assert len(found.messages[-1]["content"]) <= max(room, len(question))
        assert all(one["text"] in texts[int(one["name"][0])] for one in found.passages)


@pytest.fixture
def long_file(served: Served) -> dict[str, Any]:
    served.script.length = 900
    return file("long.txt", "La mer est bleue. " * 300 + "Aveline kept the light. " + "La mer est bleue. " * 300)


def test_citations_of_passages_quote_them_here_and_in_exports(served: Served, long_file: dict[str, Any]) -> None:
    served.script.answer = lambda _prompt, _seed: "She did [1]."
    talk = new_conversation(served)
    ask(served, talk, content="Who kept the light?", attachments=[long_file])
    question, answer = tree(served, talk)
    assert question["files"] == [{"name": "long.txt", "size": len(long_file["text"])}]
    assert answer["files"] == []
    passages = answer["passages"]
    assert any("Aveline" in one["text"] for one in passages)
    (note,) = answer["annotations"]
    assert (note["number"], note["filename"], note["quote"]) == (1, "long.txt", passages[0]["text"])
    assert "Aveline" in served.script.prompts[-1]
    exported = served.send("GET", f"/api/conversations/{talk}/export?format=md").text
    assert "> [1] long.txt: " + " ".join(note["quote"].split()) in exported


def test_the_other_answer_and_the_rest_of_a_cut_one_have_their_passages(
    served: Served, long_file: dict[str, Any]
) -> None:
    talk = new_conversation(served)
    ask(served, talk, content="Who kept the light?", attachments=[long_file], params={"max_tokens": 3})
    question, cut = tree(served, talk)
    ask(served, talk, continues=cut["id"], params={"max_tokens": 200})
    ask(served, talk, parent=question["id"])
    given = [message["passages"] for message in tree(served, talk)[1:]]
    assert given[0] == given[1] != []
    assert given[2]
    short = new_conversation(served)
    ask(served, short, content="Who?", attachments=[file("short.txt", "Aveline.")])
    assert tree(served, short)[1]["passages"] == []


@pytest.mark.parametrize(("tokens", "kept"), [(200, 7), (88, 7), (87, 5), (66, 5), (65, 3), (43, 1), (5, 1)])
def test_of_a_conversation_that_is_too_long_the_newest_exchanges_stay(tokens: int, kept: int) -> None:
    said = [Said("user" if i % 2 == 0 else "assistant", f"this is message {i}") for i in range(7)]
    found = prompt_of([Said("system", "Be brief."), *said], Room(lambda text: 3, tokens))
    assert [one["content"] for one in found.messages] == ["Be brief.", *(one.content for one in said[-kept:])]
    assert found.left_out == 7 - kept
    assert found.messages[1]["role"] == "user"


def test_files_of_what_is_left_out_are_left_out() -> None:
    way = [Said("user", "word " * 40, [file("a.txt", "Alpha")]), Said("assistant", "One."), Said("user", "And now?")]
    found = prompt_of(way, Room(words, 30))
    assert (found.left_out, found.passages) == (2, None)
    assert found.messages == [{"role": "user", "content": "And now?"}]
