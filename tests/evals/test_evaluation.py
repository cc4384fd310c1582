"""`evaluate` end to end on a tiny model: every suite, comparison, reuse, errors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from causerie.core import CauserieError, open_artifact, read_json, read_jsonl
from causerie.evals import SUITES, EvalConfig, evaluate
from causerie.evals.evaluation import with_data
from causerie.evals.report import report_from_dict


@pytest.fixture
def config(tiny: Path, data: Path) -> EvalConfig:
    return EvalConfig(
        model=tiny,
        documents=data / "documents.jsonl",
        chats=(data / "chats.jsonl",),
        pairs=data / "preferences",
        prompts=data / "prompts.jsonl",
        ifeval=data / "ifeval.jsonl",
        choices=(data / "choice.jsonl",),
        last_words=data / "passages.jsonl",
        max_tokens=8,
    )


def test_every_suite_runs_and_is_kept(config: EvalConfig, workspace: Path) -> None:
    report = evaluate(replace(config, suites=SUITES), workspace)
    assert {figure.suite for figure in report.figures} == set(SUITES)
    artifact = open_artifact(report.path, verify="digest")
    assert artifact.manifest.kind == "evaluation"
    assert set(artifact.manifest.inputs) == {"model"}
    rows = list(read_jsonl(report.path / "items.jsonl"))
    assert {row["suite"] for row in rows} == set(SUITES)
    assert report_from_dict(read_json(report.path / "report.json"), report.path) == report
    assert json.loads(json.dumps(report.as_dict())) == read_json(report.path / "report.json") | {
        "path": str(report.path)
    }
    for figure in report.figures:
        low, high = figure.interval.low, figure.interval.high
        assert low is None or low - 1e-9 <= figure.interval.value <= high + 1e-9, figure


def test_a_model_does_not_differ_from_itself(config: EvalConfig, tiny: Path, workspace: Path) -> None:
    report = evaluate(replace(config, against=tiny), workspace)
    assert len(report.compared) == len(report.figures)
    assert {(row.difference.value, row.holm_p) for row in report.compared} == {(0.0, 1.0)}
    assert report.value("answer_loss", "nats_per_token") == report.against_value("answer_loss", "nats_per_token")
    table = report.table().split("\n")
    assert table[0].split() == [
        "suite",
        "metric",
        "value",
        "interval",
        "items",
        "against",
        "difference",
        "interval",
        "p",
        "(Holm)",
    ]
    assert len(table) > len(report.figures)


def test_differences_have_the_sign_of_model_minus_against(
    config: EvalConfig, tiny: Path, uniform: Path, workspace: Path
) -> None:
    asked = replace(config, suites=("answer_loss",))
    report = evaluate(replace(asked, model=tiny, against=uniform), workspace)
    row = next(row for row in report.compared if row.metric == "nats_per_token")
    expected = report.value("answer_loss", "nats_per_token") - report.against_value("answer_loss", "nats_per_token")
    assert row.difference.value == pytest.approx(expected)
    assert (report.path / "against-items.jsonl").is_file()


def test_a_finished_suite_is_not_run_again(
    config: EvalConfig, uniform: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluate(replace(config, suites=("answer_loss",)), workspace)
    monkeypatch.setattr("causerie.evals.subject.load_model", lambda *_, **__: pytest.fail("loaded again"))
    assert evaluate(replace(config, suites=("answer_loss",)), workspace) == first
    with pytest.raises(BaseException, match="loaded again"):  # only the other model needs weights
        evaluate(replace(config, suites=("answer_loss",), against=uniform), workspace)


def test_limits_take_an_even_sample(config: EvalConfig, workspace: Path) -> None:
    asked = replace(config, suites=("answer_loss", "choice"), limit=2, limits={"choice": 1})
    report = evaluate(asked, workspace)
    counted = {figure.suite: figure.interval.n for figure in report.figures}
    assert counted == {"answer_loss": 2, "choice": 1}


def test_out_places_the_artifact(config: EvalConfig, workspace: Path) -> None:
    report = evaluate(replace(config, suites=("choice",), out=workspace / "here"), workspace)
    assert report.path == workspace / "here"
    assert (workspace / "here" / "items.jsonl").is_file()


def test_suites_without_a_name_are_those_with_data(tiny: Path, data: Path) -> None:
    assert with_data(EvalConfig(model=tiny, prompts=data / "prompts.jsonl")).suites == ("ending",)
    assert with_data(EvalConfig(model=tiny, pairs=data / "preferences")).suites == ("preference", "votes")
    pairs = data / "preferences" / "heldout-pairs.jsonl"
    assert with_data(EvalConfig(model=tiny, pairs=pairs)).suites == ("preference",)


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"suites": ("nonsense",)}, "CAU-4201"),
        ({"limits": {"nonsense": 1}}, "CAU-4201"),
        ({"suites": ("ending",)}, "CAU-4202"),
        ({}, "CAU-4202"),
        ({"prompts": Path("nowhere.jsonl")}, "CAU-1001"),
        ({"prompts": Path("empty.jsonl")}, "CAU-4203"),
        ({"prompts": Path("broken.jsonl")}, "CAU-1006"),
        ({"chats": (Path("odd.jsonl"),)}, "CAU-4204"),
    ],
)
def test_bad_input_is_named(
    settings: dict, code: str, tiny: Path, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "broken.jsonl").write_text('{"prompt": "x"}\n[1]\n')
    (tmp_path / "odd.jsonl").write_text('{"messages": "x"}\n{"messages": [{"role": "user"}]}\n')
    with pytest.raises(CauserieError) as caught:
        evaluate(EvalConfig(model=tiny, **settings), workspace)
    assert caught.value.code == code


def test_compressed_data_is_read(config: EvalConfig, data: Path, workspace: Path, tmp_path: Path) -> None:
    import gzip

    import zstandard

    content = (data / "chats.jsonl").read_bytes()
    (tmp_path / "chats.jsonl.gz").write_bytes(gzip.compress(content))
    (tmp_path / "chats.jsonl.zst").write_bytes(zstandard.compress(content))
    values = {
        evaluate(replace(config, suites=("answer_loss",), chats=(path,)), workspace).value(
            "answer_loss", "nats_per_token"
        )
        for path in (data / "chats.jsonl", tmp_path / "chats.jsonl.gz", tmp_path / "chats.jsonl.zst")
    }
    assert len(values) == 1
