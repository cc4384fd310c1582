"""Each suite against closed forms (a model of zero weights), transformers, and hand-made answers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from causerie.core import CauserieError, write_jsonl
from causerie.evals import EvalConfig, answer_loss, bits_per_byte, choice, ending, estimate, ifeval, preference, votes
from causerie.evals.bits_per_byte import windows
from causerie.evals.ending import repetition
from causerie.evals.ifeval import Task, judge, read_tasks
from causerie.evals.subject import Scored, Subject


def flat(folder: Path, **settings: object) -> Subject:
    return Subject(folder, EvalConfig(model=folder, **settings))


def value(result: object, metric: str) -> float:
    return estimate(result, metric, seed=0).value


@pytest.mark.parametrize("max_length", [7, 128])
def test_bits_per_byte_of_a_uniform_model_is_its_closed_form(uniform: Path, data: Path, max_length: int) -> None:
    subject = flat(uniform, max_length=max_length)
    result = bits_per_byte.run(subject, data / "documents.jsonl")
    texts = ["the cat sat on a mat " * n for n in (1, 3, 9)]
    tokens = sum(len(subject.tokenizer.encode(text)) for text in texts)
    bits = tokens * math.log2(subject.model.shape.vocab_size)
    assert value(result, "bits_per_byte") == pytest.approx(bits / sum(map(len, texts)))
    assert value(result, "nats_per_token") == pytest.approx(math.log(subject.model.shape.vocab_size))
    assert result.counts == {"empty documents left out": 1}


def test_windows_score_every_token_once() -> None:
    ids = list(range(100, 123))
    found = windows(ids, 5)
    scored = [id for part in found for id, wanted in zip(part.ids, part.mask, strict=True) if wanted]
    assert scored == ids[1:]
    assert max(len(part.ids) for part in found) <= 5
    assert windows(ids[:1], 5) == []
    with pytest.raises(CauserieError):
        windows(ids, 1)


def test_log_probs_equal_transformers_in_any_batching(tiny: Path) -> None:
    transformers = pytest.importorskip("transformers")
    reference = transformers.AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    generator = np.random.default_rng(0)
    sequences = [
        Scored.after(generator.integers(0, 250, 4).tolist(), generator.integers(0, 250, n).tolist())
        for n in range(1, 20)
    ]
    one_by_one = flat(tiny, batch_tokens=1).log_probs(sequences, "test")
    together = flat(tiny, batch_tokens=10_000).log_probs(sequences, "test")
    for sequence, first, second in zip(sequences, one_by_one, together, strict=True):
        with torch.no_grad():
            logits = reference(torch.tensor([sequence.ids])).logits[0].double().log_softmax(-1)
        expected = [float(logits[at - 1, sequence.ids[at]]) for at in range(4, len(sequence.ids))]
        assert first.tolist() == pytest.approx(expected, abs=1e-4)
        assert second.tolist() == pytest.approx(first.tolist(), abs=1e-5)


def test_answer_loss_counts_answer_and_end_of_turn_only(uniform: Path, data: Path) -> None:
    subject = flat(uniform)
    result = answer_loss.run(subject, (data / "chats.jsonl",))
    assert value(result, "nats_per_token") == pytest.approx(math.log(subject.model.shape.vocab_size))
    tokens = [len(subject.tokenizer.encode(text)) + 1 for text in ("yes", "no dog", "rain fell")]
    assert [item.weights["nats_per_token"] for item in result.items] == tokens
    assert [item.weights["bits_per_byte"] for item in result.items] == [3, 6, 9]


def test_answer_loss_counts_rows_it_cannot_use(tiny: Path, tmp_path: Path) -> None:
    ask = {"role": "user", "content": "the cat " * 20}
    rows = [
        {"messages": [ask]},
        {"messages": [ask, {"role": "assistant", "content": "yes"}]},
        {"messages": [{"role": "assistant", "content": "yes " * 60}]},
    ]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    result = answer_loss.run(flat(tiny, max_length=30), (tmp_path / "rows.jsonl",))
    assert result.counts == {"rows without an answer within max_length": 2, "rows cut at max_length": 1}
    assert "bits_per_byte" not in result.items[0].values  # its bytes were not all scored


def test_preference_of_a_uniform_model_is_length(uniform: Path, data: Path) -> None:
    subject = flat(uniform)
    result = preference.run(subject, data / "preferences")
    each = math.log(subject.model.shape.vocab_size)
    lengths = [
        len(subject.tokenizer.encode(("yes " * n).strip())) - len(subject.tokenizer.encode("no")) for n in (1, 2, 3)
    ]
    assert [item.values["margin"] for item in result.items] == pytest.approx([-each * n for n in lengths], rel=1e-5)
    assert value(result, "accuracy_per_token") == pytest.approx(0.5)
    assert value(result, "chosen_nats_per_token") == pytest.approx(each)
    assert len({item.cluster for item in result.items}) == 1  # one prompt, so one independent unit


def test_margin_against_itself_is_zero_and_against_uniform_is_shifted(tiny: Path, uniform: Path, data: Path) -> None:
    itself = preference.run(flat(tiny, reference=tiny), data / "preferences")
    assert [item.values["implicit_margin"] for item in itself.items] == [0, 0, 0]
    assert value(itself, "implicit_accuracy") == 0.5
    plain = preference.run(flat(tiny), data / "preferences")
    shifted = preference.run(flat(tiny, reference=uniform), data / "preferences")
    base = preference.run(flat(uniform), data / "preferences")
    for first, second, third in zip(plain.items, base.items, shifted.items, strict=True):
        expected = first.values["margin"] - second.values["margin"]
        assert third.values["implicit_margin"] == pytest.approx(expected, abs=1e-4)


def test_votes_carry_their_sign(uniform: Path, data: Path) -> None:
    subject = flat(uniform)
    result = votes.run(subject, data / "preferences")
    each = math.log(subject.model.shape.vocab_size)
    assert [item.values["agreement"] for item in result.items] == pytest.approx([each, -each, -each])
    assert value(result, "liked_nats_per_token") == pytest.approx(each)


def test_ending_reads_prompts_and_judges_answers(subject: Subject, data: Path) -> None:
    result = ending.run(subject, data / "prompts.jsonl")
    assert [item.detail["prompt"] for item in result.items] == ["the cat", "the cat?"]
    for item in result.items:
        assert item.values["answer_tokens"] <= 12
        assert item.values["ended"] == float(item.values["answer_tokens"] < 12) or item.values["answer_tokens"] == 12
    again = ending.run(subject, data / "prompts.jsonl")
    assert [item.detail for item in again.items] == [item.detail for item in result.items]


def test_a_model_that_always_stops_gives_empty_answers(tiny: Path, data: Path, tmp_path: Path) -> None:
    """The collapse of lab.md: pair accuracy would not show it, this suite does."""
    from causerie.model import load_model, save_model

    subject = flat(tiny)
    model = load_model(tiny)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.norm.weight.fill_(1)
        model.embed_tokens.weight.fill_(1e-3)
        model.embed_tokens.weight[subject.chat.end_id] = 1
    save_model(model, tmp_path, tiny)
    result = ending.run(flat(tmp_path), data / "prompts.jsonl")
    assert value(result, "ended") == 1
    assert value(result, "empty") == 1
    assert value(result, "answer_tokens") == 0


@pytest.mark.parametrize(
    ("ids", "share"), [([], 0), ([1, 2, 3], 0), ([1, 2, 3, 4, 5, 6], 0), ([7] * 13, 0.9), ([1, 2] * 5, 1 - 2 / 7)]
)
def test_repetition(ids: list[int], share: float) -> None:
    assert repetition(ids) == pytest.approx(share)


def test_ifeval_figures_are_those_of_the_paper(data: Path) -> None:
    first, second = read_tasks(data / "ifeval.jsonl")
    good = judge(first, "Fine.")
    half = judge(second, "<<Title>> short")
    assert good.values == {"prompt_strict": 1, "prompt_loose": 1, "instruction_strict": 1, "instruction_loose": 1}
    assert half.values == {"prompt_strict": 0, "prompt_loose": 0, "instruction_strict": 1, "instruction_loose": 1}
    assert half.weights == {"instruction_strict": 2, "instruction_loose": 2}
    assert half.detail["followed"] == [["detectable_format:title", True], ["length_constraints:number_words", False]]


def test_ifeval_generates_and_judges(subject: Subject, data: Path) -> None:
    result = ifeval.run(subject, data / "ifeval.jsonl")
    assert [item.id for item in result.items] == ["1", "2"]
    assert result.items[1].values["prompt_strict"] == 0  # 12 tokens are no 900 words


def test_ifeval_refuses_rows_it_does_not_understand(tmp_path: Path) -> None:
    good = {"prompt": "x", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    for broken in (
        {"kwargs": []},
        {"kwargs": [1]},
        {"instruction_id_list": []},
        {"instruction_id_list": ["a:b"]},
        {"prompt": 1},
    ):
        write_jsonl(tmp_path / "rows.jsonl", [good, {**good, **broken}])
        with pytest.raises(CauserieError) as caught:
            read_tasks(tmp_path / "rows.jsonl")
        assert caught.value.code in ("CAU-4204", "CAU-4206")
        assert caught.value.where.endswith("rows.jsonl:2")


def test_the_published_ifeval_file_is_read_whole(pack: Path) -> None:
    tasks: list[Task] = read_tasks(pack / "eval" / "ifeval_input_data.jsonl")
    assert len(tasks) == 541
    assert sum(len(task.instructions) for task in tasks) == 834
    assert len({name for task in tasks for name, _ in task.instructions}) == 25
    for task in tasks:
        judge(task, "An answer.\n\nWith two paragraphs.")  # every argument is one its check takes


def test_choice_prefers_the_likelier_ending_per_byte(tiny: Path, uniform: Path, data: Path) -> None:
    result = choice.run(flat(uniform), (data / "choice.jsonl",))
    subject = flat(uniform)
    for item, choices in zip(
        result.items, (["the cat", "rain"], ["the cat", "rain", "roofs"], ["a mat", "roofs"]), strict=True
    ):
        rate = [len(subject.tokenizer.encode(f" {text}")) / len(text) for text in choices]
        assert item.values["choice"] == float(int(np.argmin(rate)) == item.detail["answer"])
    assert [metric.name for metric in result.metrics] == ["choice", "choice.sum"]
    scored = choice.run(flat(tiny), (data / "choice.jsonl",))
    assert {len(item.detail["log_p"]) for item in scored.items} == {2, 3}


def test_mean_of_sets_is_the_mean_of_their_accuracies(tiny: Path, data: Path, tmp_path: Path) -> None:
    rows = [{"question": "q", "choices": ["a", "b"], "answer": 0}] * 2 + [
        {"question": "q", "choices": ["a", "b"], "answer": 1}
    ]
    write_jsonl(tmp_path / "other.jsonl", rows)
    result = choice.run(flat(tiny), (data / "choice.jsonl", tmp_path / "other.jsonl"))
    expected = (value(result, "choice") + value(result, "other")) / 2
    assert value(result, "mean_of_sets") == pytest.approx(expected)
    assert len({item.id for item in result.items}) == len(result.items) == 6
