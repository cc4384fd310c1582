"""The process that takes the text out of one file: `python -I converting.py KIND LENGTH < file`.

Prints one JSON object: `{"text", "cut"}` or `{"error"}`. It limits itself before it reads a byte.
"""

from __future__ import annotations

import io
import json
import resource
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Final

MEMORY: Final = 1 << 30
PROCESSOR_SECONDS: Final = 20


def limit() -> None:
    """No more than `MEMORY` bytes, `PROCESSOR_SECONDS`, no files written, no core dumps."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR_SECONDS, PROCESSOR_SECONDS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def from_text(content: bytes) -> Iterator[str]:
    """Plain text in UTF-8 (or UTF-16 with a mark), else Latin-1 where that leaves no control characters."""
    for encoding in ("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", "cp1252"):
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" in text:
            break
        yield text
        return
    raise ValueError("it is not text")


def from_pdf(content: bytes) -> Iterator[str]:
    """The text of each page, headed by its number."""
    from pypdf import PdfReader

    for number, page in enumerate(PdfReader(io.BytesIO(content)).pages, 1):
        yield f"[page {number}]\n{page.extract_text().strip()}"


def from_docx(content: bytes) -> Iterator[str]:
    """Paragraphs, and tables row by row, in their order."""
    from docx import Document
    from docx.table import Table
    from docx.text.paragraph import Paragraph

    for block in Document(io.BytesIO(content)).iter_inner_content():
        if isinstance(block, Paragraph) and block.text.strip():
            yield "#" * _level(block) + " " * bool(_level(block)) + block.text
        elif isinstance(block, Table):
            yield _table([cell.text for cell in row.cells] for row in block.rows)


def _level(paragraph: object) -> int:
    """Of a heading, 1 to 9; 0 for other paragraphs."""
    name = getattr(getattr(paragraph, "style", None), "name", "") or ""
    return int(name[-1]) if name.startswith("Heading ") and name[-1].isdigit() else 0


def from_pptx(content: bytes) -> Iterator[str]:
    """The text of each slide, headed by its number."""
    from pptx import Presentation

    for number, slide in enumerate(Presentation(io.BytesIO(content)).slides, 1):
        texts = [shape.text_frame.text for shape in slide.shapes if shape.has_text_frame]
        yield "\n".join([f"[slide {number}]", *(text for text in texts if text.strip())])


def from_xlsx(content: bytes) -> Iterator[str]:
    """Each sheet as a table; formulas as the values last computed."""
    from openpyxl import load_workbook

    book = load_workbook(io.BytesIO(content), read_only=True, data_only=True)
    for sheet in book.worksheets:
        yield f"[sheet {sheet.title}]"
        for row in sheet.iter_rows(values_only=True):
            if any(cell is not None for cell in row):
                yield _table([["" if cell is None else str(cell) for cell in row]])


def _table(rows: Iterable[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cell.replace("\n", " ") for cell in row) + " |" for row in rows)


READERS: Final[dict[str, Callable[[bytes], Iterator[str]]]] = {
    "text": from_text,
    "pdf": from_pdf,
    "docx": from_docx,
    "pptx": from_pptx,
    "xlsx": from_xlsx,
}


def convert(kind: str, content: bytes, length: int) -> dict[str, object]:
    """At most `length` characters of the text; what is wrong instead, when it cannot be read."""
    text = ""
    try:
        for part in READERS[kind](content):
            text += ("\n" if text else "") + part
            if len(text) > length:
                break
    except ImportError as error:
        return {"error": f"reading it needs {error.name}: pip install 'causerie[files]'"}
    except MemoryError:
        return {"error": "it needs too much memory"}
    except Exception as error:
        return {"error": f"it is damaged or not what its name says ({type(error).__name__})"}
    clean = text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")
    return {"text": clean[:length], "cut": len(clean) > length}


if __name__ == "__main__":
    limit()
    answer = convert(sys.argv[1], sys.stdin.buffer.read(), int(sys.argv[2]))
    sys.stdout.write(json.dumps(answer))
