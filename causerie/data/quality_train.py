"""`data quality train`: good documents, bad documents → a quality model, with its figures on documents it never saw."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from causerie.core import (
    Artifact,
    artifact_key,
    code_digest,
    existing_artifact,
    place_for,
    say,
    track,
    write_artifact,
)
from causerie.data.errors import data_error
from causerie.data.extract import decode_html, extract_html, tidy_text
from causerie.data.filters import view
from causerie.data.language import identify
from causerie.data.quality import HashedLinear, auc, features, fit, save_quality
from causerie.data.raw import RawDocument
from causerie.data.sources import find_sources, iter_documents

MIN_DOCUMENTS: Final = 20
"""Documents of each kind below which nothing can be learned or measured."""
LOOKED_AT: Final = 20_000
"""Characters of a document that are looked at."""


@dataclass(frozen=True)
class QualityTrainConfig:
    """Train the quality model that `data build --quality-model` asks."""

    good: tuple[str, ...] = ()
    """Sources of documents to be like: anything that `data build` reads."""
    bad: tuple[str, ...] = ()
    """Sources of documents to be unlike: raw pages, for instance."""
    out: Path | None = None
    """Folder for the model; by default it goes to the workspace."""
    name: str = "quality"
    """Name of the model in the workspace."""
    max_documents: int = 10_000
    """Documents taken of each kind, spread evenly over its sources."""
    holdout: float = 0.2
    """Share of the documents kept apart to measure on, chosen by a hash of their text."""
    bits: int = 18
    """The model has 2 to this power weights."""
    epochs: int = 5
    """Times that every document is seen."""
    seed: int = 0
    """Seed of the order of documents."""


@dataclass(frozen=True)
class Example:
    """One labelled document: its features, language and side of the split."""

    row: tuple[NDArray[np.int64], NDArray[np.float64]]
    good: bool
    lang: str
    held_out: bool


def train_quality(config: QualityTrainConfig, workspace: Path) -> Artifact:
    """Train a quality model, or return it when one with the same key exists.

    Raises:
        CauserieError: CAU-2001 and CAU-2002 for sources, CAU-2003 for values, CAU-2013 for too few documents.
    """
    _check(config)
    spool = workspace / "stdin"
    files = {kind: find_sources(getattr(config, kind), spool) for kind in ("good", "bad")}
    inputs = {f"{kind}:{n}:{f.label}": f.digest() for kind, found in files.items() for n, f in enumerate(found)}
    plain = {name: getattr(config, name) for name in ("max_documents", "holdout", "bits", "epochs", "seed")}
    key = artifact_key("quality", plain, inputs, code_digest("causerie.data"))
    made = existing_artifact(config.out, workspace, "quality", config.name, key, inputs)
    if made is not None:
        return made
    examples: list[Example] = []
    for kind, found in files.items():
        share = -(-config.max_documents // len(found))
        taken = [row for file in found for row in _examples(file.path, file.label, kind == "good", share, config)]
        examples.extend(taken[: config.max_documents])
        if len(taken) < MIN_DOCUMENTS:
            cause = f"{len(taken)} {kind} documents can be read, {MIN_DOCUMENTS} are needed"
            raise data_error("CAU-2013", cause, where=f"--{kind}", fix="give more sources")
    train = [example for example in examples if not example.held_out]
    labels = np.asarray([example.good for example in train], np.float64)
    model = fit([e.row for e in train], labels, bits=config.bits, epochs=config.epochs, seed=config.seed)
    place, exact = place_for(config.out, workspace)
    recorded: dict[str, Any] = {"inputs": inputs, "config": plain, "exact": exact}
    with write_artifact(place, "quality", config.name, key, **recorded) as draft:
        save_quality(model, draft.path)
        draft.metrics.update(_figures(model, examples))
    assert draft.artifact is not None
    figure = draft.metrics["held_out"]["all"]
    say(f"AUC {figure['auc']:.4f} ± {1.96 * figure['error']:.4f} on {figure['documents']} documents kept apart")
    return draft.artifact


def _check(config: QualityTrainConfig) -> None:
    for kind in ("good", "bad"):
        if not getattr(config, kind):
            raise data_error("CAU-2003", f"no {kind} source was given", where=f"--{kind}", fix="name at least one file")
    limits = {"bits": (8, 24), "epochs": (1, 1000), "max_documents": (MIN_DOCUMENTS, 10**9), "holdout": (0.01, 0.9)}
    limits["seed"] = (0, 1 << 63)
    for field, (least, most) in limits.items():
        if not least <= getattr(config, field) <= most:
            cause = f"{getattr(config, field)} is not between {least} and {most}"
            raise data_error("CAU-2003", cause, where=f"--{field.replace('_', '-')}", fix="give a number between them")


def _examples(path: Path, label: str, good: bool, limit: int, config: QualityTrainConfig) -> list[Example]:
    found = []
    with track(label, None, "documents") as bar:
        for raw in islice((raw for raw in iter_documents(path, label) if not raw.problem), limit):
            text = document_text(raw)[:LOOKED_AT]
            seen = view(text)
            bar.advance(1)
            if not seen.words:
                continue
            digest = int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")
            row = features(seen.hashes, config.bits)
            found.append(Example(row, good, identify(text).code, digest / 2**64 < config.holdout))
    return found


def document_text(raw: RawDocument) -> str:
    """The text of a document as `data build` reads it, before anything is masked or cut."""
    if raw.kind == "html":
        return extract_html(raw.body, raw.url or None, charset=raw.charset or None).text
    return tidy_text(decode_html(raw.body, raw.charset or None))


def _figures(model: HashedLinear, examples: list[Example]) -> dict[str, Any]:
    """AUC with its standard error on the documents kept apart, over all and by language."""
    held = [example for example in examples if example.held_out]
    scores = np.asarray([_score(model, example) for example in held])
    labels = np.asarray([example.good for example in held], np.float64)
    langs = np.asarray([example.lang for example in held])
    figures: dict[str, Any] = {}
    for name in ("all", "en", "fr"):
        mine = np.ones(len(held), bool) if name == "all" else langs == name
        area, error = auc(scores[mine], labels[mine])
        if np.isfinite(area):
            figures[name] = {"auc": round(area, 6), "error": round(error, 6), "documents": int(mine.sum())}
    good = sum(example.good for example in examples)
    return {"documents_good": good, "documents_bad": len(examples) - good, "held_out": figures}


def _score(model: HashedLinear, example: Example) -> float:
    buckets, values = example.row
    return float(np.dot(model.weights[buckets].astype(np.float64), values)) + model.bias
