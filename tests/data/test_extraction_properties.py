"""Extraction on pages made at random: no word of the article is lost, furniture is, and reading twice changes nothing."""

from __future__ import annotations

import html
import json
import random
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causerie.core import CauserieError
from causerie.data import RawDocument, extract_html
from causerie.data.batch_store import BatchStore
from causerie.data.curate import Judged
from causerie.data.extract import decode_html, flatten_layout_tables, tidy_text
from causerie.data.filters import words_of
from causerie.data.htmltree import (
    break_code_lines,
    fold_space,
    free_labels,
    parse_page,
    remove_keeping_tail,
    wrap_loose_text,
)
from causerie.data.maintext import drop_beside, find_main_part
from causerie.data.pii import SAMPLE_EMAIL, SAMPLE_IBAN, SAMPLE_NIR, SAMPLE_PHONE, mask_personal
from causerie.data.quarantine import Quarantine
from tests.data.conftest import prose

INLINE = ("{}", "<b>{}</b>", "<a href='/x'>{}</a>", "<span class=term>{}</span>", "<em>{}</em>")
FURNITURE = (
    "<nav><ul><li><a href=/>Startseite</a></li><li><a href=/b>Impressum</a></li></ul></nav>",
    "<script>var hidden = 'geheim';</script><style>.x{color:red}</style>",
    "<!-- kommentar --><noscript>ohne</noscript>",
    "<div class='sidebar'><a href=/1>Verwandt</a> <a href=/2>Beliebt</a></div>",
    "<footer><p>Fusszeile</p></footer>",
    "<form><input value=eingabe><button>Absenden</button></form>",
    "<svg><text>zeichnung</text></svg><template><p>vorlage</p></template>",
)
HIDDEN = {"startseite", "impressum", "geheim", "kommentar", "verwandt", "fusszeile", "absenden", "zeichnung", "vorlage"}


def made_page(seed: int, lang: str) -> tuple[str, list[str]]:
    """A page around an article of a few paragraphs, with furniture anywhere outside of it; and the paragraphs."""
    chance = random.Random(seed)
    paragraphs = prose(seed, lang, 8).split("\n")
    body = []
    for paragraph in paragraphs:
        words = [
            chance.choice(INLINE if chance.random() < 0.15 else INLINE[:1]).format(html.escape(w, quote=False))
            for w in paragraph.split()
        ]
        gap = chance.choice((" ", "\n", "\n\t ", " &nbsp;"))
        body.append(f"<p>{gap.join(words)}</p>")
    around = [chance.choice(FURNITURE) for _ in range(chance.randrange(6))]
    place = chance.randrange(len(around) + 1)
    shell = chance.choice(
        ("<article>{}</article>", "<div id=content>{}</div>", "<main><div><div>{}</div></div></main>")
    )
    inner = [*around[:place], shell.format("\n".join(body)), *around[place:]]
    return (
        f"<!doctype html><html lang={lang}><head><title>Page {seed}</title></head><body>{''.join(inner)}</body></html>",
        paragraphs,
    )


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), lang=st.sampled_from(["en", "fr"]))
def test_the_article_comes_out_whole_in_order_and_without_the_furniture(seed: int, lang: str) -> None:
    source, paragraphs = made_page(seed, lang)
    found = extract_html(source)
    assert (found.title, found.lang) == (f"Page {seed}", lang)
    assert words_of(found.text) == words_of("\n".join(paragraphs))
    assert not HIDDEN & set(words_of(found.text))
    assert tidy_text(found.text) == found.text


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_what_was_extracted_is_extracted_again_unchanged(seed: int) -> None:
    once = extract_html(made_page(seed, "en")[0]).text
    again = extract_html(
        "<html><body><article>"
        + "".join(f"<p>{html.escape(line)}</p>" for line in once.split("\n") if line)
        + "</article></body></html>"
    )
    assert words_of(again.text) == words_of(once)
    assert [line for line in again.text.split("\n") if line] == [line for line in once.split("\n") if line]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "iso-8859-1", "windows-1252", "iso-8859-15", "utf-16"])
@pytest.mark.parametrize("told", ["header", "page", "nobody"])
def test_any_encoding_that_is_told_or_marked_is_read(encoding: str, told: str) -> None:
    text = (
        "L'été à Orléans : « où êtes-vous ? » "
        + ("20 \u20ac \u0153uvre " if encoding not in ("iso-8859-1",) else "")
        + prose(3, "fr")
    )
    meta = f"<meta charset={encoding.removesuffix('-sig')}>" if told == "page" else ""
    raw = f"<html><head>{meta}</head><body><article><p>{text}</p></article></body></html>".encode(encoding)
    if told == "nobody" and encoding in ("iso-8859-15",):
        pytest.skip("nothing tells it from windows-1252")
    found = extract_html(raw, charset=encoding.removesuffix("-sig") if told == "header" else None)
    assert words_of(found.text) == words_of(text)


@given(st.text(max_size=80), st.sampled_from(["utf-8", "latin-1", "no-such-charset", ""]))
def test_bytes_that_are_utf8_are_read_as_such_whatever_the_header_says(text: str, charset: str) -> None:
    clean = text.encode("utf-8", "replace").removeprefix(b"\xef\xbb\xbf")
    assert decode_html(clean, charset or None) == clean.decode()


TREES = st.recursive(
    st.text(alphabet="abc \n", max_size=6),
    lambda inner: st.tuples(
        st.sampled_from(["div", "p", "span", "b", "pre", "ul", "li", "section"]), st.lists(inner, max_size=4)
    ),
    max_leaves=14,
)


def render(tree: object) -> str:
    if isinstance(tree, str):
        return html.escape(tree)
    tag, inner = tree  # type: ignore[misc]
    return f"<{tag}>{''.join(map(render, inner))}</{tag}>"


def letters(root: object) -> str:
    return "".join("".join(root.itertext()).split())  # type: ignore[attr-defined]


@settings(max_examples=120)
@given(tree=TREES)
def test_making_a_tree_ready_loses_and_moves_no_letter(tree: object) -> None:
    page = parse_page(f"<html><body><div>{render(tree)}x</div></body></html>")
    assert page is not None
    before = letters(page.root)
    for change in (break_code_lines, fold_space, free_labels, wrap_loose_text):
        change(page.root)
        assert letters(page.root) == before, change.__name__
    for loose in page.root.iter("div"):
        assert not any(part and part.strip() for part in (loose.text, *(child.tail for child in loose)))


@settings(max_examples=60)
@given(tree=TREES, which=st.integers(0, 30))
def test_an_element_goes_and_the_text_around_it_stays(tree: object, which: int) -> None:
    page = parse_page(f"<html><body><div>before{render(tree)}after</div></body></html>")
    assert page is not None
    inside = [one for one in page.root.iter() if one.tag not in ("html", "body")]
    gone = inside[which % len(inside)]
    everything, own = letters(page.root), letters(gone)
    remove_keeping_tail(gone)
    left = letters(page.root)
    assert len(left) == len(everything) - len(own)
    assert sorted(left + own) == sorted(everything)


@given(st.lists(st.sampled_from(["| a | b |", "|---|---|", "| | x | |", "plain", "| |", "", "|only|"]), max_size=8))
def test_layout_tables_are_flattened_once(lines: list[str]) -> None:
    once = flatten_layout_tables("\n".join(lines))
    assert flatten_layout_tables(once) == once
    for word in ("plain", "x", "only", "| a | b |"):
        assert sum(word in line for line in once.split("\n")) == sum(word in line for line in lines)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 9999), deep=st.integers(0, 6))
def test_the_main_part_holds_the_prose_however_deep_it_lies(seed: int, deep: int) -> None:
    paragraphs = "".join(f"<p>{line}</p>" for line in prose(seed, sentences=9).split("\n"))
    source = f"<html><body><div><a href=/>Home</a></div>{'<div>' * deep}<section id=text>{paragraphs}</section>{'</div>' * deep}</body></html>"
    page = parse_page(source)
    assert page is not None
    part = find_main_part(page.root)
    assert part.mass == sum(len(line) for line in prose(seed, sentences=9).split("\n") if len(line) >= 60)
    if part.element is not None:
        assert len(list(part.element.iter("p"))) == 9
        drop_beside(part.element)
        assert len(list(part.element.iter("p"))) == 9


SAFE = st.text(alphabet="abcdéfg ,;!?\n", max_size=60)


@settings(max_examples=60)
@given(
    before=SAFE, after=SAFE, number=st.integers(10**8, 10**9 - 1), name=st.text(alphabet="abc", min_size=1, max_size=6)
)
def test_what_is_personal_goes_and_the_words_around_it_stay(before: str, after: str, number: int, name: str) -> None:
    digits = f"{number:09d}"
    phone = f"0{digits[0] if digits[0] != '0' else '1'} {digits[1:3]} {digits[3:5]} {digits[5:7]} {digits[7:9]}"
    found = mask_personal(f"{before} {name}.x@mail{name}.fr {after} tel. {phone} {before}")
    assert (found.emails, found.phones) == (1, 1 if phone != "01 99 00 12 34" else 0)
    assert f"{before} {SAMPLE_EMAIL} {after} tel. " in found.text
    assert found.text.endswith(f" {before}")
    assert phone not in found.text or phone == "01 99 00 12 34"


@given(SAFE)
def test_text_without_numbers_and_addresses_is_left_alone(text: str) -> None:
    whole = f"{text} {SAMPLE_EMAIL} {SAMPLE_PHONE} {SAMPLE_IBAN} {SAMPLE_NIR}"
    found = mask_personal(whole)
    assert found.text == whole
    assert (found.emails, found.phones, found.addresses, found.ibans, found.nirs) == (0, 0, 0, 0, 0)


ROWS = st.builds(
    Judged, id=st.text(max_size=5), source=st.text(max_size=5), index=st.integers(0, 9), text=st.text(max_size=40), title=st.text(max_size=5),
    failed=st.lists(st.text(max_size=4), max_size=3), values=st.dictionaries(st.text(max_size=3), st.floats(allow_nan=False, allow_infinity=False), max_size=3),
)  # fmt: skip


@settings(max_examples=40)
@given(batches=st.lists(st.lists(ROWS, max_size=4), max_size=4))
def test_batches_come_back_in_their_order(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[Judged]]
) -> None:
    store = BatchStore(tmp_path_factory.mktemp("b"))
    names = [f"{number // 2:06d}-{number % 2:06d}" for number in range(len(batches))]
    for name, rows in random.Random(0).sample(list(zip(names, batches, strict=True)), len(batches)):
        assert not store.has(name)
        store.write(name, rows)
    assert store.names() == names
    assert list(store.rows()) == [row for rows in batches for row in rows]


def test_threads_that_put_into_quarantine_at_once_lose_nothing(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "q")
    raws = [RawDocument(f"s{number}.html", number, kind="html", body=b"x" * number) for number in range(12)]
    crew = [threading.Thread(target=quarantine.add, args=(raw, "crashed", "exit status -11")) for raw in raws]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    listed = {entry["id"]: entry for entry in Quarantine(tmp_path / "q").listed()}
    assert listed.keys() == {raw.id for raw in raws}
    for raw in raws:
        assert (tmp_path / "q" / str(listed[raw.id]["file"])).read_bytes() == raw.body
    lines = (tmp_path / "q" / "list.jsonl").read_text().splitlines()
    assert all(json.loads(line)["rule"] == "crashed" for line in lines)


@pytest.mark.parametrize("extractor", ["auto", "trafilatura", "resiliparse", "justext"])
@pytest.mark.parametrize(
    "source",
    ["", "<", "<!doctype html>", "<html></html>", "plain words only", "\x00\x01", "<p>" * 300, "&#0;&#x110000;"],
)
def test_pages_of_nothing_are_read_by_every_reader(source: str, extractor: str) -> None:
    for form in (source, source.encode()):
        found = extract_html(form, extractor=extractor)  # type: ignore[arg-type]
        assert found.text == tidy_text(found.text)
        assert words_of(found.text) in ([], words_of(source))


def test_an_unknown_language_is_refused_before_any_page_is_read(tmp_path: Path) -> None:
    from causerie.data import DataBuildConfig, build

    (tmp_path / "a.txt").write_text(prose(1))
    with pytest.raises(CauserieError, match="klingon"):
        build(DataBuildConfig((str(tmp_path / "a.txt"),), languages=("klingon",)), tmp_path / "w")
    assert not (tmp_path / "w").exists()
