"""From an address to the shards that hold it, and shards without it.

What was trained on must be answerable ("where is my page?") and mendable ("take it out"). An address is looked up in
the corpus's ledger (was it seen, kept, dropped why, whose copy is it) and in the shards' index (file, first token,
number of tokens). A page dropped as a copy leads to the document that stayed: its text is the same.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from causerie.core import (
    Artifact,
    artifact_key,
    code_digest,
    existing_artifact,
    list_artifacts,
    open_artifact,
    place_for,
    say,
    write_artifact,
)
from causerie.data.addresses import listed, normal_url
from causerie.data.batches import map_tokens, width_of
from causerie.data.errors import data_error
from causerie.data.shard_files import IndexWriter, ShardWriter, read_index


@dataclass(frozen=True)
class TraceConfig:
    """Where an address is."""

    url: str
    """The page's address, or a document's id."""
    shards: tuple[Path, ...] = ()
    """Shard folders to look in; none: all of the workspace."""
    corpora: tuple[Path, ...] = ()
    """Corpus folders to look in; none: all of the workspace."""


@dataclass(frozen=True)
class RemoveConfig:
    """New shards without some addresses."""

    shards: Path
    """Shard folder, made by `data pack`."""
    urls: tuple[str, ...] = ()
    """Addresses (or document ids) to take out."""
    listed: Path | None = None
    """A file with further addresses, one a line."""
    out: Path | None = None
    """Folder for the new shards; by default they go to the workspace."""
    name: str = "shards"
    """Name of the new shards in the workspace."""


@dataclass(frozen=True)
class Traced:
    """What is known about an address.

    Attributes:
        ledger: rows of the corpora's ledgers: corpus, id, kept, rule, duplicate_of.
        shards: places: folder, file, split, start and number of tokens, and the id of the document there.
    """

    url: str
    ledger: list[dict[str, Any]]
    shards: list[dict[str, Any]]


def trace(config: TraceConfig, workspace: Path) -> Traced:
    """Look an address up in ledgers and shards.

    Raises:
        CauserieError: CAU-2010 when neither knows it.
    """
    ledger, ids = _in_ledgers(config, workspace)
    shards = []
    for folder in config.shards or [artifact.path for artifact in list_artifacts(workspace, "shards")]:
        shards.extend(_in_shards(open_artifact(folder, kind="shards"), config.url, ids))
    if not ledger and not shards:
        fix = "check the address; name other --shards and --corpora"
        raise data_error("CAU-2010", "no ledger and no shard holds it", where=config.url or "url", fix=fix)
    return Traced(config.url, ledger, shards)


Ids = dict[str, set[str]]
"""Key of a corpus → ids of its documents."""


def _in_ledgers(config: TraceConfig, workspace: Path) -> tuple[list[dict[str, Any]], Ids]:
    """Ledger rows of the address, and the documents with its text: itself, or what it repeats."""
    import pyarrow.parquet as pq

    corpora = [open_artifact(path, kind="corpus") for path in config.corpora] or list_artifacts(workspace, "corpus")
    rows: list[dict[str, Any]] = []
    ids: Ids = {corpus.key: set() for corpus in corpora}
    earlier = {f"{corpus.path.name}/": corpus.key for corpus in corpora}
    wanted = normal_url(config.url)
    for corpus in corpora:
        ledger = pq.ParquetFile(corpus.file("ledger.parquet"))
        for batch in ledger.iter_batches(columns=["id", "url", "kept", "rule", "duplicate_of"]):
            for row in batch.to_pylist():
                if row["id"] == config.url or (row["url"] and normal_url(row["url"]) == wanted):
                    rows.append({"corpus": str(corpus.path), **row})
                    stayed = row["duplicate_of"] or row["id"]
                    before = next((name for name in earlier if stayed.startswith(name)), "")
                    ids[earlier.get(before, corpus.key)].add(stayed.removeprefix(before))
    return rows, ids


def _in_shards(shards: Artifact, url: str, ids: Ids) -> list[dict[str, Any]]:
    """Places in the shards; ids count for the corpora that they were made of, all of them where none is known."""
    made_of = ids.keys() & {*shards.manifest.inputs.values()} or ids.keys()
    table = read_index(shards.path)
    found = []
    for number in np.flatnonzero(_matching(table, {url}, {one for key in made_of for one in ids[key]})).tolist():
        row = table.slice(number, 1).to_pylist()[0]
        split = "val" if row["file"] == "val.bin" else "train"
        place = {name: row[name] for name in ("file", "start", "tokens", "id", "url")}
        found.append({"shards": str(shards.path), "split": split, **place})
    return found


def _matching(table: Any, urls: set[str], ids: set[str]) -> Any:
    normal = {normal_url(url) for url in urls}
    named = ids | urls
    pairs = zip(table["id"].to_pylist(), table["url"].to_pylist(), strict=True)
    return np.fromiter((id in named or (url and normal_url(url) in normal) for id, url in pairs), bool, len(table))


def remove(config: RemoveConfig, workspace: Path) -> Artifact:
    """Write shards without some documents; which ones is recorded in the new manifest.

    Raises:
        CauserieError: CAU-2003 when no address is given, CAU-2010 for one that the shards do not hold.
    """
    urls = set(config.urls)
    if config.listed:
        urls |= set(listed(config.listed))
    if not urls:
        raise data_error("CAU-2003", "no address was given", where="urls", fix="name at least one")
    old = open_artifact(config.shards, kind="shards")
    inputs = {**old.manifest.inputs, "shards": old.key}
    key = artifact_key("shards", {"removed": sorted(urls)}, inputs, code_digest("causerie.data"))
    made = existing_artifact(config.out, workspace, "shards", config.name, key, inputs)
    if made is not None:
        return made
    table = read_index(old.path)
    gone = _matching(table, urls, set())
    _check_all_found(table, urls, old.path)
    place, exact = place_for(config.out, workspace)
    plain = {**old.manifest.config, "removed": sorted({*old.manifest.config.get("removed", ()), *urls})}
    recorded: dict[str, Any] = {"inputs": inputs, "config": plain, "exact": exact, "seeds": old.manifest.seeds}
    with write_artifact(place, "shards", config.name, key, **recorded) as draft:
        draft.metrics.update(_rewrite(old, draft.path, table, gone, plain))
        draft.notices.append(f"{int(gone.sum())} documents were taken out of {old.manifest.name}-{old.key[:8]}")
    assert draft.artifact is not None
    say(f"{int(gone.sum())} documents taken out; the old shards are still at {old.path}")
    return draft.artifact


def _check_all_found(table: Any, urls: set[str], where: Path) -> None:
    held = {normal_url(url) for url in table["url"].to_pylist() if url} | set(table["id"].to_pylist())
    missing = sorted(url for url in urls if url not in held and normal_url(url) not in held)
    if missing:
        cause = f"the shards do not hold {missing[0]}" + (f" and {len(missing) - 1} more" if missing[1:] else "")
        fix = "look with `causerie data trace`: a copy goes by the address of the document that stayed"
        raise data_error("CAU-2010", cause, where=str(where), fix=fix)


def _rewrite(old: Artifact, target: Path, table: Any, gone: Any, config: dict[str, Any]) -> dict[str, Any]:
    """Copy every shard without the documents that go; the new metrics. `config["parts"]` is brought up to date."""
    metrics: dict[str, int] = {f"{split}_{of}": 0 for of in ("tokens", "bytes", "documents") for split in _SPLITS}
    by_file: dict[str, int] = {}
    staying: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row, leaves in zip(table.to_pylist(), gone, strict=True):
        if not leaves:
            staying[row["file"]].append(row)
    width = width_of(old)
    with IndexWriter(target) as index:
        for name in sorted(path.name for path in old.path.glob("*.bin")):
            source = map_tokens(old.path / name, width)
            writer = ShardWriter(target, name.removesuffix(".bin"), width, 1 << 62, numbered=False)
            for row in staying[name]:
                file, start = writer.add(source[row["start"] : row["start"] + row["tokens"]], row["bytes"])
                index.add(row, file, start, row["tokens"], row["bytes"])
            writer.close()
            split = "val" if name == "val.bin" else "train"
            by_file[name] = writer.tokens
            for of, value in zip(("tokens", "bytes", "documents"), _counts(writer), strict=True):
                metrics[f"{split}_{of}"] += value
    if config.get("parts"):
        config["parts"] = [{**part, "tokens": sum(by_file[f] for f in part["files"])} for part in config["parts"]]
    return dict(metrics)


_SPLITS = ("train", "val")


def _counts(writer: ShardWriter) -> tuple[int, int, int]:
    return writer.tokens, writer.text_bytes, writer.documents
