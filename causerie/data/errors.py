"""Error codes of the data room: CAU-20xx."""

from __future__ import annotations

from typing import Final

from causerie.core import CauserieError

ERRORS: Final = {
    "CAU-2001": "A source matches no file.",
    "CAU-2002": "A source is of a kind that cannot be read.",
    "CAU-2003": "A configuration value is out of range.",
    "CAU-2005": "No document was kept.",
    "CAU-2006": "The extraction worker cannot be started.",
    "CAU-2007": "A corpus holds too little text to pack.",
    "CAU-2008": "Shards are damaged, or too short for the sequence length.",
    "CAU-2009": "An evaluation file to decontaminate against cannot be read.",
    "CAU-2010": "An address is in no ledger and in no shard.",
    "CAU-2011": "A corpus does not keep what is needed to filter it anew.",
    "CAU-2012": "A quality model cannot be read.",
    "CAU-2013": "There are too few documents to train a quality model.",
    "CAU-2014": "A list of files to download cannot be used.",
    "CAU-2015": "A list of addresses cannot be read.",
}
"""Codes raised by this room and what each means."""


def data_error(code: str, cause: str, *, where: str = "", fix: str = "") -> CauserieError:
    """A `CauserieError` with one of this room's codes."""
    assert code in ERRORS, code
    return CauserieError(code, cause, where=where, fix=fix)
