"""The list of hits: which document shares which words with which evaluation file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from causerie.core import write_jsonl
from causerie.data.curate import Judged
from causerie.data.decontaminate import EvalRuns, eval_runs
from causerie.data.filters import hash_ngrams, view

LISTED: Final = 10_000
"""Hits listed, at most; all of them are counted in the ledger (`eval_overlap`)."""


class HitList:
    """Collects hits; the files they are from are looked up at the end, only when there are any."""

    def __init__(self, runs: EvalRuns, files: tuple[Path, ...], n: int) -> None:
        self._runs, self._files, self._n = runs, files, n
        self._hits: list[dict[str, Any]] = []
        self._keys: list[tuple[int, int]] = []

    def add(self, row: Judged) -> None:
        """Note a contaminated document with its first shared run of words."""
        if len(self._hits) >= LISTED:
            return
        seen = view(row.text)
        for length, known in self._runs.items():
            shared = np.isin(grams := hash_ngrams(seen.hashes, length), known)
            if shared.any():
                place = int(np.argmax(shared))
                words = " ".join(seen.words[place : place + length])
                self._hits.append({"id": row.id, "url": row.url, "runs": row.eval_overlap, "words": words})
                self._keys.append((length, int(grams[place])))
                return

    def write(self, path: Path) -> None:
        """Write one line a hit, with the evaluation files that hold its words."""
        names: list[list[str]] = [[] for _ in self._hits]
        for file in self._files if self._hits else ():
            of_file = eval_runs((file,), self._n)
            for number, (length, key) in enumerate(self._keys):
                known = of_file.get(length)
                if known is not None and np.isin(np.uint64(key), known):
                    names[number].append(file.name)
        write_jsonl(path, [{**hit, "files": found} for hit, found in zip(self._hits, names, strict=True)])
