"""Files as people attach them, made here."""

from __future__ import annotations

import io


def office(kind: str) -> bytes:
    """A small file made by the library that people's programs could have been."""
    out = io.BytesIO()
    if kind == "docx":
        from docx import Document

        document = Document()
        document.add_heading("Tides", 1)
        document.add_paragraph("The Moon pulls.")
        document.add_table(1, 2).cell(0, 1).text = "8.2 m"
        document.save(out)
    elif kind == "pptx":
        from pptx import Presentation

        deck = Presentation()
        slide = deck.slides.add_slide(deck.slide_layouts[0])
        slide.shapes.title.text = "The Moon pulls."
        deck.save(out)
    else:
        from openpyxl import Workbook

        book = Workbook()
        book.active.append(["port", "The Moon pulls."])
        book.save(out)
    return out.getvalue()


def a_pdf(text: str) -> bytes:
    """A page that says `text`, written by hand."""
    stream = b"BT /F1 12 Tf 20 100 Td (%s) Tj ET" % text.encode("latin-1")
    parts = [
        b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 200]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(stream), stream),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]  # fmt: skip
    body, places = b"%PDF-1.4\n", []
    for number, part in enumerate(parts, 1):
        places.append(len(body))
        body += b"%d 0 obj%s endobj\n" % (number, part)
    table = b"xref\n0 6\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % place for place in places)
    return body + table + b"trailer<</Size 6/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % len(body)
