"""Streams: pieces join to the whole text, stop strings end them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causerie.text import StopStrings, StreamDecoder, Tokenizer


@given(text=st.text(max_size=40), cuts=st.lists(st.integers(0, 60), max_size=6))
@settings(max_examples=150, deadline=None)
def test_pieces_join_to_the_text(text: str, cuts: list[int], tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(text)
    places = [0, *sorted(min(cut, len(ids)) for cut in cuts), len(ids)]
    stream = StreamDecoder(tokenizer)
    pieces = [stream.push(ids[a:b]) for a, b in pairwise(places)]
    assert "".join(pieces) + stream.finish() == text
    assert all("\ufffd" not in piece or "\ufffd" in text for piece in pieces)


def test_an_emoji_comes_out_whole(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("🙂")
    stream = StreamDecoder(tokenizer)
    assert [stream.push([id]) for id in ids] == [""] * (len(ids) - 1) + ["🙂"]
    assert stream.finish() == ""


def test_a_character_that_never_ends_is_replaced(tokenizer: Tokenizer) -> None:
    stream = StreamDecoder(tokenizer)
    assert stream.push(tokenizer.encode("a🙂")[:-1]) == "a"
    assert stream.finish() == "\ufffd"


@given(ids=st.lists(st.integers(0, 699), max_size=30))
@settings(max_examples=100, deadline=None)
def test_any_ids_decode_as_the_whole_does(ids: list[int], tokenizer: Tokenizer) -> None:
    ids = [id for id in ids if id < tokenizer.vocab_size]
    stream = StreamDecoder(tokenizer)
    assert "".join(stream.push([id]) for id in ids) + stream.finish() == tokenizer.decode(ids)


def cut_by(stops: list[str], pieces: list[str]) -> tuple[str, bool]:
    stream = StopStrings(stops)
    text = "".join(stream.push(piece) for piece in pieces)
    return text + stream.finish(), stream.stopped


@given(
    text=st.text(alphabet="ab ", max_size=20),
    stops=st.lists(st.text(alphabet="ab ", min_size=1, max_size=4), max_size=3),
    data=st.data(),
)
def test_the_text_is_cut_at_the_first_stop_string(text: str, stops: list[str], data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 5))
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    shown, stopped = cut_by(stops, pieces)
    ends = [end for end in range(len(text) + 1) if any(text[:end].endswith(stop) for stop in stops)]
    assert stopped == bool(ends)
    if stopped:
        assert text.startswith(shown)
        assert not any(stop in shown for stop in stops)
    else:
        assert shown == text


@pytest.mark.parametrize(
    ("stops", "pieces", "shown"),
    [
        (["\n\n"], ["un\n", "deux\n", "\ntrois"], "un\ndeux"),
        (["Human:"], ["a Hu", "man", ": b"], "a "),
        (["abc"], ["ab", "d"], "abd"),
        ([], ["tout"], "tout"),
        ([""], ["tout"], "tout"),
    ],
)
def test_examples(stops: list[str], pieces: list[str], shown: str) -> None:
    assert cut_by(stops, pieces)[0] == shown


def test_text_is_held_back_only_while_it_may_begin_a_stop_string() -> None:
    stream = StopStrings(["END"])
    assert stream.push("the E") == "the "
    assert stream.push("N") == ""
    assert stream.push("ough E") == "ENough "
    assert stream.push("ND and more") == ""
    assert stream.stopped
    assert stream.push("x") == ""
