"""From any mixture of votes to training rows: what must hold whatever people do, by generated votes.

The reference beside the code is a plain count over each pair of answers and each answer, written without its data
structures.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import settings as how
from hypothesis import strategies as st

from causerie.feedback import Exposure, Signal
from causerie.feedback.derive import Derived, derive, is_held_out, split
from causerie.feedback.standing import Records, standing

QUESTIONS = ("Why?", "When?", "Where?")
ANSWERS = {
    f"e{number}": Exposure(
        id=f"e{number}",
        model="home",
        user="ada",
        prompt=({"role": "user", "content": QUESTIONS[number // 3]},),
        text=f"Answer {number}.",
        consent=True,
        created=float(number),
    )
    for number in range(9)
}
NAMES = list(ANSWERS)
PEOPLE = ("ada", "bob", "eve")

thumbs = st.tuples(st.just("thumb"), st.sampled_from(NAMES), st.booleans(), st.sampled_from(PEOPLE))
choices = st.tuples(
    st.just("choice"),
    st.tuples(st.integers(0, 2), st.permutations(range(3))),
    st.sampled_from(["chosen", "chosen", "tie"]),
    st.sampled_from(PEOPLE),
)
edits = st.tuples(
    st.just("edit"), st.sampled_from(NAMES), st.sampled_from(["Better.", "Answer 4."]), st.sampled_from(PEOPLE)
)
kept = st.tuples(
    st.just("regenerate"), st.tuples(st.integers(0, 2), st.permutations(range(3))), st.none(), st.sampled_from(PEOPLE)
)
votes = st.lists(st.one_of(thumbs, choices, edits, kept), max_size=25)


def said(rows: list[tuple]) -> Records:
    """The records of generated votes, each a moment later than the one before."""
    signals = []
    for number, (kind, where, value, user) in enumerate(rows):
        if kind in ("choice", "regenerate"):
            question, order = where
            first, second = (f"e{question * 3 + place}" for place in order[:2])
            body = {"others": [second], "outcome": value} if kind == "choice" else {"discarded": [second]}
        else:
            first, body = where, ({"label": value} if kind == "thumb" else {"text": value})
        signals.append(Signal(first, user, kind, body, id=f"s{number:03}", created=float(number)))
    return Records(dict(ANSWERS), signals)


def rows_of(derived: Derived) -> list[dict]:
    return [*derived.pairs, *derived.unpaired, *derived.sft]


@how(max_examples=40, deadline=None)
@given(votes)
def test_labels_are_the_majority_and_weighted_by_its_margin(rows: list[tuple]) -> None:
    records = standing(said(rows))
    expected = {}
    for name, answer in ANSWERS.items():
        says = [
            signal.value["label"] for signal in records.signals if (signal.exposure_id, signal.kind) == (name, "thumb")
        ]
        net = sum(1 if up else -1 for up in says)
        if net:
            expected[answer.text] = (net > 0, pytest.approx(abs(net) / len(says), abs=1e-4))
    found = {row["completion"]: (row["label"], row["weight"]) for row in derive(records).unpaired}
    assert found == expected


@how(max_examples=40, deadline=None)
@given(votes)
def test_pairs_follow_the_choices_of_most(rows: list[tuple]) -> None:
    """Kept against discarded counts half a choice; where opinions are even there is no pair."""
    records = standing(said(rows))
    found = {(row["chosen"], row["rejected"]) for row in derive(records).pairs}
    for first, second in combinations(NAMES, 2):
        balance = 0.0
        for signal in records.signals:
            if signal.kind in ("choice", "regenerate") and {signal.exposure_id, *signal.others} == {first, second}:
                weight = 0.5 if signal.kind == "regenerate" else float(signal.value["outcome"] == "chosen")
                balance += weight if signal.exposure_id == first else -weight
        one, two = ANSWERS[first].text, ANSWERS[second].text
        if balance > 0:
            assert (one, two) in found
        if balance < 0:
            assert (two, one) in found


@how(max_examples=40, deadline=None)
@given(votes)
def test_no_row_contradicts_itself_and_all_name_their_signals(rows: list[tuple]) -> None:
    records = standing(said(rows))
    derived = derive(records)
    known = {signal.id for signal in records.signals}
    assert set(derived.signal_ids()) <= known
    for row in rows_of(derived):
        assert row["signals"]
        assert set(row["signals"]) <= known
        assert 0 < row.get("weight", 1.0) <= 1
    for row in derived.pairs:
        assert row["chosen"] != row["rejected"]
        assert row["chosen"].strip()
    ids = [row["id"] for row in rows_of(derived)]
    assert len(ids) == len(set(ids))


@how(max_examples=40, deadline=None)
@given(votes, st.randoms(use_true_random=False))
def test_neither_order_of_reading_nor_the_mirror_changes_the_rows(rows: list[tuple], random: object) -> None:
    """Rows do not hang on the order in which the store lists signals; a world of turned thumbs has turned labels."""
    records = standing(said(rows))
    shuffled = list(records.signals)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert derive(Records(records.exposures, shuffled)).pairs == derive(records).pairs
    turned = [replace(s, value={"label": not s.value["label"]}) if s.kind == "thumb" else s for s in records.signals]
    mirrored = derive(Records(records.exposures, turned)).unpaired
    assert [{**row, "label": not row["label"]} for row in mirrored] == derive(records).unpaired


@how(max_examples=40, deadline=None)
@given(votes, st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_a_question_is_on_one_side_and_nothing_is_lost(rows: list[tuple], share: float) -> None:
    derived = derive(standing(said(rows)))
    sides = split(derived, share)
    assert sorted(row["id"] for side in sides for row in rows_of(side)) == sorted(row["id"] for row in rows_of(derived))
    opened = [{row.get("messages", row.get("prompt"))[0]["content"] for row in rows_of(side)} for side in sides]
    assert not opened[0] & opened[1]
    assert all(is_held_out([{"role": "user", "content": text}], share) for text in opened[1])


@how(max_examples=40, deadline=None)
@given(votes, st.integers(1, 4))
def test_a_cap_counts_the_newest_of_each_and_tells_the_rest(rows: list[tuple], most: int) -> None:
    free, capped = standing(said(rows)), standing(said(rows), max_per_user=most)
    spoken = Counter(signal.user for signal in free.signals)
    assert Counter(signal.user for signal in capped.signals) == {user: min(n, most) for user, n in spoken.items()}
    assert capped.left_out["over_user_cap"] == sum(max(0, n - most) for n in spoken.values())
    for user in spoken:
        newest = sorted((s.created, s.id) for s in free.signals if s.user == user)[-most:]
        assert sorted((s.created, s.id) for s in capped.signals if s.user == user) == newest


@how(max_examples=40, deadline=None)
@given(votes)
def test_the_last_word_of_each_person_stands(rows: list[tuple]) -> None:
    """Of two thumbs of one person on one answer the later; of two choices between the same two answers the later."""
    records = said(rows)
    kept_rows = standing(records)
    assert len(kept_rows.signals) + kept_rows.left_out["superseded"] == len(records.signals)
    for user in PEOPLE:
        for name in NAMES:
            mine = [s for s in records.signals if (s.user, s.exposure_id, s.kind) == (user, name, "thumb")]
            standing_now = [s for s in kept_rows.signals if s in mine]
            assert standing_now == mine[-1:]


@how(max_examples=40, deadline=None)
@given(votes, st.sampled_from(PEOPLE))
def test_a_person_whose_words_are_gone_leaves_no_trace_in_the_rows(rows: list[tuple], gone: str) -> None:
    """The rows of the others are what they would be had that person never voted."""
    without = [row for row in rows if row[3] != gone]
    all_of_them = standing(said(rows))
    rest = Records(all_of_them.exposures, [s for s in all_of_them.signals if s.user != gone])

    def bare(derived: Derived) -> list[dict]:
        return sorted(
            ({k: v for k, v in row.items() if k not in ("signals", "id")} for row in rows_of(derived)), key=repr
        )

    assert bare(derive(rest)) == bare(derive(standing(said(without))))
