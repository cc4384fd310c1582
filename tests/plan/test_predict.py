"""Predictions are dated, never overwritten, not to be changed, and scored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from causerie.core import CauserieError, write_artifact, write_json
from causerie.plan import FitConfig, PredictConfig, ScoreConfig, plan_fit, plan_predict, plan_score

from .test_law import TRUE, runs


@pytest.fixture
def law(tmp_path: Path) -> Path:
    rows = [{"N": n, "D": d, "loss": loss} for n, d, loss in zip(*map(list, runs(0.002)), strict=True)]
    (tmp_path / "runs.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    plan_fit(FitConfig(tmp_path / "runs.jsonl", out=tmp_path / "law.json", bootstrap=20))
    return tmp_path / "law.json"


def test_a_prediction_is_written_once_and_scored(law: Path, tmp_path: Path) -> None:
    config = PredictConfig(law, out=tmp_path / "prediction.json", params=2e10, tokens=4e11)
    prediction = plan_predict(config)
    assert prediction["interval"][0] <= prediction["loss"] <= prediction["interval"][1]
    assert prediction["extrapolation"] > 0
    with pytest.raises(CauserieError) as caught:
        plan_predict(config)
    assert caught.value.code == "CAU-4304"

    score = plan_score(ScoreConfig(tmp_path / "prediction.json", measured=TRUE.loss(2e10, 4e11)))
    assert abs(score["relative_error"]) < 0.01
    assert score["made_before_run"] is None
    far = plan_score(ScoreConfig(tmp_path / "prediction.json", measured=9.0))
    assert far["within_interval"] is False


def test_a_changed_prediction_is_refused(law: Path, tmp_path: Path) -> None:
    out = tmp_path / "prediction.json"
    prediction = plan_predict(PredictConfig(law, out=out, params=1e9, tokens=1e10))
    write_json(out, {**prediction, "loss": prediction["loss"] * 0.99})
    for path in (out, law):
        with pytest.raises(CauserieError) as caught:
            plan_score(ScoreConfig(path, measured=2.0))
        assert caught.value.code == "CAU-4303"


def test_a_models_manifest_gives_measure_and_date(law: Path, tmp_path: Path) -> None:
    plan_predict(PredictConfig(law, out=tmp_path / "prediction.json", params=1e9, tokens=1e10))
    for name, seconds in (("before", 3600.0), ("after", -3600.0)):
        with write_artifact(tmp_path / name, "model", "m", "0" * 64, exact=True) as draft:
            draft.metrics.update({"val_loss_after": 2.5, "seconds": seconds})
    scores = [
        plan_score(ScoreConfig(tmp_path / "prediction.json", model=tmp_path / name)) for name in ("before", "after")
    ]
    assert [score["made_before_run"] for score in scores] == [False, True]
    assert scores[0]["measured"] == 2.5
    with pytest.raises(CauserieError, match="val_loss_after"):
        plan_score(ScoreConfig(tmp_path / "prediction.json", model=tmp_path / "before", metric="other"))


def test_a_budget_is_split(law: Path) -> None:
    prediction = plan_predict(PredictConfig(law, flops=1e21))
    assert 6 * prediction["params"] * prediction["tokens"] == pytest.approx(1e21)


@pytest.mark.parametrize(
    "given", [{}, {"params": 1e9}, {"params": 1e9, "tokens": 1e9, "flops": 1e20}, {"flops": -1.0}], ids=str
)
def test_unclear_questions_are_refused(law: Path, given: dict[str, float]) -> None:
    with pytest.raises(CauserieError) as caught:
        plan_predict(PredictConfig(law, **given))
    assert caught.value.code == "CAU-4301"


def test_a_law_must_be_a_law(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"kind": "something"})
    with pytest.raises(CauserieError) as caught:
        plan_predict(PredictConfig(tmp_path / "x.json", flops=1e20))
    assert caught.value.code == "CAU-4303"
