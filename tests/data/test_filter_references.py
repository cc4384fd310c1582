"""Every filter against the words of its paper, written out in plain Python; the ledger against its own documents."""

from __future__ import annotations

import json
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causerie.core import Artifact
from causerie.data import (
    DataBuildConfig,
    DownloadConfig,
    PackConfig,
    QualityTrainConfig,
    RefilterConfig,
    RemoveConfig,
    TraceConfig,
    build,
    read_ledger,
)
from causerie.data.boilerplate import LEAST_WORDS, LineCounter, cut_lines
from causerie.data.charts import funnel, histogram, rules_table, stacked, tiles
from causerie.data.config_json import config_from_json
from causerie.data.decontaminate import SHORTEST, eval_runs, load_runs, overlap, save_runs
from causerie.data.filters import MEASURES, failing, measure, quality_rules, view
from causerie.data.ledger import EXCERPT
from causerie.data.parquet_rows import RowWriter
from causerie.data.plan import batches_of, units_of
from causerie.data.report_facts import gather
from causerie.data.sources import find_sources
from tests.data.conftest import prose

LINES = st.lists(
    st.sampled_from(
        [
            "The cat is on the mat.",
            "- item one",
            "* b",
            "menu",
            "a b a b a b a b",
            "wait...",
            "…",
            "12 34 #",
            "{x}",
            "",
            "x" * 40,
            "le chat et la souris.",
        ]
    ),
    max_size=14,
).map("\n".join)


def plain_words(text: str) -> list[str]:
    """Runs of letters and digits, with apostrophes and hyphens between them, in lower case."""
    words, word = [], ""
    for sign in text.lower() + " ":
        if unicodedata.category(sign)[0] in "LN" or (sign in "'’-" and word):
            word += sign
        elif word:
            words.append(word.rstrip("'’-"))
            word = ""
    return words


def lines_of(text: str) -> list[str]:
    return [line.strip() for line in text.split("\n") if line.strip()]


def share(count: float, of: float) -> float:
    return count / max(of, 1)


STOPS = {
    *("the", "be", "to", "of", "and", "that", "have", "with"),
    *("le", "la", "les", "de", "des", "du", "et", "un", "une", "en", "que", "qui", "pour", "dans", "est", "pas"),
}
PAPER: dict[str, Callable[[str], float]] = {
    "words": lambda text: len(plain_words(text)),
    "mean_word_length": lambda text: share(sum(map(len, plain_words(text))), len(plain_words(text))),
    "symbol_ratio": lambda text: share(text.count("#") + text.count("...") + text.count("…"), len(plain_words(text))),
    "bullet_lines": lambda text: share(sum(line[0] in "•‣◦⁃∙●○*-–" for line in lines_of(text)), len(lines_of(text))),
    "ellipsis_lines": lambda text: share(
        sum(line.endswith(("...", "…")) for line in lines_of(text)), len(lines_of(text))
    ),
    "alphabetic_words": lambda text: share(
        sum(any(s.isalpha() for s in token) for token in text.split()), len(text.split())
    ),
    "stop_words": lambda text: len(STOPS & set(plain_words(text))),
    "repeated_lines": lambda text: share(len(lines_of(text)) - len(set(lines_of(text))), len(lines_of(text))),
    "repeated_line_characters": lambda text: share(
        sum(len(line) for place, line in enumerate(lines_of(text)) if line in lines_of(text)[:place]),
        sum(map(len, lines_of(text))),
    ),
    "curly_brackets": lambda text: share(len(re.findall("[{}]", text)), len(text)),
    "short_lines": lambda text: share(sum(len(line) < 30 for line in lines_of(text)), len(lines_of(text))),
    "lines_per_word": lambda text: share(len(lines_of(text)), len(plain_words(text))),
}


@pytest.mark.parametrize("name", PAPER)
@settings(max_examples=40)
@given(text=LINES)
def test_a_measure_is_what_its_paper_says(name: str, text: str) -> None:
    assert MEASURES[name](view(text)) == pytest.approx(PAPER[name](text))


@settings(max_examples=60)
@given(words=st.lists(st.sampled_from(["a", "bb", "ccc", "d"]), max_size=40), n=st.integers(2, 10))
def test_runs_of_words_are_counted_as_gophers_table_says(words: list[str], n: int) -> None:
    """The share of characters in the most frequent run, and in words of runs that came before, each word once."""
    runs = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    again, seen = set(), set()
    for place, run in enumerate(runs):
        if run in seen:
            again.update(range(place, place + n))
        seen.add(run)
    total = sum(map(len, words))
    found = view(" ".join(words))
    if n >= 5:
        expected = sum(len(words[place]) for place in again) / max(total, 1)
        assert MEASURES[f"repeated_{n}grams"](found) == pytest.approx(expected)
    if n <= 4:
        counts = Counter(runs)
        most = max(counts.values(), default=0)
        possible = (
            {min(1.0, sum(map(len, run)) * count / total) for run, count in counts.items() if count == most}
            if most > 1
            else {0.0}
        )
        assert any(MEASURES[f"top_{n}gram"](found) == pytest.approx(value) for value in possible)


@settings(max_examples=40)
@given(text=LINES, name=st.sampled_from(["min_words", "max_short_lines", "max_lines_per_word", "min_terminal_lines"]))
def test_a_looser_threshold_never_drops_more(text: str, name: str) -> None:
    strict = DataBuildConfig()
    loose = DataBuildConfig(**{name: 0 if name.startswith("min_") else 1e9})
    values = measure(view(text))
    assert set(failing(values, quality_rules(loose))) <= set(failing(values, quality_rules(strict)))


@settings(max_examples=40)
@given(
    pages=st.lists(
        st.lists(
            st.sampled_from(
                ["Sign up for our letter", "Share this page now", "one two", "| a b c |", "Unique words here"]
            ),
            max_size=4,
        ),
        max_size=9,
    ),
    least=st.integers(1, 5),
)
def test_lines_are_cut_that_stand_on_so_many_pages_of_a_site(
    tmp_path_factory: pytest.TempPathFactory, pages: list[list[str]], least: int
) -> None:
    counter = LineCounter(tmp_path_factory.mktemp("l"), 1 << 20)
    for number, page in enumerate(pages):
        counter.add(f"https://www.a.example/{number}", "\n".join(page))
        counter.add(f"https://{number}.example/", "\n".join(page))  # sites of one page repeat nothing
    repeated = counter.repeated(max(least, 2))
    counts = Counter(line for page in pages for line in set(page))
    gone = {
        line
        for line, count in counts.items()
        if count >= max(least, 2) and len(line.split()) >= LEAST_WORDS and line[0] != "|"
    }
    for number, page in enumerate(pages):
        text, cut = cut_lines(f"https://a.example/{number}", "\n".join(page), repeated)
        assert [line for line in text.split("\n") if line] == [line for line in page if line not in gone]
        assert cut == sum(line in gone for line in page)
        assert cut_lines(f"https://{number}.example/", "\n".join(page), repeated)[1] == 0


@settings(max_examples=40)
@given(
    questions=st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=20), min_size=1, max_size=4),
    text=st.lists(st.sampled_from("abcdefgh"), max_size=60), n=st.integers(8, 13),
)  # fmt: skip
def test_contamination_is_counted_as_sets_of_runs_are(
    tmp_path_factory: pytest.TempPathFactory, questions: list[list[str]], text: list[str], n: int
) -> None:
    path = tmp_path_factory.mktemp("q") / "exam.jsonl"
    long = [*questions, ["z"] * n]
    path.write_text("".join(json.dumps({"q": " ".join(words)}) + "\n" for words in long))
    known = {
        tuple(words[i : i + min(n, len(words))])
        for words in long
        if len(words) >= SHORTEST
        for i in range(max(1, len(words) - n + 1))
    }
    expected = sum(
        tuple(text[i : i + size]) in known for size in {len(run) for run in known} for i in range(len(text) - size + 1)
    )
    runs = eval_runs((path,), n)
    assert overlap(view(" ".join(text)), runs) == expected
    save_runs(path.with_suffix(".npz"), runs)
    again = load_runs(path.with_suffix(".npz"))
    assert {length: keys.tolist() for length, keys in again.items()} == {
        length: keys.tolist() for length, keys in runs.items()
    }


@settings(max_examples=20)
@given(
    st.lists(
        st.tuples(st.text(max_size=4), st.lists(st.text(max_size=3), max_size=3), st.none() | st.floats(-9, 9)),
        max_size=25,
    ),
    st.integers(1, 7),
)
def test_rows_come_back_from_parquet_whatever_the_size_of_a_group(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple], most: int
) -> None:
    path = tmp_path_factory.mktemp("p") / "x.parquet"
    made = [{"name": name, "failed": failed, "value": value} for name, failed, value in rows]
    with RowWriter(path, {"name": "string", "failed": "list", "value": "double", "missing": "int64"}, most) as writer:
        for row in made:
            writer.write(row)
    file = pq.ParquetFile(path)
    assert file.read().to_pylist() == [{**row, "missing": None} for row in made]
    assert file.num_row_groups == -(-len(made) // most)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Forty documents of two sites, copies, short ones and another language among them."""
    place = tmp_path_factory.mktemp("c")
    texts = [prose(n % 17, "fr" if n % 3 == 0 else "en") for n in range(30)] + ["short"] * 5 + [prose(2) * 5] * 3
    texts += ["Der Fluss fließt durch die alte Stadt und die Menschen leben an seinen Ufern. " * 9]
    rows = [
        {"text": text, "url": f"https://{'ab'[n % 2]}.example/{n}", "title": f"<{n}>"} for n, text in enumerate(texts)
    ]
    (place / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return build(DataBuildConfig((str(place / "x.jsonl"),), workers=1), place)


def test_the_ledger_tells_what_its_documents_are(corpus: Artifact) -> None:
    rules = quality_rules(DataBuildConfig())
    rows = read_ledger(corpus.path).to_pylist()
    assert [row["index"] for row in rows] == list(range(len(rows)))
    for row in rows:
        assert row["kept"] == (row["rule"] == "")
        assert row["rule"] == (row["failed"][0] if row["failed"] else "")
        assert len(row["excerpt"]) <= EXCERPT
        if row["words"] is not None:
            values = {name: row[name] for name in MEASURES}
            known = {rule.name for rule in rules}
            expected = [
                name for name in failing(values, rules) if name != "few_stop_words" or row["lang"] in ("en", "fr")
            ]
            assert [name for name in row["failed"] if name in known] == expected
    metrics = corpus.manifest.metrics
    assert metrics["documents_in"] == len(rows) == metrics["documents_kept"] + sum(metrics["dropped"].values())
    assert metrics["bytes_kept"] == sum(row["bytes"] for row in rows if row["kept"])
    assert {lang: facts["documents"] for lang, facts in metrics["by_language"].items()} == Counter(
        r["lang"] for r in rows if r["kept"]
    )


def test_the_reports_counts_are_the_ledgers(corpus: Artifact) -> None:
    rows, facts = read_ledger(corpus.path).to_pylist(), gather(corpus.path)
    dropped = Counter(row["rule"] for row in rows if not row["kept"])
    assert (facts.seen, facts.kept, facts.dropped) == (len(rows), sum(row["kept"] for row in rows), dropped)
    assert {rule: facts.alone[rule] for rule in dropped} == Counter(
        {rule: sum(row["rule"] == rule and len(row["failed"]) == 1 for row in rows) for rule in dropped}
    )
    assert {host: counts["seen"] for host, counts in facts.hosts.items()} == {
        f"{site}.example": sum(f"//{site}." in row["url"] for row in rows) for site in "ab"
    }
    assert sum(facts.lengths) == facts.kept
    edges = np.histogram([row["bytes"] for row in rows if row["kept"]], bins=[0, 250, 500, 1000, 2000, 4000, 1 << 40])[
        0
    ]
    assert facts.lengths[:5] == edges[:5].tolist()
    assert all(row["kept"] for row in facts.kept_examples.rows())
    for rule, examples in facts.dropped_examples.items():
        assert all(row["rule"] == rule for row in examples.rows())


class Checked(HTMLParser):
    """Refuses tags that are closed in another order than they were opened."""

    VOID = frozenset(("meta", "br", "hr", "img", "link", "rect"))

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        """`<rect/>` opens nothing."""

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open[-1] != tag:
            assert self.open.pop() in ("p", "li", "html", "body", "head"), tag
        assert self.open.pop() == tag


def test_the_report_is_html_whose_tags_close(corpus: Artifact) -> None:
    page = Checked()
    page.feed((corpus.path / "report.html").read_text())
    assert set(page.open) <= {"html", "body"}


HOSTILE = st.text(alphabet="<>&\"'/ab=\x00é", max_size=12)


@settings(max_examples=30)
@given(name=HOSTILE, count=st.integers(0, 10**9), part=st.floats(0, 1))
def test_charts_hold_any_name_and_any_count(name: str, count: int, part: float) -> None:
    kept = int(part * count)
    pieces = [
        tiles([(name, name)]), funnel([(name, count, []), (name, kept, [(name, count - kept)] * 7)]),
        rules_table([(name, name, max(count, 1), kept)]), stacked([(name, kept, max(count, 1), name)]), histogram([(name, count), (name, 0)]),
    ]  # fmt: skip
    for piece in pieces:
        page = Checked()
        page.feed(piece)
        assert page.open == []
        widths = [float(width) for width in re.findall(r"width:([\d.]+)%", piece)]
        assert all(0 <= width <= 100.01 for width in widths)
        assert "<a" not in piece.replace("<article", "")
    drawn = ElementTree.fromstring(re.sub(r"=([\w-]+)(?=[ >])", r"='\1'", histogram([("x", count), ("y", 3)])))
    assert len(drawn.findall("rect")) == 2
    assert all(float(bar.get("height", "-1")) >= 0 for bar in drawn.findall("rect"))


@pytest.mark.parametrize("share_", [0.1, 0.5, 0.9])
def test_a_sample_is_the_same_documents_whatever_they_are_beside(tmp_path: Path, share_: float) -> None:
    """A page is chosen by its address: a larger crawl keeps the choice, a larger share keeps the smaller one's pages."""

    def chosen(first: int, last: int, part: float) -> set[str]:
        rows = [{"text": "x", "url": f"https://a.example/{n}"} for n in range(first, last)]
        path = tmp_path / f"{first}-{last}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        config = DataBuildConfig((str(path),), sample=part)
        (unit,) = units_of(find_sources(config.sources, tmp_path))
        return {raw.url for _, batch in batches_of(unit, config) for raw in batch}

    whole = chosen(0, 600, share_)
    assert len(whole) == pytest.approx(600 * share_, abs=4 * (600 * share_ * (1 - share_)) ** 0.5)
    assert chosen(0, 300, share_) | chosen(300, 600, share_) == whole
    assert chosen(0, 600, share_ / 2) <= whole


def test_configurations_survive_the_way_to_another_process(tmp_path: Path) -> None:
    from dataclasses import asdict, fields

    chance = random.Random(1)
    changed = {
        "languages": ("fr",),
        "min_words": 7,
        "quality_model": tmp_path,
        "weights": (1.0, 2.0),
        "extractor": "union",
    }
    config = DataBuildConfig(sources=("a", "b"), **changed)
    sent = json.loads(json.dumps({**asdict(config), "out": "/x", "after": ["/y"]}, default=str))
    assert config_from_json({name: sent[name] for name in chance.sample(sorted(sent), len(sent))}) == config
    for kind in (
        DataBuildConfig,
        PackConfig,
        RefilterConfig,
        RemoveConfig,
        TraceConfig,
        DownloadConfig,
        QualityTrainConfig,
    ):
        assert kind.__dataclass_params__.frozen
        assert all(item.name.islower() for item in fields(kind))
