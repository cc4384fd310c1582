"""Lines that a site repeats: cut on that site only, from pages that are no duplicates, never out of code."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from causerie.data.addresses import host_of
from causerie.data.boilerplate import LineCounter, cut_lines

NOTE = "Subscribe to our weekly newsletter"


def counted(pages: list[tuple[str, str]], folder: Path, least: int = 3, memory: int = 1 << 20) -> np.ndarray:
    counter = LineCounter(folder, memory)
    for url, text in pages:
        counter.add(url, text)
    return counter.repeated(least)


def test_repeated_lines_are_cut_on_their_site(tmp_path: Path) -> None:
    pages = [(f"https://www.a.example/{n}", f"Page {n} says something\n\n{NOTE}  \n\nThe end of {n}") for n in range(3)]
    repeated = counted(pages, tmp_path)
    assert cut_lines(*pages[0], repeated) == ("Page 0 says something\n\nThe end of 0", 1)
    assert cut_lines("http://a.example:80/x", f"{NOTE.upper()}\nmore words than that", repeated)[1] == 1
    assert cut_lines("https://b.example/", pages[0][1], repeated) == (pages[0][1], 0)
    assert cut_lines("", pages[0][1], repeated) == (pages[0][1], 0)
    assert len(counted(pages, tmp_path, least=4)) == 0


def test_a_line_counts_once_a_page(tmp_path: Path) -> None:
    pages = [("https://a.example/1", "\n".join([NOTE] * 5))]
    assert len(counted(pages, tmp_path)) == 0


def test_short_lines_code_tables_and_paragraphs_stay(tmp_path: Path) -> None:
    stays = "Two words\n```\nthe same code line\n```\n| the same table row |\n" + "long " * 100
    pages = [(f"https://a.example/{n}", stays) for n in range(5)]
    assert len(counted(pages, tmp_path)) == 0


def test_little_memory_finds_the_same(tmp_path: Path) -> None:
    pages = [(f"https://a.example/{n}", f"{NOTE}\nunlike all other pages {n}") for n in range(400)]
    np.testing.assert_array_equal(counted(pages, tmp_path, memory=1), counted(pages, tmp_path))


def test_hosts() -> None:
    assert host_of("https://WWW.A.example:8080/x?y") == "a.example"
    assert host_of("http://[bad") == host_of("no address") == ""
