"""Small inputs made on the spot: pages in English and French, and archives of them."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable
from pathlib import Path

import pytest

SENTENCES = {
    "en": (
        "The river near {} winds through the old town before it reaches the sea at {}.",
        "People from {} have lived along its banks for many years, and they know that {} is often flooded.",
        "A bridge of grey stone, built by {}, connects the market with the hill of {}.",
        "In the evening children play in front of the church while {} closes the shop with {}.",
        "Nobody remembers when {} planted the first apple tree, but the fruit was sold to {}.",
        "Every spring the mill that belongs to {} turns again and flour is sent to {}.",
        "The teacher told them how {} once crossed the mountains with nothing but a map of {}.",
        "When it rains for a week, {} carries the letters by boat to the houses of {}.",
        "There is a library with two rooms; {} keeps the keys and {} reads the newspapers aloud.",
        "Travellers who ask for bread are given soup as well, because {} learned this from {}.",
    ),
    "fr": (
        "La rivière près de {} serpente dans la vieille ville avant de rejoindre la mer à {}.",
        "Les habitants de {} vivent sur ses rives depuis longtemps, et ils savent que {} est souvent inondé.",
        "Un pont de pierre grise, construit par {}, relie le marché à la colline de {}.",
        "Le soir, les enfants jouent devant l'église pendant que {} ferme la boutique avec {}.",
        "Personne ne sait quand {} a planté le premier pommier, mais les fruits furent vendus à {}.",
        "Chaque printemps, le moulin qui appartient à {} tourne de nouveau et la farine part pour {}.",
        "L'institutrice leur a raconté comment {} franchit un jour les montagnes avec une simple carte de {}.",
        "Quand il pleut toute une semaine, {} porte les lettres en barque jusqu'aux maisons de {}.",
        "Il y a une bibliothèque de deux pièces ; {} garde les clefs et {} lit les journaux à voix haute.",
        "Les voyageurs qui demandent du pain reçoivent aussi de la soupe, car {} l'a appris de {}.",
    ),
}


def prose(number: int, lang: str = "en", sentences: int = 7) -> str:
    """Readable text that differs from number to number: sentences in another order, with their own invented names."""
    chance = random.Random(f"{lang}{number}")

    def name() -> str:
        return "".join(chance.choices("bcdfglmnprstv", k=2)).capitalize() + chance.choice(("ora", "ille", "ane", "ude"))

    return "\n".join(frame.format(name(), name()) for frame in chance.sample(SENTENCES[lang], sentences))


def page(text: str, title: str = "A page") -> bytes:
    """An HTML page around paragraphs, with a menu and a footer."""
    body = "".join(f"<p>{line}</p>" for line in text.split("\n"))
    menu = "<nav><ul><li><a href=/>Home</a></li><li><a href=/about>About</a></li></ul></nav>"
    shell = f"{menu}<article><h1>{title}</h1>{body}</article><footer>All rights reserved</footer>"
    return f"<html lang=en><head><title>{title}</title></head><body>{shell}</body></html>".encode()


def warc_record(
    body: bytes, url: str, kind: str = "text/html; charset=utf-8", status: str = "200 OK", extra: str = ""
) -> bytes:
    """One response record, gzipped on its own."""
    content = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{extra}\r\n".encode() + body
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2024-01-01T00:00:00Z\r\n"
        f"WARC-Record-ID: <urn:uuid:0>\r\nContent-Type: application/http; msgtype=response\r\nLicense: CC0-1.0\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    return gzip.compress(head.encode() + content + b"\r\n\r\n", mtime=0)


@pytest.fixture
def small_warc(tmp_path: Path) -> Path:
    """Fourteen records: English and French pages, a copy, a German page, an image, a 404 and a damaged record."""
    german = (
        "Der Fluss fließt durch die alte Stadt, bevor er das Meer erreicht. Die Menschen leben seit vielen Jahren an "
        "seinen Ufern und wissen, dass das Wasser jedes Jahr steigt. Eine Brücke aus grauem Stein verbindet den Markt "
        "mit dem Hügel, auf dem die Mühle steht, und die Kinder spielen am Abend vor der Kirche in der Sonne. "
    )
    records = [warc_record(page(prose(n)), f"https://a.example/{n}") for n in range(5)]
    records += [warc_record(page(prose(n, "fr")), f"https://b.example/{n}") for n in range(4)]
    records.append(warc_record(page(prose(0)), "https://copy.example/0"))
    records.append(warc_record(page(german * 2), "https://de.example/"))
    records.append(warc_record(b"\x89PNG", "https://a.example/x.png", "image/png"))
    records.append(warc_record(page(prose(20)), "https://a.example/gone", status="404 Not Found"))
    damaged = bytearray(warc_record(page(prose(30)), "https://a.example/damaged"))
    damaged[60:90] = bytes(30)
    records.insert(3, bytes(damaged))
    path = tmp_path / "small.warc.gz"
    path.write_bytes(b"".join(records))
    return path


@pytest.fixture
def make_prose() -> Callable[..., str]:
    """`prose` as a fixture."""
    return prose


@pytest.fixture
def make_page() -> Callable[..., bytes]:
    """`page` as a fixture."""
    return page


@pytest.fixture
def make_record() -> Callable[..., bytes]:
    """`warc_record` as a fixture."""
    return warc_record
