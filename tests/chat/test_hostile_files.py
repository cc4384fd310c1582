"""Files made to hurt whoever reads them: each is refused or read within its limits, and the process is gone."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
import zipfile
from collections.abc import Callable

import pytest

from causerie.chat.converting import MEMORY, convert
from causerie.chat.reading import CONVERTER, TEXT_LENGTH, kind_of, read_file
from causerie.core import CauserieError

from .documents import a_pdf, office


def with_part(kind: str, name: str, content: bytes) -> bytes:
    """An Office file with one of its parts replaced."""
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(office(kind))) as old,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as new,
    ):
        for entry in old.infolist():
            new.writestr(entry.filename, content if entry.filename == name else old.read(entry))
    return out.getvalue()


HEAD = b'<?xml version="1.0"?>'
WORD = b'<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body><w:p><w:r><w:t>%s</w:t></w:r></w:p></w:body></w:document>'


def laughs() -> bytes:
    """Entities that stand for ten of the one before: 10 GB when they are resolved."""
    entities = b'<!ENTITY a0 "ha">' + b"".join(
        b'<!ENTITY a%d "%s">' % (number, b"&a%d;" % (number - 1) * 10) for number in range(1, 10)
    )
    return HEAD + b"<!DOCTYPE x [" + entities + b"]>" + WORD % b"&a9;"


def outside() -> bytes:
    return HEAD + b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>' + WORD % b"&e;"


HOSTILE: dict[str, tuple[str, Callable[[], bytes]]] = {
    "entities that grow": ("a.docx", lambda: with_part("docx", "word/document.xml", laughs())),
    "an entity that reads a file": ("a.docx", lambda: with_part("docx", "word/document.xml", outside())),
    "a part that grows on unpacking": (
        "a.docx",
        lambda: with_part("docx", "word/document.xml", HEAD + WORD % (b"a" * (200 << 20))),
    ),
    "depth": ("a.docx", lambda: with_part("docx", "word/document.xml", HEAD + b"<a>" * 50_000)),
    "an archive cut in the middle": ("a.xlsx", lambda: office("xlsx")[:-200]),
    "another kind under this name": ("a.pptx", lambda: office("docx")),
    "an empty file": ("a.pdf", lambda: b""),
    "a page tree that goes round": ("a.pdf", lambda: a_pdf("x").replace(b"/Kids[3 0 R]", b"/Kids[2 0 R]")),
    "no text at all": ("a.pdf", lambda: a_pdf(" ")),
    "bytes": ("a.txt", lambda: bytes(range(256)) * 40),
    "another page's markup": ("a.html", lambda: b"<script>alert(1)</script>" * 9000),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_or_read_within_limits(name: str) -> None:
    """Slow: each is read by a process of its own."""
    file, make = HOSTILE[name]
    found = outcome(file, make())
    if isinstance(found, CauserieError):
        assert found.code == "CAU-6115"
        assert found.cause.startswith(f"'{file}' was not read: ")
        assert found.fix
    else:
        assert 0 < len(found) <= TEXT_LENGTH
        assert "root:" not in found, "nothing of this computer is read"
        assert "hahaha" not in found, "entities are not resolved"


def outcome(file: str, content: bytes) -> str | CauserieError:
    """The text of a file, or why it was not read."""
    try:
        return str(asyncio.run(read_file(file, content, seconds=60))["text"])
    except CauserieError as error:
        return error


def test_the_reader_has_no_more_memory_than_it_may(tmp_path: object) -> None:
    """It limits itself before it reads: asking for more than `MEMORY` fails, and no file can be written."""
    program = (
        f"import runpy, sys; sys.argv = ['x', 'text', '10']; m = runpy.run_path({str(CONVERTER)!r}); m['limit']()\n"
        f"try:\n    bytearray({MEMORY} + 1)\nexcept MemoryError:\n    print('refused')\n"
        f"try:\n    with open({str(tmp_path)!r} + '/x', 'w') as file: file.write('x' * 10)\nexcept OSError as error:\n    print('unwritten')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["refused", "unwritten"]


@pytest.mark.parametrize("length", [0, 1, 7, 10_000])
def test_a_text_is_cut_where_it_was_asked(length: int) -> None:
    whole = "é🙂\n" * 100
    found = convert("text", whole.encode(), length)
    assert found == {"text": whole[:length], "cut": length < len(whole)}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("é".encode(), "é"), (b"\xef\xbb\xbf\xc3\xa9", "é"), ("é".encode("utf-16"), "é"), (b"caf\xe9", "café"),
        (b"\x80", "€"), (b"", ""),
    ],
)  # fmt: skip
def test_texts_come_in_the_encodings_that_people_have(content: bytes, text: str) -> None:
    assert convert("text", content, 100) == {"text": text, "cut": False}


@pytest.mark.parametrize("name", ["a", "a.exe", ".txt", "a.txt.zip", "a.TXT ", "txt", "a.doc"])
def test_only_kinds_that_can_be_read_are_taken(name: str) -> None:
    assert kind_of("A.Pdf") == "pdf"
    with pytest.raises(CauserieError) as caught:
        kind_of(name)
    assert caught.value.code == "CAU-6115"
