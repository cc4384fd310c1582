"""Evals and graders through the official client."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest

from causerie.serve.graders.formula import calculate, check_formula
from causerie.serve.graders.similarity import bleu, gleu, longest_common, rouge, similarity
from causerie.serve.graders.templates import fill
from tests.serve.conftest import ANSWER, Script
from tests.waiting import wait_for

CHECK = {
    "type": "string_check",
    "name": "same",
    "input": "{{sample.output_text}}",
    "operation": "eq",
    "reference": "{{item.answer}}",
}
CONFIG = {"type": "custom", "item_schema": {"type": "object"}, "include_sample_schema": True}


def wait(client: openai.OpenAI, run: Any) -> Any:
    find = lambda: client.evals.runs.retrieve(run.id, eval_id=run.eval_id)  # noqa: E731
    wait_for(lambda: find().status not in ("queued", "in_progress"))
    return find()


def test_a_model_is_measured(client: openai.OpenAI) -> None:
    near = {
        "type": "text_similarity",
        "name": "near",
        "input": "{{sample.output_text}}",
        "reference": "{{item.answer}}",
        "evaluation_metric": "rouge_l",
        "pass_threshold": 0.9,
    }
    spec = client.evals.create(data_source_config=CONFIG, testing_criteria=[CHECK, near], name="salut")
    rows = [{"item": {"q": "Un ?", "answer": ANSWER}}, {"item": {"q": "Deux ?", "answer": "autre chose"}}]
    source = {
        "type": "completions",
        "model": "petit",
        "source": {"type": "file_content", "content": rows},
        "input_messages": {"type": "template", "template": [{"role": "user", "content": "Q: {{item.q}}"}]},
        "sampling_params": {"temperature": 0, "seed": 1, "max_completion_tokens": 64},
    }
    run = client.evals.runs.create(spec.id, data_source=source, name="premier")
    assert run.status == "queued"
    done = wait(client, run)
    assert done.status == "completed"
    assert (done.result_counts.total, done.result_counts.passed, done.result_counts.failed) == (2, 1, 1)
    assert [(each.testing_criteria, each.passed) for each in done.per_testing_criteria_results] == [
        ("same", 1),
        ("near", 1),
    ]
    (usage,) = done.per_model_usage
    assert (usage.run_model_name, usage.invocation_count) == ("petit", 2)
    items = list(client.evals.runs.output_items.list(run.id, eval_id=spec.id))
    assert sorted(item.status for item in items) == ["fail", "pass"]
    passed = next(item for item in items if item.status == "pass")
    assert passed.sample.input[0].content == "Q: Un ?"
    assert passed.sample.output[0].content == ANSWER
    failed = list(client.evals.runs.output_items.list(run.id, eval_id=spec.id, status="fail"))
    assert [item.id for item in failed] == [item.id for item in items if item.status == "fail"]
    one = client.evals.runs.output_items.retrieve(failed[0].id, eval_id=spec.id, run_id=run.id)
    assert one.results[0].passed is False
    assert client.evals.update(spec.id, name="autre").name == "autre"
    assert client.evals.delete(spec.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.evals.runs.retrieve(run.id, eval_id=spec.id)


def test_answers_in_files_are_graded_and_files_are_checked(client: openai.OpenAI) -> None:
    spec = client.evals.create(data_source_config=CONFIG, testing_criteria=[CHECK])
    rows = [{"item": {"answer": "a"}, "sample": {"output_text": text}} for text in ("a", "b", "a")]
    content = b"\n".join(json.dumps(row).encode() for row in rows)
    file = client.files.create(file=("e.jsonl", content), purpose="evals")
    source = {"type": "jsonl", "source": {"type": "file_id", "id": file.id}}
    done = wait(client, client.evals.runs.create(spec.id, data_source=source))
    assert (done.result_counts.passed, done.result_counts.failed) == (2, 1)
    bad = client.files.create(file=("e.jsonl", content + b"\n{"), purpose="evals")
    source = {"type": "jsonl", "source": {"type": "file_id", "id": bad.id}}
    done = wait(client, client.evals.runs.create(spec.id, data_source=source))
    assert done.status == "failed"
    assert "line 4" in done.error.message


def test_stored_answers_are_graded(client: openai.OpenAI) -> None:
    question = [{"role": "user", "content": "Ça va ?"}]
    client.chat.completions.create(model="petit", messages=question, store=True, metadata={"set": "x"})
    check = CHECK | {"reference": ANSWER}
    config = {"type": "stored_completions", "metadata": {"set": "x"}}
    spec = client.evals.create(data_source_config=config, testing_criteria=[check])
    source = {"type": "completions", "source": {"type": "stored_completions", "metadata": {"set": "x"}}}
    done = wait(client, client.evals.runs.create(spec.id, data_source=source))
    assert (done.result_counts.total, done.result_counts.passed) == (1, 1)


def test_models_grade(client: openai.OpenAI, script: Script) -> None:
    script.answer = '{"label": "good"}'
    label = {
        "type": "label_model",
        "name": "label",
        "model": "petit",
        "input": [{"role": "user", "content": "Is {{item.x}} good?"}],
        "labels": ["good", "bad"],
        "passing_labels": ["good"],
    }
    spec = client.evals.create(data_source_config=CONFIG, testing_criteria=[label])
    source = {"type": "jsonl", "source": {"type": "file_content", "content": [{"item": {"x": "this"}}]}}
    done = wait(client, client.evals.runs.create(spec.id, data_source=source))
    assert done.result_counts.passed == 1
    grammar = json.loads(script.asked[0][1].grammar.value)
    assert grammar["properties"]["label"] == {"enum": ["good", "bad"]}
    script.answer = '{"result": 7}'
    score = {"type": "score_model", "name": "s", "model": "petit", "input": label["input"], "range": [0, 10]}
    got = client.fine_tuning.alpha.graders.run(grader=score, model_sample="x")
    assert got.reward == 7
    assert not got.metadata.errors.other_error
    script.answer = "no json"
    got = client.fine_tuning.alpha.graders.run(grader=score, model_sample="x")
    assert got.metadata.errors.api_model_grader_server_error
    assert (got.reward, got.metadata.type) == (0, "score_model")


def test_a_run_is_cancelled(client: openai.OpenAI, script: Script) -> None:
    script.held_after = 3
    spec = client.evals.create(data_source_config=CONFIG, testing_criteria=[CHECK])
    rows = [{"item": {"q": str(n), "answer": ""}} for n in range(100)]
    source = {"type": "completions", "model": "petit", "source": {"type": "file_content", "content": rows}}
    run = client.evals.runs.create(spec.id, data_source=source)
    assert client.evals.runs.cancel(run.id, eval_id=spec.id).status == "canceled"
    assert client.evals.runs.delete(run.id, eval_id=spec.id).deleted
    assert list(client.evals.runs.list(spec.id)) == []


@pytest.mark.parametrize(
    "criterion",
    [
        {"type": "python", "name": "x", "source": "def grade(): return 1"},
        {"type": "string_check", "name": "x", "input": "", "operation": "near", "reference": ""},
        CHECK | {"type": "text_similarity", "evaluation_metric": "meteor"},
        {
            "type": "label_model",
            "name": "x",
            "model": "m",
            "input": [{"role": "u", "content": ""}],
            "labels": ["a"],
            "passing_labels": ["b"],
        },
    ],
)
def test_graders_that_cannot_be(criterion: dict[str, Any], http: httpx.Client) -> None:
    answer = http.post("/v1/evals", json={"data_source_config": CONFIG, "testing_criteria": [criterion]})
    assert answer.status_code == 400
    assert http.post("/v1/fine_tuning/alpha/graders/validate", json={"grader": criterion}).status_code == 400


def test_graders_are_joined_by_formulas(client: openai.OpenAI) -> None:
    like = CHECK | {"name": "b", "operation": "ilike", "input": "ABC", "reference": "b"}
    multi = {
        "type": "multi",
        "name": "m",
        "graders": {"a": CHECK, "b": like},
        "calculate_output": "0.25 * a + max(b, 0) / 2",
    }
    got = client.fine_tuning.alpha.graders.run(grader=multi, model_sample="x", item={"answer": "x"})
    assert got.reward == 0.75
    assert got.sub_rewards == {"a": 1.0, "b": 1.0}
    assert client.fine_tuning.alpha.graders.validate(grader=multi).grader.calculate_output.startswith("0.25")


@pytest.mark.parametrize(
    "text",
    [
        "a.b",
        "__import__('os')",
        "a if b else c",
        "[a]",
        "a + nobody",
        "lambda: 1",
        "(" * 500,
        "a" + "+a" * 300,
        "a ** 9 ** 9",
    ],
)
def test_formulas_are_arithmetic_only(text: str) -> None:
    with pytest.raises(ValueError, match="calculate_output"):
        check_formula(text, ["a", "b"])
    with pytest.raises(ValueError, match="calculate_output"):
        calculate("1 / a", {"a": 0.0})


def test_similarities_have_their_known_values() -> None:
    same = ["the", "cat", "sat", "on", "the", "mat"]
    assert bleu(same, same) == pytest.approx(1)
    assert gleu(same, same) == rouge(same, same, 2) == 1
    assert longest_common("ABCBDAB", "BDCABA") == 4  # Cormen et al., Introduction to Algorithms, fig. 15.8
    assert rouge(["police", "killed", "the", "gunman"], ["police", "kill", "the", "gunman"], 1) == 0.75  # Lin 2004, §3
    assert rouge(["a", "b"], ["c", "d"], 1) == bleu(["a"], ["b"]) == 0
    assert similarity("fuzzy_match", "abcd", "bcde") == 0.75  # difflib's documented example
    assert 0 < similarity("bleu", "the cat sat", "the cat sat on the mat") < 1
    for metric in ("bleu", "gleu", "rouge_1", "rouge_5", "rouge_l", "fuzzy_match"):
        assert similarity(metric, "", "") in (0, 1)


def test_templates_are_filled() -> None:
    known = {"item": {"a": {"b": 1}, "c": "é"}, "sample": {"output_text": "{{item.c}}"}}
    assert fill("{{item.c}} {{ item.a.b }} {{item.none}}|{{sample.output_text}}", known) == "é 1 |{{item.c}}"
