"""Each reward on answers good, bad and odd."""

from __future__ import annotations

import pytest

from causerie.align.rewards import Answer, each
from causerie.align.rewards.answer_format import answer_format
from causerie.align.rewards.arithmetic import exact_answer, last_number
from causerie.align.rewards.instructions import instructions_followed
from causerie.align.rewards.overlong import overlong_punishment
from causerie.core import CauserieError
from causerie.evals import follows


def answer(text: str, row: dict | None = None, tokens: int = 3, truncated: bool = False) -> Answer:
    return Answer(row or {}, (1, 2), tuple(range(tokens)), text, truncated)


@pytest.mark.parametrize(
    ("text", "wanted", "expected"),
    [
        ("12 + 30 = 42", "42", 1.0),
        ("The answer is 42.", "42", 1.0),
        ("42, or rather 43", "42", 0.0),
        ("-7", "-7", 1.0),
        ("−7", "-7", 1.0),
        ("1,000 apples", "1000", 1.0),
        ("0.50", "1/2", 1.0),
        ("#### 72", "She sold 48/2 = 24 clips. #### 72", 1.0),
        ("no idea", "42", 0.0),
        ("", "42", 0.0),
        ("3/0", "3", 0.0),
        ("9" * 5000, "9", 0.0),
        ("42", "no number", 0.0),
        ("x42", "42", 0.0),
    ],
)
def test_exact_answer(text: str, wanted: str, expected: float) -> None:
    assert exact_answer({"answer": wanted}, text) == expected


def test_numbers_are_compared_as_numbers() -> None:
    assert last_number("2000/2") == last_number("1,000.0") == 1000
    assert exact_answer({"answer": 5}, "5") == 1.0
    assert exact_answer({}, "5") == 0.0


@pytest.mark.parametrize(
    ("row", "text", "expected"),
    [
        ({}, "one line", 1.0),
        ({}, "two\nlines", 0.0),
        ({}, "  ", 0.0),
        ({"format": {"starts": "Answer:", "max_chars": 12}}, "Answer: 4", 1.0),
        ({"format": {"starts": "Answer:", "max_chars": 8}}, "Answer: 4", 0.0),
        ({"format": {"contains": "=", "ends": "4"}}, "2+2=4", 1.0),
        ({"format": {"contains": "="}}, "four", 0.0),
        ({"format": "nonsense"}, "four", 0.0),
    ],
)
def test_answer_format(row: dict, text: str, expected: float) -> None:
    assert answer_format(row, text) == expected


def test_instructions_are_checked_by_the_evaluations_checker() -> None:
    row = {
        "instruction_id_list": ["punctuation:no_comma", "change_case:english_lowercase"],
        "kwargs": [{}, None],
    }
    judge = instructions_followed(follows)
    good, both = "the cat sat on the mat and was happy", "the cat sat on the mat, and was happy"
    assert judge([answer(good, row), answer(both.title(), row), answer(both, row)]) == [1, 0, 0.5]


def test_a_row_without_instructions_is_refused_with_its_place() -> None:
    with pytest.raises(CauserieError) as refused:
        instructions_followed(follows)([answer("x", {"id": "row-7"})])
    assert refused.value.code == "CAU-4105"
    assert "row-7" in str(refused.value.where)


def test_overlong_punishment_is_a_ramp() -> None:
    judge = overlong_punishment(10, 4)
    lengths = [1, 6, 7, 8, 10]
    assert judge([answer("", tokens=n) for n in lengths]) == [0, 0, -0.25, -0.5, -1.0]
    assert judge([answer("", tokens=10, truncated=True)]) == [-1.0]


def test_each_keeps_the_order() -> None:
    assert each(lambda row, text: float(len(text)))([answer("a"), answer("abc")]) == [1.0, 3.0]
