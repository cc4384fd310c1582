"""What suites ask of a model - scores, greedy answers - beside transformers on the same folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from causerie.core import CauserieError
from causerie.evals import EvalConfig, choice
from causerie.evals.choice_sets import Question
from causerie.evals.rows import spread
from causerie.evals.subject import Scored, Subject
from causerie.model import load_model, save_model

QUESTIONS = [
    Question("plain", ("the cat",) * 3, (" sat on a mat", " said yes", " fell"), 0),
    Question("contexts", ("the dog and", "rain and"), (" roofs in town", " roofs in town"), 1),
    Question("accents", ("every",) * 2, (" élève à Noël", " dog"), 0),
    Question("nothing before", ("", ""), (" soft rain", " old mat"), 1),
]


@pytest.fixture(scope="module")
def reference(tiny: Path) -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)


def by_transformers(reference: Any, subject: Subject, context: str, ending: str) -> float:
    start = [subject.tokenizer.eot_id, *subject.tokenizer.encode(context)]
    end = subject.tokenizer.encode(ending)
    with torch.no_grad():
        log_p = reference(torch.tensor([[*start, *end]])).logits[0].double().log_softmax(-1)
    return sum(float(log_p[len(start) + i - 1, token]) for i, token in enumerate(end))


@pytest.mark.parametrize("batch_tokens", [1, 64, 10_000])
def test_choices_are_scored_as_transformers_scores_them(
    tiny: Path, reference: Any, batch_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = Subject(tiny, EvalConfig(model=tiny, batch_tokens=batch_tokens))
    monkeypatch.setattr(choice, "read_set", lambda path: ("made", QUESTIONS))
    result = choice.run(subject, [Path("made.jsonl")])
    for question, item in zip(QUESTIONS, result.items, strict=True):
        expected = [
            by_transformers(reference, subject, context, ending)
            for context, ending in zip(question.contexts, question.endings, strict=True)
        ]
        assert item.detail["log_p"] == pytest.approx(expected, abs=2e-4)
        by_sum = float(int(np.argmax(expected)) == question.answer)
        sizes = [len(ending[1:].encode()) for ending in question.endings]
        by_bytes = float(int(np.argmax(np.array(expected) / sizes)) == question.answer)
        assert (item.values["made.sum"], item.values["made"]) == (by_sum, by_bytes)


def test_answers_are_what_transformers_generates(tiny: Path, reference: Any) -> None:
    subject = Subject(tiny, EvalConfig(model=tiny, max_tokens=10))
    prompts = [subject.tokenizer.encode(text) for text in ("the cat sat", "rain fell softly over old", "yes")]
    for prompt, answer in zip(prompts, subject.answers(prompts, "test"), strict=True):
        ids = torch.tensor([prompt])
        stops = list(subject.chat.stop_ids)
        made = reference.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=10, do_sample=False, eos_token_id=stops,
            pad_token_id=stops[0],
        )[0, len(prompt) :].tolist()  # fmt: skip
        ended = bool(made) and made[-1] in stops
        assert list(answer.ids) == (made[:-1] if ended else made)
        assert answer.ended == ended
        assert answer.text == subject.tokenizer.decode(answer.ids)


def test_a_model_of_broken_weights_is_refused_by_name(tiny: Path, tmp_path: Path) -> None:
    model = load_model(tiny)
    with torch.no_grad():
        model.norm.weight.fill_(float("nan"))
    save_model(model, tmp_path, tiny)
    subject = Subject(tmp_path, EvalConfig(model=tmp_path))
    for ask in (subject.log_probs, subject.greedy):
        with pytest.raises(CauserieError) as caught:
            ask([Scored.after([1, 2], [3])], "test")
        assert (caught.value.code, caught.value.where) == ("CAU-4209", str(tmp_path))


def test_the_first_token_is_never_scored_and_nothing_is_fine(tiny: Path) -> None:
    subject = Subject(tiny, EvalConfig(model=tiny))
    first, rest = subject.log_probs([Scored([1], [1]), Scored([1, 2, 3], [1, 1, 1])], "test")
    assert (len(first), len(rest)) == (0, 2)
    assert subject.greedy([Scored([1], [1])], "test")[0][1]
    assert subject.log_probs([], "test") == []


@pytest.mark.parametrize(("count", "limit"), [(10, 0), (10, 3), (10, 10), (3, 10), (7, 1), (0, 5)])
def test_a_sample_is_spread_evenly_over_the_file(count: int, limit: int) -> None:
    found = spread(list(range(count)), limit)
    assert len(found) == (min(count, limit) if limit else count)
    assert found == sorted(set(found))
    if limit and 1 < limit < count:
        gaps = np.diff(found)
        assert gaps.max() - gaps.min() <= 1
        assert found[-1] >= count - count / limit - 1
