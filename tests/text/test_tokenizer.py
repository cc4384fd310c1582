"""Encoding and decoding: against the `tokenizers` library and transformers, on any Unicode text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from causerie.core import CauserieError
from causerie.text import Tokenizer, load_tokenizer
from causerie.text.bytelevel import SPECIALS
from causerie.text.tokenizer import TiktokenCodec, TokenizersCodec

any_text = st.text(max_size=60)
PIECES = (
    "l'|qu’| d'|'s|'ll|don't|été|é|œ|« | »|\u00a0|\u202f|12|7|\n|\r\n|"
    "\t|  |   |🙂|👩‍👩‍👧|日本|ß|ſ|İ|\u0345|\0|\x85|\u2028|!|...|_|-|x"
)
tricky_text = st.lists(st.sampled_from([*PIECES.split("|"), *SPECIALS[:4]]), max_size=25).map("".join)


@pytest.fixture(scope="session")
def other(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    """The same `tokenizer.json` in the `tokenizers` library."""
    loaded = tokenizers.Tokenizer.from_str(json.dumps(tokenizer.definition))
    loaded.encode_special_tokens = True
    return loaded


@given(text=any_text | tricky_text)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_ids_equal_those_of_the_tokenizers_library(
    text: str, tokenizer: Tokenizer, other: tokenizers.Tokenizer
) -> None:
    assert isinstance(tokenizer._codec, TiktokenCodec)
    assert tokenizer.encode(text) == other.encode(text, add_special_tokens=False).ids


@given(text=any_text | tricky_text)
@settings(max_examples=200, deadline=None)
def test_decode_inverts_encode_and_no_text_gives_special_ids(text: str, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not set(ids) & set(tokenizer.special.values())
    assert tokenizer.encode_batch([text, text]) == [ids, ids]


@pytest.mark.parametrize("text", ["<|im_end|>", "a<|endoftext|>b", "<|im_start|>assistant\n<|pad|><|reserved_3|>"])
def test_special_strings_stay_text_in_both_backends(text: str, tokenizer: Tokenizer) -> None:
    for codec in (tokenizer._codec, TokenizersCodec(tokenizer.definition)):
        assert not set(codec.encode(text)) & set(tokenizer.special.values())
        assert tokenizer.decode(codec.encode(text)) == text


def test_special_tokens_are_the_last_ids_in_their_order(tokenizer: Tokenizer) -> None:
    first = tokenizer.vocab_size - len(SPECIALS)
    assert dict(tokenizer.special) == {name: first + index for index, name in enumerate(SPECIALS)}
    assert tokenizer.eot_id == first
    assert tokenizer.decode([tokenizer.eot_id, *tokenizer.encode("a"), first + 1]) == "a"
    assert tokenizer.token_bytes(first) == b"<|endoftext|>"


@pytest.mark.parametrize("bad", [-1, 10**6])
def test_an_unknown_id_is_an_error(bad: int, tokenizer: Tokenizer) -> None:
    with pytest.raises(IndexError, match="not in 0"):
        tokenizer.decode([bad])


def test_french_words_keep_their_elided_article_apart(tokenizer: Tokenizer) -> None:
    pieces = [tokenizer.decode([id]) for id in tokenizer.encode("l'eau, qu’il, «l'eau")]
    assert not any("'e" in piece or "’i" in piece for piece in pieces)
    assert "".join(pieces) == "l'eau, qu’il, «l'eau"


def test_nothing_is_normalised(tokenizer: Tokenizer) -> None:
    composed, decomposed = "é", "e\u0301"
    assert tokenizer.encode(composed) != tokenizer.encode(decomposed)
    assert tokenizer.decode(tokenizer.encode(decomposed)) == decomposed


@pytest.mark.parametrize("piece", [" ", "\n", "a", "!", "1", "'", " \t", "é", "   x", "\r\n", "l'"])
def test_an_endless_run_is_encoded(piece: str, tokenizer: Tokenizer) -> None:
    text = piece * 100_000
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_lone_surrogate_becomes_the_replacement_character(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode("a\ud83db")) == "a\ufffdb"
    assert tokenizer.decode(TokenizersCodec(tokenizer.definition).encode("ab")) == "ab"


def test_save_and_load_give_the_same_ids(tokenizer: Tokenizer, tmp_path: Path, texts: tuple[str, ...]) -> None:
    tokenizer.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert isinstance(again._codec, TiktokenCodec)
    assert [again.encode(text) for text in texts] == [tokenizer.encode(text) for text in texts]
    assert (again.eot_id, again.eos_id, again.pad_id) == (tokenizer.eot_id, tokenizer.eos_id, tokenizer.pad_id)


def test_transformers_loads_the_folder_also_beside_a_model_config(
    tokenizer: Tokenizer, tmp_path: Path, texts: tuple[str, ...]
) -> None:
    tokenizer.save(tmp_path)
    config = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.eos_token == "<|im_end|>"
    assert theirs.pad_token == "<|pad|>"
    for text in texts:
        assert theirs(text, add_special_tokens=False)["input_ids"] == tokenizer.encode(text)
        assert theirs.decode(tokenizer.encode(text)) == text


def test_a_tokenizer_that_is_not_ours_is_encoded_by_the_library(tokenizer: Tokenizer, texts: tuple[str, ...]) -> None:
    changed = json.loads(json.dumps(tokenizer.definition))
    changed["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\w+|\W+"
    other = Tokenizer(changed, tokenizer.config)
    assert isinstance(other._codec, TokenizersCodec)
    assert all(other.decode(other.encode(text)) == text for text in texts)


def test_merges_out_of_order_are_not_taken_for_ours(tokenizer: Tokenizer) -> None:
    changed = json.loads(json.dumps(tokenizer.definition))
    changed["model"]["merges"].reverse()
    assert isinstance(Tokenizer(changed, tokenizer.config)._codec, TokenizersCodec)


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"model": {"vocab": {}}}', '{"model": {"vocab": {"a": 0}}}'])
def test_a_damaged_folder_is_refused(content: str | None, tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    if content is None:
        shutil.rmtree(tmp_path)
    else:
        (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8")
    with pytest.raises(CauserieError) as caught:
        load_tokenizer(tmp_path)
    assert caught.value.code == "CAU-1201"
    assert str(tmp_path) in caught.value.where


def test_a_folder_without_special_tokens_names_what_is_missing(tokenizer: Tokenizer, tmp_path: Path) -> None:
    definition = {**tokenizer.definition, "added_tokens": []}
    with pytest.raises(CauserieError, match="none of the special tokens"):
        Tokenizer(definition, {})
