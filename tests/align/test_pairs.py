"""Rows to token ids: shared prompts, end-of-turn, cutting that empties nothing, counted bad rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causerie.align.pairs import fit_length, read_pairs, read_votes, votes_of_pairs
from causerie.core import CauserieError, write_jsonl
from causerie.text import ChatFormat, load_chat_format

from .conftest import ask


@pytest.fixture
def chat(tiny: Path) -> ChatFormat:
    return load_chat_format(tiny)


def test_prompt_and_answer_ids_are_those_of_the_rendered_conversation(chat: ChatFormat, tmp_path: Path) -> None:
    messages = [*ask("the cat"), {"role": "assistant", "content": "sat"}, *ask("and the dog?")]
    path = tmp_path / "pairs.jsonl"
    write_jsonl(path, [{"prompt": messages, "chosen": " yes, on a mat\n", "rejected": ""}])
    (pair,) = read_pairs(path, chat, 256).rows
    rendered = chat.render([*messages, {"role": "assistant", "content": "yes, on a mat"}])
    whole = [*pair.prompt, *pair.chosen]
    assert rendered.ids[: len(whole)] == whole
    assert pair.chosen[-1] == chat.end_id
    assert chat.tokenizer.decode(pair.chosen) == "yes, on a mat"
    assert pair.rejected == (chat.end_id,)  # an empty answer that somebody rejected is still a lesson
    assert not any(rendered.mask[len(whole) :])


def test_unusable_rows_are_counted_by_reason(chat: ChatFormat, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    good = {"prompt": ask("the cat"), "chosen": "yes", "rejected": "no"}
    rows = [
        good,
        {**good, "chosen": "  "},
        {**good, "rejected": "yes "},
        {**good, "prompt": "the cat"},
        {**good, "prompt": []},
        {**good, "prompt": [{"role": "nobody", "content": "x"}]},
        {**good, "rejected": None},
        {**good, "weight": 0},
        {**good, "weight": True},
        {**good, "weight": float("inf")},
        {**good, "weight": 0.5},
    ]
    write_jsonl(path, rows)
    found = read_pairs(path, chat, 256)
    assert [pair.weight for pair in found.rows] == [1.0, 0.5]
    assert found.counts["malformed"] == 7
    assert found.counts["empty chosen answer"] == 1
    assert found.counts["both answers the same"] == 1


def test_votes(chat: ChatFormat, tmp_path: Path) -> None:
    path = tmp_path / "unpaired.jsonl"
    good = {"prompt": ask("the cat"), "completion": "yes", "label": True}
    write_jsonl(
        path, [good, {**good, "completion": "", "label": False}, {**good, "completion": ""}, {**good, "label": 1}]
    )
    found = read_votes(path, chat, 256)
    assert [vote.liked for vote in found.rows] == [True, False]
    assert found.counts == {"empty liked answer": 1, "malformed": 1, "cut": 0}


def test_a_pair_is_a_liked_and_a_disliked_answer(chat: ChatFormat, preferences: Path) -> None:
    pairs = read_pairs(preferences / "pairs.jsonl", chat, 256).rows
    votes = votes_of_pairs(pairs)
    assert [(vote.completion, vote.liked) for vote in votes[:2]] == [
        (pairs[0].chosen, True),
        (pairs[0].rejected, False),
    ]


def test_a_missing_file_holds_no_rows_and_a_broken_line_costs_only_itself(
    chat: ChatFormat, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read_pairs(tmp_path / "none.jsonl", chat, 256).rows == ()
    bad = tmp_path / "bad.jsonl"
    good = json.dumps({"prompt": ask("the cat"), "chosen": "yes", "rejected": "no"}).encode()
    bad.write_bytes(b"{\n" + good + b"\n\n[1]\n\xff\n" + good[:-4] + b"\n" + good + b"\n")
    found = read_pairs(bad, chat, 256)
    assert len(found.rows) == 2
    assert found.counts["not a JSON object"] == 4
    said = capsys.readouterr().err.replace("\n", "")
    assert all(f"bad.jsonl:{line}" in said for line in (1, 4, 5, 6))


def test_answers_made_equal_by_cutting_are_left_out(chat: ChatFormat, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    write_jsonl(path, [{"prompt": ask("cat"), "chosen": "the " * 50 + "yes", "rejected": "the " * 50 + "no"}])
    assert read_pairs(path, chat, 40).counts["both answers the same"] == 1
    assert read_pairs(path, chat, 256).counts["cut"] == 0


@given(
    prompt=st.integers(1, 40),
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    max_length=st.integers(2, 30),
)
def test_cutting_fits_and_empties_nothing(prompt: int, lengths: list[int], max_length: int) -> None:
    ids = tuple(range(100, 100 + prompt))
    completions = tuple(tuple(range(length)) for length in lengths)
    cut, kept = fit_length(ids, completions, max_length)
    assert cut
    assert all(kept)
    assert len(cut) + max(map(len, kept)) <= max_length or (len(cut), max(map(len, kept))) == (prompt, max(lengths))
    assert ids[-len(cut) :] == cut  # the end of the prompt stays, with the assistant's header
    assert all(whole[: len(part)] == part for whole, part in zip(completions, kept, strict=True))
    if prompt + max(lengths) <= max_length:
        assert (cut, kept) == (ids, completions)


def test_impossible_length_is_an_error() -> None:
    with pytest.raises(CauserieError):
        fit_length((1,), ((2,),), 1)
