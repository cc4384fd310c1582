"""Codes raised by the chat room, and the HTTP status that each becomes."""

from __future__ import annotations

from typing import Final

from causerie.core import CauserieError
from causerie.serve import as_api_error

ERRORS: Final = {
    "CAU-6101": "A request is not what the endpoint accepts.",
    "CAU-6102": "The thing asked for does not exist (or was deleted).",
    "CAU-6103": "A request came from another page or host, and was refused.",
    "CAU-6104": "A request is too large.",
    "CAU-6105": "The thing asked for cannot be done now: something else is under way.",
    "CAU-6107": "The model could not give an answer.",
    "CAU-6108": "The improvement could not be started or ended without a verdict.",
    "CAU-6109": "The built page is missing from the package.",
    "CAU-6110": "The server failed in a way that nobody foresaw; its log says how.",
    "CAU-6111": "There is no model to serve.",
    "CAU-6112": "Nobody is signed in, or the name or password is wrong.",
    "CAU-6113": "The person signed in may not do this.",
    "CAU-6114": "Too many attempts, or today's tokens are used up.",
    "CAU-6115": "A file could not be read.",
    "CAU-6116": "The identity provider did not let the person in.",
}
"""Codes raised by this room."""

STATUS: Final = {
    "CAU-6101": 400,
    "CAU-6102": 404,
    "CAU-6103": 403,
    "CAU-6104": 413,
    "CAU-6105": 409,
    "CAU-6107": 502,
    "CAU-6108": 500,
    "CAU-6109": 500,
    "CAU-6110": 500,
    "CAU-6112": 401,
    "CAU-6113": 403,
    "CAU-6114": 429,
    "CAU-6115": 422,
    "CAU-6116": 502,
    "CAU-1304": 404,
    "CAU-5001": 404,
}
"""HTTP status of each code; codes of other rooms have the one that the API gives them."""


def status_of(error: CauserieError) -> int:
    """HTTP status for an error of any room."""
    return STATUS.get(error.code) or as_api_error(error).status


def not_found(kind: str, name: str) -> CauserieError:
    """CAU-6102: there is no `kind` called `name`."""
    return CauserieError("CAU-6102", f"there is no {kind} {name!r}", where=kind, fix="reload the page")


def invalid(cause: str, where: str) -> CauserieError:
    """CAU-6101: a field (or the whole body) is not what the endpoint accepts."""
    return CauserieError("CAU-6101", cause, where=where, fix="correct the field and send it again")
