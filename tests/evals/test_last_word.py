"""LAMBADA's suite against closed forms and transformers."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from causerie.core import CauserieError, data_pack, write_jsonl
from causerie.evals import EvalConfig, estimate, last_word
from causerie.evals.last_word import split_passage
from causerie.evals.subject import Subject

CONTEXTS = ("the cat sat on", "rain fell softly over every", "a", "old grey roofs and " * 3 + "town")


def flat(folder: Path, **settings: object) -> Subject:
    return Subject(folder, EvalConfig(model=folder, **settings))


def test_a_uniform_model_needs_the_logarithm_of_its_vocabulary_for_every_token(uniform: Path, data: Path) -> None:
    subject = flat(uniform)
    result = last_word.run(subject, data / "passages.jsonl")
    tokens = [len(subject.tokenizer.encode(f" {word}")) for word in ("mat", "over")]
    assert [item.detail["tokens"] for item in result.items] == tokens
    expected = sum(tokens) / 2 * math.log(subject.model.shape.vocab_size)
    assert estimate(result, "nats_per_word", seed=0).value == pytest.approx(expected)


@pytest.mark.parametrize("batch_tokens", [1, 10_000])
def test_right_is_what_transformers_would_write(tiny: Path, tmp_path: Path, batch_tokens: int) -> None:
    transformers = pytest.importorskip("transformers")
    reference = transformers.AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    subject = flat(tiny, batch_tokens=batch_tokens)
    tokenizer = subject.tokenizer
    words = ["mat", "dog", "yes", "said"]
    write_jsonl(tmp_path / "passages.jsonl", [{"text": f"{c} {w}"} for c in CONTEXTS for w in words])
    result = last_word.run(subject, tmp_path / "passages.jsonl")
    for item, (context, word) in zip(result.items, [(c, w) for c in CONTEXTS for w in words], strict=True):
        before, after = tokenizer.encode(context), tokenizer.encode(f" {word}")
        with torch.no_grad():
            logits = reference(torch.tensor([[tokenizer.eot_id, *before, *after]])).logits[0, len(before) : -1]
        log_p = logits.double().log_softmax(-1)[torch.arange(len(after)), torch.tensor(after)]
        assert item.values["nats_per_word"] == pytest.approx(-float(log_p.sum()), abs=1e-4)
        assert item.values["right"] == float(logits.argmax(-1).tolist() == after)


def test_a_word_that_the_model_would_write_is_right(tiny: Path) -> None:
    subject = flat(tiny)
    start = [subject.tokenizer.eot_id, *subject.tokenizer.encode("the cat")]
    with torch.no_grad():
        best = int(subject.model.logits(subject.model(torch.tensor([start]))[0, -1]).argmax())
    from causerie.evals.subject import Scored

    other = (best + 1) % 256
    both = subject.greedy([Scored.after(start, [best]), Scored.after(start, [other])], "test")
    assert [right for _, right in both] == [True, False]
    assert both[0][0][0] > both[1][0][0]


def test_passages_are_split_as_the_harness_does(tmp_path: Path) -> None:
    text = "`` who is he ? '' asked ann of bob"
    for row in ({"text": text}, {"context": text[:-3], "continuation": "bob"}, {"text": f" {text}\n"}):
        context, word = split_passage(row, "x")
        assert context.split(" ") == text.split(" ")[:-1]
        assert word == "bob"
    for row in ({"text": "alone"}, {"text": ""}, {"text": 3}, {"context": "a"}, {}):
        write_jsonl(tmp_path / "rows.jsonl", [{"text": "two words"}, row])
        with pytest.raises(CauserieError) as caught:
            last_word.run(None, tmp_path / "rows.jsonl")  # type: ignore[arg-type]
        assert (caught.value.code, caught.value.where) == ("CAU-4204", f"{tmp_path / 'rows.jsonl'}:2")


def test_overlong_contexts_lose_their_beginning(tiny: Path) -> None:
    subject = flat(tiny, max_length=12)
    scored = subject.continued("the cat sat on a mat " * 9, " mat")
    assert len(scored.ids) == 12
    assert scored.ids[0] == subject.tokenizer.eot_id
    tail = subject.tokenizer.encode("the cat sat on a mat " * 9) + subject.tokenizer.encode(" mat")
    assert list(scored.ids[1:]) == tail[-11:]


@pytest.mark.skipif(data_pack() is None, reason="the data pack is not there")
def test_the_published_passages_are_read_whole() -> None:
    from causerie.evals.rows import named, read_rows

    pack = data_pack()
    assert pack is not None
    rows = list(named(read_rows(pack / "eval" / "lambada_test.jsonl.gz")))
    split = [split_passage(row, where) for _, where, row in rows]
    assert len(split) == 5153
    assert split[0][1] == "signs"
    assert split[0][0].endswith("i do n't care about")
