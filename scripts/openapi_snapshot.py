"""Write docs/openapi.json, the snapshot of the API that the server offers: a change to it must be wanted.

.venv/bin/python scripts/openapi_snapshot.py
"""

from __future__ import annotations

import json
from pathlib import Path

from causerie.serve.openapi import openapi_document
from causerie.serve.table import TABLE

PLACE = Path(__file__).parent.parent / "docs" / "openapi.json"


def text() -> str:
    """The document as it is kept: sorted, without the version of the package."""
    document = openapi_document(TABLE)
    document["info"]["version"] = "snapshot"
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> None:
    """Write it."""
    PLACE.write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
