"""Statistics against scipy and plain counting; files of every packing; sets whose names meet; reports that add up."""

from __future__ import annotations

import gzip
import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from causerie.core import CauserieError
from causerie.evals import choice
from causerie.evals.choice_sets import read_set
from causerie.evals.last_word import split_passage
from causerie.evals.results import Item, Metric, SuiteResult, compare, estimate
from causerie.evals.rows import read_rows, spread
from causerie.evals.statistics import (
    bootstrap_ratio,
    cluster_sums,
    holm,
    paired_difference,
    permutation_p,
    wilson,
)
from causerie.evals.subject import Subject

RATES = st.lists(st.booleans(), min_size=2, max_size=11)


@settings(max_examples=60)
@given(trials=st.integers(1, 3_000), share=st.floats(0, 1), confidence=st.floats(0.5, 0.999))
def test_wilsons_interval_is_scipys_everywhere(trials: int, share: float, confidence: float) -> None:
    successes = round(share * trials)
    ours = wilson(successes, trials, confidence)
    theirs = stats.binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert ours.low <= ours.value <= ours.high
    mirrored = wilson(trials - successes, trials, confidence)
    assert (1 - mirrored.high, 1 - mirrored.low) == pytest.approx((ours.low, ours.high), abs=1e-12)


@settings(max_examples=40)
@given(values=st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_follows_its_definition(values: list[float]) -> None:
    adjusted = holm(values)
    for index, p in enumerate(values):
        ranked = sorted(values)
        steps = [min(1.0, (len(values) - place) * other) for place, other in enumerate(ranked) if other <= p]
        assert adjusted[index] == pytest.approx(max(steps))
    order = np.argsort(values)
    assert np.all(np.diff(np.array(adjusted)[order]) >= -1e-12)
    assert all(p <= q <= 1 for p, q in zip(values, adjusted, strict=True))


@settings(max_examples=40, deadline=None)
@given(first=RATES, seed=st.integers(0, 99))
def test_the_exact_permutation_test_is_scipys(first: list[bool], seed: int) -> None:
    generator = np.random.default_rng(seed)
    a = np.array(first, float)
    b = generator.integers(0, 2, len(a)).astype(float)
    ones = np.ones(len(a))
    ours = permutation_p((a, ones), (b, ones), seed=0)
    theirs = stats.permutation_test(
        (a, b), lambda x, y, axis: np.abs(x.mean(axis) - y.mean(axis)), permutation_type="samples", alternative="greater",
        n_resamples=np.inf, vectorized=True,
    )  # fmt: skip
    assert ours == pytest.approx(theirs.pvalue, abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(
    values=st.lists(st.tuples(st.floats(-5, 5), st.integers(1, 9)), min_size=2, max_size=40), seed=st.integers(0, 9),
    factor=st.floats(0.1, 10),
)  # fmt: skip
def test_a_bootstrap_moves_with_its_unit_and_not_with_the_order(
    values: list[tuple[float, int]], seed: int, factor: float
) -> None:
    top, weights = (np.array(column, float) for column in zip(*values, strict=True))
    plain, scaled = (bootstrap_ratio(times * top, weights, seed=seed) for times in (1.0, factor))
    assert plain.low is not None
    assert (scaled.value, scaled.low, scaled.high) == pytest.approx(
        (factor * plain.value, factor * plain.low, factor * plain.high), rel=1e-9, abs=1e-9
    )
    assert plain.value == pytest.approx(float(np.sum(top) / np.sum(weights)))
    low, high = (top / weights).min(), (top / weights).max()
    assert low - 1e-9 <= plain.low <= plain.high <= high + 1e-9


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(-9, 9)), min_size=1, max_size=20))
def test_cluster_sums_are_a_counters(rows: list[tuple[str, int]]) -> None:
    expected: Counter[str] = Counter()
    for name, value in rows:
        expected[name] += value
    order = list(dict.fromkeys(name for name, _ in rows))
    found = cluster_sums([value for _, value in rows], [name for name, _ in rows])
    assert found.tolist() == [expected[name] for name in order]


def test_a_pair_of_samples_that_agree_everywhere_differ_by_nothing() -> None:
    values, ones = np.array([0.0, 1.0, 1.0, 0.0, 1.0]), np.ones(5)
    found = paired_difference((values, ones), (values, ones), seed=3)
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_the_paired_interval_is_narrower_than_the_unpaired_one_where_models_agree() -> None:
    generator = np.random.default_rng(0)
    hard = generator.normal(0, 2, 300)
    a, b = hard + generator.normal(0.1, 0.1, 300), hard + generator.normal(0, 0.1, 300)
    ones = np.ones(300)
    paired = paired_difference((a, ones), (b, ones), seed=0)
    alone = [bootstrap_ratio(side, ones, seed=0) for side in (a, b)]
    assert paired.low > 0.05
    assert paired.high - paired.low < 0.2 * min(one.high - one.low for one in alone)
    theirs = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (paired.low, paired.high) == pytest.approx((theirs.low, theirs.high), abs=0.005)


ITEMS = st.lists(
    st.tuples(st.integers(0, 30), st.booleans(), st.booleans()), min_size=1, max_size=20, unique_by=lambda row: row[0]
)


def suite(rows: list[tuple[int, bool]]) -> SuiteResult:
    items = tuple(Item(str(number), {"right": float(value)}) for number, value in rows)
    return SuiteResult("s", (Metric("right", "higher", "x"),), items)


@settings(max_examples=50)
@given(rows=ITEMS, missing=st.sets(st.integers(0, 30)), seed=st.integers(0, 9))
def test_comparisons_use_what_both_hold_and_count_the_rest(
    rows: list[tuple[int, bool, bool]], missing: set[int], seed: int
) -> None:
    ours = suite([(number, first) for number, first, _ in rows])
    theirs = suite([(number, second) for number, _, second in rows if number not in missing])
    shared = [row for row in rows if row[0] not in missing]
    if not shared:
        if theirs.items:
            with pytest.raises(CauserieError):
                compare([ours], [theirs], seed=seed)
        return
    (found,) = compare([ours], [theirs], seed=seed)
    assert found.unmatched == len(rows) - len(shared)
    gain = sum(first - second for _, first, second in shared) / len(shared)
    assert found.difference.value == pytest.approx(gain)
    (turned,) = compare([theirs], [ours], seed=seed)
    assert turned.difference.value == pytest.approx(-gain)
    assert turned.difference.p == pytest.approx(found.difference.p)
    assert estimate(ours, "right", seed=seed).method == "wilson"


ROWS = [
    {"id": n, "text": f"a {n} é\u2028", "question": "Two and two?", "choices": ["3", "4"], "answer": 1}
    for n in range(7)
]
PACKERS = {".jsonl": bytes, ".jsonl.gz": gzip.compress, ".jsonl.zst": zstandard.compress}


def lines(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


@pytest.mark.parametrize("ending", PACKERS)
def test_rows_are_read_whatever_they_are_packed_with(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"x{ending}"
    path.write_bytes(PACKERS[ending](lines(ROWS[:4])) + PACKERS[ending](lines(ROWS[4:])))  # two members or frames
    assert [row for _, row in read_rows(path)] == ROWS
    assert [where for where, _ in read_rows(path)] == [f"{path}:{number}" for number in range(1, 8)]
    assert len(read_set(path)[1]) == 7


@pytest.mark.parametrize("ending", [".jsonl.gz", ".jsonl.zst"])
def test_a_packed_file_that_breaks_off_is_refused_with_its_place(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"x{ending}"
    path.write_bytes(PACKERS[ending](lines(ROWS * 9))[:-6])
    with pytest.raises(CauserieError, match="breaks off") as caught:
        list(read_rows(path))
    assert caught.value.code == "CAU-1006"
    assert caught.value.where.startswith(f"{path}:")


def test_rows_in_another_encoding_are_refused_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"text": "a"}\n' + '{"text": "été"}\n'.encode("latin-1"))
    with pytest.raises(CauserieError) as caught:
        list(read_rows(path))
    assert (caught.value.code, caught.value.where) == ("CAU-1006", f"{path}:2")


def test_two_sets_of_one_name_are_both_measured(tmp_path: Path, subject: Subject) -> None:
    """`arc/test.jsonl` and `piqa/test.jsonl` are called the same; neither may hide the other."""
    for name, count in (("arc", 3), ("piqa", 5)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "test.jsonl").write_bytes(lines(ROWS[:count]))
    found = choice.run(subject, [tmp_path / "arc" / "test.jsonl", tmp_path / "piqa" / "test.jsonl"])
    assert [metric.name for metric in found.metrics] == ["test", "test.sum", "test#2", "test#2.sum", "mean_of_sets"]
    assert Counter(item.id.rpartition("/")[0] for item in found.items) == {"test": 3, "test#2": 5}


def test_the_mean_of_sets_gives_each_set_the_same_weight(tmp_path: Path, subject: Subject) -> None:
    for name, count in (("a", 2), ("b", 7)):
        (tmp_path / f"{name}.jsonl").write_bytes(lines(ROWS[:count]))
    found = choice.run(subject, [tmp_path / "a.jsonl", tmp_path / "b.jsonl"])
    single = [estimate(found, name, seed=0).value for name in ("a", "b")]
    assert estimate(found, "mean_of_sets", seed=0).value == pytest.approx(sum(single) / 2)


CHOICE_ROWS = {
    "letters": {"question": "Q", "choices": ["x", "y", "z"], "answer": "C"},
    "small letters": {"question": "Q", "choices": ["x", "y", "z"], "answer": "c"},
    "index": {"question": "Q", "choices": ["x", "y", "z"], "answer": 2},
    "text": {"question": "Q", "choices": ["x", "y", "zed"], "answer": "zed"},
}


@pytest.mark.parametrize("form", CHOICE_ROWS)
def test_an_answer_is_an_index_a_letter_or_the_choice(tmp_path: Path, form: str) -> None:
    (tmp_path / "q.jsonl").write_bytes(lines([CHOICE_ROWS[form]]))
    ((question,),) = read_set(tmp_path / "q.jsonl")[1:]
    assert question.answer == 2
    assert question.contexts == ("Question: Q\nAnswer:",) * 3


@pytest.mark.parametrize("answer", [3, -1, "D", "w", None, 1.5, ["x"]])
def test_an_answer_that_is_none_of_the_choices_is_refused(tmp_path: Path, answer: object) -> None:
    (tmp_path / "q.jsonl").write_bytes(lines([{"question": "Q", "choices": ["x", "y", "z"], "answer": answer}]))
    with pytest.raises(CauserieError) as caught:
        read_set(tmp_path / "q.jsonl")
    assert (caught.value.code, caught.value.where) == ("CAU-4204", f"{tmp_path / 'q.jsonl'}:1")


@given(st.lists(st.text(alphabet="abé.", min_size=1, max_size=6), min_size=2, max_size=8))
def test_a_passage_and_its_last_word_make_the_passage(words: list[str]) -> None:
    context, word = split_passage({"text": " ".join(words)}, "f:1")
    assert f"{context} {word}" == " ".join(words)
    assert word == words[-1]
    assert split_passage({"context": f"{context}  ", "continuation": f" {word}"}, "f:1") == (context, word)


@given(items=st.lists(st.integers(), max_size=60), limit=st.integers(0, 70))
def test_a_sample_is_even(items: list[int], limit: int) -> None:
    chosen = spread(list(enumerate(items)), limit)
    assert len(chosen) == (min(limit, len(items)) if limit else len(items))
    places = [place for place, _ in chosen]
    assert places == sorted(set(places))
    assume(len(places) > 2)
    gaps = [after - before for before, after in itertools.pairwise(places)]
    assert max(gaps) - min(gaps) <= 1


def test_a_table_of_no_rows_belongs_to_no_set(tmp_path: Path) -> None:
    pq.write_table(pa.table({"goal": pa.array([], pa.string())}), tmp_path / "piqa.parquet")
    with pytest.raises(CauserieError) as caught:
        read_set(tmp_path / "piqa.parquet")
    assert caught.value.code == "CAU-4207"


def test_a_drawn_permutation_test_never_says_that_chance_is_impossible() -> None:
    """Phipson and Smyth: what was observed counts among the draws, so p is at least one in their number."""
    ones = np.ones(40)
    assert permutation_p((ones, ones), (np.zeros(40), ones), seed=0) == pytest.approx(1 / 2001)
