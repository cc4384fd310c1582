"""Texts to train on, and a SentencePiece vocabulary in Gemma's manner, small enough to read: learnt by merging, like the real one."""

from __future__ import annotations

import functools
from collections import Counter
from itertools import pairwise

from causerie.text import Tokenizer, spm_to_tokenizer_json, spm_tokenizer
from causerie.text.spm import BYTE, CONTROL, NORMAL, USER_DEFINED

# two languages, code, quotation marks, spaces of every kind
TEXTS = (
    "The cat sat on the mat, and the dog didn't mind. It's 12345 o'clock; they'll say we've won!\n\n\tAn indented line.",
    "L'été dernier, qu'est-ce qu'on a mangé ? « Des pommes », dit-il ; c’était l’année où Noël tomba un mardi…\n",
    "Aujourd'hui, j'ai vu l'œuvre d'un élève : ça coûte 15 € l'unité. D'où vient-elle ? Lorsqu'il pleut, n'y va pas.\n",
    "def main():\n    return {'key': [1, 2, 3]}\n\n\n# a comment    with   spaces\r\n",
)

Lists = tuple[list[str], list[float], list[int]]


@functools.cache
def gemma_like_lists(merges: int = 300) -> Lists:
    """Tokens, scores and types as a GGUF file lists them: controls, user-defined runs, bytes, merges, characters."""
    controls = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<unused{i}>" for i in range(5))]
    controls += ["<start_of_turn>", "<end_of_turn>"]
    runs = ["\n" * n for n in range(1, 5)] + [" " * n for n in range(2, 6)] + ["\t", "\t\t"]
    tokens = [*controls, *runs, *(f"<0x{byte:02X}>" for byte in range(256))]
    types = [CONTROL] * len(controls) + [USER_DEFINED] * len(runs) + [BYTE] * 256
    scores = [-1000.0] * (len(controls) + len(runs)) + [0.0] * 256
    learnt, characters = _learn(merges)
    return (
        tokens + learnt + characters,
        scores + [-float(rank) for rank in range(len(learnt) + len(characters))],
        types + [NORMAL] * (len(learnt) + len(characters)),
    )


def _learn(merges: int) -> tuple[list[str], list[str]]:
    words = [list("▁" + word) for text in TEXTS for word in text.split()]
    learnt: list[str] = []
    for _ in range(merges):
        pairs = Counter(pair for word in words for pair in pairwise(word))
        if not pairs:
            break
        left, right = max(pairs, key=lambda pair: (pairs[pair], pair))
        if left + right not in learnt:
            learnt.append(left + right)
        words = [_merged(word, left, right) for word in words]
    return learnt, sorted({letter for word in words for token in word for letter in token})


def _merged(word: list[str], left: str, right: str) -> list[str]:
    out: list[str] = []
    for part in word:
        if out and out[-1] == left and part == right:
            out[-1] = left + right
        else:
            out.append(part)
    return out


@functools.cache
def gemma_like() -> Tokenizer:
    """The whole vocabulary as a tokenizer with Gemma's chat format."""
    return spm_tokenizer(spm_to_tokenizer_json(*gemma_like_lists())[0])
