"""Which reader reads a page: the main element alone where that suffices, and what is lost nowhere."""

from __future__ import annotations

import pytest

from causerie.data import DataBuildConfig, Extracted, RawDocument, extract_html
from causerie.data.curate import curate
from causerie.data.htmltree import fold_space, parse_page
from causerie.data.maintext import MIN_MASS, find_main_part

PROSE = "The mill by the river has ground the flour of the whole valley for as long as anybody can remember. "
MENU = "<ul>" + "".join(f"<li><a href=/{n}>Section {n}</a></li>" for n in range(30)) + "</ul>"


def site(main: str, *, beside: str = "") -> str:
    shell = f"<div class=page><div class=wrap><div class=content>{main}</div>{beside}</div></div>"
    return f"<html lang=fr-CH><head><title> A \n title </title></head><body>{MENU}{shell}<footer>{MENU}</footer></body></html>"


def paragraphs(count: int, words: str = PROSE) -> str:
    return "".join(f"<p>{number}. {words * 2}</p>" for number in range(count))


def test_the_main_element_is_read_alone() -> None:
    page = extract_html(site(paragraphs(6)))
    assert (page.extractor, page.title, page.lang) == ("focus", "A title", "fr")
    assert page.text.count("The mill") == 12
    assert "Section" not in page.text


def test_prose_outside_of_the_element_makes_the_whole_page_be_read() -> None:
    html = f"<body><div class=a>{paragraphs(4)}</div><p>hr</p><div class=b>{paragraphs(4, PROSE.upper())}</div></body>"
    page = extract_html(html)
    assert page.extractor == "trafilatura"
    assert "THE MILL" in page.text
    assert "The mill" in page.text


def test_where_the_prose_is() -> None:
    tree = parse_page(site(paragraphs(5), beside=f"<div class=comments>{paragraphs(9)}</div>"))
    assert tree is not None
    part = find_main_part(tree.root)
    assert part.element.get("class") == "wrap"
    assert part.mass == pytest.approx(5 * len(PROSE * 2), abs=30)


def test_too_little_prose_says_nothing() -> None:
    tree = parse_page("<div><p>" + "a" * (MIN_MASS - 1) + "</p></div>")
    assert tree is not None
    assert find_main_part(tree.root).element is None


def test_links_and_labels_are_no_prose() -> None:
    linked = f"<p><a href=/>{PROSE * 4}</a></p>" * 9
    tree = parse_page(site(f"<p>short</p>{linked}<li>{'word ' * 10}</li>"))
    assert tree is not None
    assert find_main_part(tree.root).mass == 0


@pytest.mark.parametrize("name", ["related-articles", "social-share", "newsletter-box", "cookie-banner", "sidebar"])
def test_what_is_named_as_beside_the_point_is_left_out(name: str) -> None:
    text = extract_html(site(paragraphs(12) + f"<div class={name}><p>{PROSE.replace('mill', 'noise')}</p></div>")).text
    assert "mill" in text
    assert "noise" not in text


def test_a_misleading_name_around_most_of_the_text_does_no_harm() -> None:
    assert extract_html(site(f"<div class=social-sidebar>{paragraphs(8)}</div>")).text.count("The mill") == 16


def test_code_lists_and_tables_stay_readable() -> None:
    code = "<pre>def f(x):<br>&nbsp;   if x:<br>        return <b>1</b></pre>"
    plain = "<pre><code>a = 1\n    b = 2</code></pre>"
    table = "<table><tr><th>Name</th><th>Price</th></tr><tr><td>Bread</td><td>3</td></tr></table>"
    text = extract_html(
        site(paragraphs(4) + code + plain + table + "<ul><li>first</li><li>second</li></ul>" + paragraphs(2))
    ).text
    for expected in (
        "def f(x):\n    if x:\n        return 1",
        "a = 1\n    b = 2",
        "| Name | Price |",
        "- first\n- second",
    ):
        assert expected in text


def test_white_space_is_folded_outside_of_code_alone() -> None:
    tree = parse_page("<p>a\n  b\t<b>c\n d</b>\n e</p><pre>x\n  y<b> z\n</b>\n q</pre>")
    assert tree is not None
    fold_space(tree.root)
    assert tree.root.findtext(".//p") == "a b "
    assert "".join(tree.root.find(".//pre").itertext()) == "x\n  y z\n\n q"


def test_linked_data_is_kept_and_other_scripts_are_not() -> None:
    tree = parse_page('<script>var a</script>x<script type="application/ld+json">{"a":1}</script><style>b</style><p>c')
    assert tree is not None
    assert "".join(tree.root.itertext()) == 'x{"a":1}c'


@pytest.mark.parametrize("extractor", ["trafilatura", "resiliparse", "justext"])
def test_one_reader_alone(extractor: str) -> None:
    page = extract_html(site(paragraphs(6)), extractor=extractor)
    assert page.extractor == extractor
    assert "The mill" in page.text


def test_justext_knows_the_words_of_the_page_or_of_english_and_french() -> None:
    french = "Le moulin de la rivière a moulu la farine de toute la vallée, et les gens qui sont là le savent bien. "
    for lang in ("fr", "xx", ""):
        html = f"<html lang='{lang}'><body>{paragraphs(5, french)}</body></html>"
        assert "moulin" in extract_html(html, extractor="justext").text


def test_the_union_asks_the_next_reader_when_the_filters_drop_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def read(_: bytes, __: object, *, extractor: str, charset: object) -> Extracted:
        asked.append(extractor)
        return Extracted("", "menu menu" if extractor == "auto" else make_text(extractor), "en", extractor)

    monkeypatch.setattr("causerie.data.curate.extract_html", read)
    raw = RawDocument("x", 0, kind="html", body=b"<p>")
    assert curate(raw, DataBuildConfig(), {}).rule == "language"
    assert asked == ["auto"]
    row = curate(raw, DataBuildConfig(extractor="union", languages=()), {})
    assert (row.rule, row.extractor) == ("", "resiliparse")
    assert asked[1:] == ["auto", "resiliparse"]


def make_text(word: str) -> str:
    frames = ("The {} of the town is {} and old.", "They have seen that {} with {} in it.", "It was {} to be {} of.")
    names = [f"{word}{chr(97 + n)}{chr(97 + n * 3 % 26)}" for n in range(24)]
    return "\n".join(frames[n % 3].format(names[n], names[-n]) for n in range(12))


def test_the_union_returns_the_first_reading_when_none_passes() -> None:
    body = site(paragraphs(1)).encode()
    alone = curate(RawDocument("x", 0, kind="html", body=body), DataBuildConfig(min_words=900), {})
    union = curate(RawDocument("x", 0, kind="html", body=body), DataBuildConfig(min_words=900, extractor="union"), {})
    assert (union.rule, union.text, union.extractor) == (alone.rule, alone.text, alone.extractor)
