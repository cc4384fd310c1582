"""Multiple-choice loaders: simple JSONL, and the public sets' columns."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from causerie.core import CauserieError, write_jsonl
from causerie.evals.choice_sets import read_set

COUNTS = {
    "ai2_arc_ARC-Easy": ("arc_easy", 570),
    "ai2_arc_ARC-Challenge": ("arc_challenge", 299),
    "openbookqa": ("openbookqa", 500),
    "tau_commonsense_qa": ("commonsense_qa", 1221),
    "piqa": ("piqa", 1838),
    "sciq": ("sciq", 1000),
    "super_glue_copa": ("copa", 100),
    "super_glue_cb": ("cb", 56),
    "winogrande": ("winogrande", 1267),
    "boolq": ("boolq", 3270),
}


@pytest.mark.parametrize("stem", sorted(COUNTS))
def test_public_sets_are_read_whole(pack: Path, stem: str) -> None:
    (path,) = (pack / "eval" / "multiple_choice").glob(f"{stem}*.parquet")
    name, questions = read_set(path)
    assert (name, len(questions)) == COUNTS[stem]
    assert all(0 <= question.answer < len(question.endings) for question in questions)
    assert len({question.id for question in questions}) == len(questions)


ROWS = [
    (
        {"question": "Q?", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"},
        ("Question: Q?\nAnswer:", (" x", " y"), 1),
    ),
    ({"goal": "G", "sol1": "s", "sol2": "t", "label": 1}, ("Question: G\nAnswer:", (" s", " t"), 1)),
    (
        {"question_stem": "Ice is", "choices": {"text": ["hot", "cold"], "label": ["A", "B"]}, "answerKey": "B"},
        ("Ice is", (" hot", " cold"), 1),
    ),
    (
        {"support": " S.", "question": "Q", "correct_answer": "r"} | {f"distractor{n}": f"d{n}" for n in (1, 2, 3)},
        ("S.\nQuestion: Q\nAnswer:", (" d1", " d2", " d3", " r"), 3),
    ),
    (
        {"premise": "It rained.", "choice1": "We left.", "choice2": "It was hot.", "question": "effect", "label": 0},
        ("It rained therefore", (" we left.", " it was hot."), 0),
    ),
    (
        {"sentence": "Ann beat Eva so _ won.", "option1": "Ann", "option2": "Eva", "answer": "1"},
        ("Ann beat Eva so Ann", (" won.", " won."), 0),
    ),
    (
        {"passage": "P.", "question": "is it", "answer": True},
        ("P.\nQuestion: is it?\nAnswer:", (" no", " yes"), 1),
    ),
    (
        {"premise": "P", "hypothesis": "H", "label": 2},
        ("P\nQuestion: H. True, False, or Neither?\nAnswer:", (" True", " False", " Neither"), 2),
    ),
]


@pytest.mark.parametrize(("row", "expected"), ROWS)
def test_columns_tell_the_set(tmp_path: Path, row: dict, expected: tuple) -> None:
    parquet.write_table(pa.Table.from_pylist([row]), tmp_path / "some.parquet")
    _, (question,) = read_set(tmp_path / "some.parquet")
    assert (question.contexts[0], question.endings, question.answer) == expected


def test_winogrande_differs_in_its_contexts(tmp_path: Path) -> None:
    parquet.write_table(pa.Table.from_pylist([ROWS[5][0]]), tmp_path / "winogrande.parquet")
    name, (question,) = read_set(tmp_path / "winogrande.parquet")
    assert name == "winogrande"
    assert question.contexts == ("Ann beat Eva so Ann", "Ann beat Eva so Eva")


def test_unknown_tables_and_files_are_errors(tmp_path: Path) -> None:
    parquet.write_table(pa.Table.from_pylist([{"a": 1}]), tmp_path / "x.parquet")
    for path, code in ((tmp_path / "x.parquet", "CAU-4207"), (tmp_path / "none.parquet", "CAU-1001")):
        with pytest.raises(CauserieError) as caught:
            read_set(path)
        assert caught.value.code == code


@pytest.mark.parametrize(
    "row",
    [
        {"question": "q", "choices": ["a", "b"], "answer": 2},
        {"question": "q", "choices": ["a", "b"], "answer": "C"},
        {"question": "q", "choices": ["a", 1], "answer": 0},
        {"question": "q", "choices": "ab", "answer": 0},
        {"question": "q", "choices": ["a", ""], "answer": 0},
        {"question": "q", "answer": 0},
    ],
)
def test_malformed_rows_are_named(tmp_path: Path, row: dict) -> None:
    write_jsonl(tmp_path / "set.jsonl", [{"question": "q", "choices": ["a", "b"], "answer": 0}, row])
    with pytest.raises(CauserieError) as caught:
        read_set(tmp_path / "set.jsonl")
    assert (caught.value.code, caught.value.where) == ("CAU-4204", f"{tmp_path / 'set.jsonl'}:2")
