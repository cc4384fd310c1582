"""Does curation pay? The same small model on the same number of tokens, once of raw and once of curated text from the
same archives, compared by bits per byte on clean held-out English and French.

Raw: all text of every page (resiliparse, menus included) and every text as it is, nothing dropped. Curated: what
`data build` makes of the same files. Repeat with

    .venv/bin/python bench/curation_pays.py [--seeds 0 1] [--steps 100] [--workspace DIR] [--quick]

The corpora stay in the workspace, so a second call only trains.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
from pathlib import Path

import zstandard
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import bytes_to_str, detect_encoding

from causerie.core import Artifact, data_pack, existing_artifact, open_artifact, sha256_json, write_artifact
from causerie.data import DataBuildConfig, PackConfig, build, iter_documents, pack
from causerie.evals import EvalConfig, evaluate
from causerie.text import TokenizerConfig, train_tokenizer
from causerie.train import PretrainConfig, pretrain


def raw_corpus(files: list[Path], workspace: Path) -> Artifact:
    """A corpus of everything, as text."""
    key = sha256_json({"raw": [[file.name, file.stat().st_size] for file in files], "as of": 1})
    there = existing_artifact(None, workspace, "corpus", "raw", key)
    if there is not None:
        return there
    kept = size = 0
    with write_artifact(workspace, "corpus", "raw", key) as draft:
        with (
            open(draft.path / "documents.jsonl.zst", "wb") as file,
            zstandard.ZstdCompressor(3).stream_writer(file) as out,
        ):
            for source in files:
                for document in iter_documents(source):
                    if document.problem or not document.body:
                        continue
                    html = bytes_to_str(document.body, detect_encoding(document.body))
                    text = html if document.kind == "text" else extract_plain_text(html)
                    if text.strip():
                        row = {"id": document.id, "text": text, "url": document.url, "source": document.source}
                        out.write(json.dumps(row).encode() + b"\n")
                        kept, size = kept + 1, size + len(text.encode("utf-8", "replace"))
        draft.metrics |= {"documents_kept": kept, "bytes_kept": size}
    assert draft.artifact is not None
    return draft.artifact


def curated_corpus(files: list[Path], workspace: Path) -> Artifact:
    return build(DataBuildConfig(sources=tuple(map(str, files)), name="curated"), workspace)


def held_out(pack_folder: Path, target: Path, each: int) -> Path:
    """Clean documents, half of them French, cut to 4,000 characters: nothing of them is trained on."""
    if not target.exists():
        rows = []
        for name in ("en-002", "fr-000"):
            path = pack_folder / "pretrain" / f"{name}.jsonl.zst"
            reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(path.open("rb"), closefd=True)
            texts = (json.loads(line)["text"] for line in io.TextIOWrapper(reader, "utf-8", newline="\n"))
            rows += [{"id": f"{name}-{n}", "text": text[:4000]} for n, text in zip(range(each), texts, strict=False)]
        target.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workspace", type=Path, default=Path("workspace/curation-pays"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--curated", type=Path, help="a corpus built of the same archives, instead of building it")
    parser.add_argument("--quick", action="store_true", help="one archive, 10 steps, one seed")
    options = parser.parse_args()
    data, work = data_pack(), options.workspace
    if data is None:
        print("left out: the data pack is not here (CAUSERIE_DATA)")
        sys.exit(0)
    if options.quick:
        options.steps, options.seeds, options.depth, work = 10, [0], 2, work / "quick"
    work.mkdir(parents=True, exist_ok=True)
    archives = [*sorted((data / "warc").rglob("*.warc*.gz")), data / "pretrain" / "raw-noise.jsonl.zst"]
    archives = archives[:1] if options.quick else archives
    corpora = {
        "raw": raw_corpus(archives, work),
        "curated": open_artifact(options.curated) if options.curated else curated_corpus(archives, work),
    }
    clean = held_out(data, work / "clean.jsonl", 10 if options.quick else 100)
    learn = (str(corpora["raw"].path), str(corpora["curated"].path))
    tokenizer = train_tokenizer(TokenizerConfig(learn, vocab_size=4096, max_megabytes=16), work)
    shards = {
        name: pack(PackConfig(made.path, tokenizer.path, name=name, val_fraction=0.05), work)
        for name, made in corpora.items()
    }
    for name, made in shards.items():
        found, tokens = corpora[name].manifest.metrics, made.manifest.metrics["train_tokens"]
        print(
            f"{name}: {found['documents_kept']:,} documents, {found['bytes_kept'] / 1e6:.1f} MB, {tokens / 1e6:.2f} M tokens"
        )
    budget = options.steps * 16 * 256
    print(f"each model: depth {options.depth}, {options.steps} updates, {budget / 1e6:.2f} M tokens, vocabulary 4,096")
    for seed in options.seeds:
        models = {}
        for name, made in shards.items():
            begun = time.monotonic()
            settings = {"depth": options.depth, "steps": options.steps, "batch_size": 16, "seq_len": 256, "seed": seed}
            models[name] = pretrain(
                PretrainConfig(shards=made.path, tokenizer=tokenizer.path, name=name, **settings), work
            )
            print(f"  seed {seed}, {name}: {time.monotonic() - begun:.0f} s", file=sys.stderr)
        config = EvalConfig(
            models["curated"].path, ("bits_per_byte",), models["raw"].path, documents=clean, max_length=257
        )
        report = evaluate(config, work)
        (compared,) = [row for row in report.compared if row.metric == "bits_per_byte"]
        curated = report.value("bits_per_byte", "bits_per_byte")
        raw = next(figure.interval.value for figure in report.against_figures if figure.metric == "bits_per_byte")
        print(
            f"seed {seed}: raw {raw:.4f}, curated {curated:.4f} bits per byte on clean text; curated - raw "
            f"{compared.difference} ({compared.difference.n} documents, 95 %), ratio {curated / raw:.3f}"
        )


if __name__ == "__main__":
    main()
