"""Errors of the store: codes, and database failures told as causes with a fix."""

from __future__ import annotations

from typing import Final

from sqlalchemy.exc import DBAPIError, IntegrityError

from causerie.core import CauserieError

ERRORS: Final = {
    "CAU-1101": "The database file or server cannot be opened.",
    "CAU-1102": "The database stayed locked by another process for longer than the waiting time.",
    "CAU-1103": "The database is read-only.",
    "CAU-1104": "The disk that holds the database is full.",
    "CAU-1105": "The database file is damaged or is not a database.",
    "CAU-1106": "The database was made by a newer version of the program.",
    "CAU-1107": "The database driver that the URL asks for is not installed, or the URL cannot be read.",
    "CAU-1108": "The store is closed.",
    "CAU-1109": "A row contradicts one that is already there.",
    "CAU-1110": "A text holds a character that the database cannot store.",
    "CAU-1111": "A database failure with no more precise name.",
}
"""Codes raised by this room and what each means."""

_BY_MESSAGE: Final = (
    ("readonly", "CAU-1103", "make the file and its folder writable, or choose another --workspace"),
    ("read-only", "CAU-1103", "make the file and its folder writable, or choose another --workspace"),
    ("full", "CAU-1104", "free some space; what was acknowledged before is safe"),
    ("disk i/o", "CAU-1104", "check free space and the disk; what was acknowledged before is safe"),
    ("no space", "CAU-1104", "free some space; what was acknowledged before is safe"),
    ("locked", "CAU-1102", "find and end the process that holds the database, then try again"),
    ("busy", "CAU-1102", "find and end the process that holds the database, then try again"),
    ("malformed", "CAU-1105", "restore the file from a backup"),
    ("not a database", "CAU-1105", "restore the file from a backup, or move it away to begin an empty one"),
    ("unable to open", "CAU-1101", "check that the workspace folder exists and is writable"),
    ("could not connect", "CAU-1101", "check the URL and that the server runs"),
    ("connection refused", "CAU-1101", "check the URL and that the server runs"),
)


def database_error(error: DBAPIError, where: str) -> CauserieError:
    """The `CauserieError` that says what a database failure means; `where` is the database's place without password."""
    text = str(error.orig)
    if isinstance(error, IntegrityError):
        return CauserieError("CAU-1109", text, where=where, fix="use a new id, or refer to a row that exists")
    for needle, code, fix in _BY_MESSAGE:
        if needle in text.lower():
            return CauserieError(code, text, where=where, fix=fix)
    return CauserieError("CAU-1111", text, where=where, fix="run `causerie doctor` and report what it prints")
