"""Keep evaluation questions out of the training text: documents that share a long run of words with them.

A run is 13 words, as in GPT-3 (Brown et al. 2020, appendix C); questions of 8 to 12 words count with their whole
length, shorter ones are too common to tell.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from causerie.core import BROKEN_STREAM, open_stream
from causerie.data.errors import data_error
from causerie.data.filters import Hashes, View, hash_ngrams, hash_words, words_of

SHORTEST: Final = 8
"""Words of the shortest question that is looked for."""

EvalRuns = dict[int, Hashes]
"""Length of a run → sorted hashes of the runs of that length in the evaluation files."""


def eval_runs(files: tuple[Path, ...], n: int = 13) -> EvalRuns:
    """Collect the runs of words of evaluation files.

    Raises:
        CauserieError: CAU-2009 when a file cannot be read, or holds nothing that is long enough.
    """
    found: dict[int, list[Hashes]] = defaultdict(list)
    for path in files:
        before = sum(map(len, found.values()))
        try:
            for text in _strings(path):
                words = words_of(text)
                length = min(n, len(words))
                if length >= min(SHORTEST, n):
                    found[length].append(hash_ngrams(hash_words(words), length))
        except (*BROKEN_STREAM, ValueError, RecursionError) as error:
            fix = "give JSONL, JSON, CSV, Parquet or text files, in UTF-8"
            raise data_error("CAU-2009", f"cannot read: {error}", where=str(path), fix=fix) from error
        if before == sum(map(len, found.values())):
            cause = f"it holds no text of {min(SHORTEST, n)} words: nothing can be compared with it"
            raise data_error("CAU-2009", cause, where=str(path), fix="check the file, or --decontaminate-ngram")
    return {length: np.unique(np.concatenate(parts)) for length, parts in sorted(found.items())}


def overlap(seen: View, runs: EvalRuns) -> int:
    """Number of runs of words that a text shares with the evaluation files."""
    return sum(int(np.isin(hash_ngrams(seen.hashes, length), known).sum()) for length, known in runs.items())


def save_runs(path: Path, runs: EvalRuns) -> None:
    """Write the runs where worker processes read them (`.npz`, no objects)."""
    with open(path, "wb") as file:
        np.savez(file, **{str(length): known for length, known in runs.items()})  # type: ignore[arg-type]


def load_runs(path: Path) -> EvalRuns:
    """Read what `save_runs` wrote."""
    with np.load(path, allow_pickle=False) as file:
        return {int(length): file[length] for length in file.files}


def _strings(path: Path) -> Iterator[str]:
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    if name.endswith(".parquet"):
        import pyarrow.parquet as pq

        for batch in pq.ParquetFile(path).iter_batches(batch_size=512):
            yield from _leaves(batch.to_pylist())
        return
    with open_stream(path) as stream:
        if name.endswith((".jsonl", ".ndjson")):
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield from _leaves(_row(line, number))
        elif name.endswith(".json"):
            yield from _leaves(json.load(stream))
        elif name.endswith((".csv", ".tsv")):
            lines = (line.decode("utf-8") for line in stream)
            yield from _leaves(list(csv.reader(lines, delimiter="\t" if name.endswith(".tsv") else ",")))
        else:
            yield stream.read().decode("utf-8")


def _row(line: bytes, number: int) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from error


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
