"""Predictions are dated, signed, never overwritten, not to be changed, and scored in their own file."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from causerie.core import CauserieError, read_json, sha256_json, write_artifact, write_json
from causerie.plan import FitConfig, PredictConfig, ScoreConfig, plan_fit, plan_predict, plan_score
from causerie.plan.sign import KEY_FILE, signed, signing_key, verified
from causerie.plan.tasks import TaskFit

from .test_law import TRUE, runs


@pytest.fixture
def law(tmp_path: Path) -> Path:
    rows = [{"N": n, "D": d, "loss": loss} for n, d, loss in zip(*map(list, runs(0.002)), strict=True)]
    (tmp_path / "runs.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    plan_fit(FitConfig(tmp_path / "runs.jsonl", out=tmp_path / "law.json", bootstrap=20))
    return tmp_path / "law.json"


def test_a_prediction_is_written_once_and_scored_in_its_file(law: Path, tmp_path: Path, workspace: Path) -> None:
    out = tmp_path / "prediction.json"
    config = PredictConfig(law, out=out, params=2e10, tokens=4e11)
    prediction = plan_predict(config, workspace)
    assert prediction["interval"][0] <= prediction["loss"] <= prediction["interval"][1]
    assert prediction["extrapolation"] > 0
    with pytest.raises(CauserieError) as caught:
        plan_predict(config, workspace)
    assert caught.value.code == "CAU-4304"

    score = plan_score(ScoreConfig(out, measured=TRUE.loss(2e10, 4e11)), workspace)
    assert abs(score["relative_error"]) < 0.01
    assert score["made_before_run"] is None
    far = plan_score(ScoreConfig(out, measured=9.0), workspace)
    assert far["within_interval"] is False
    stored = read_json(out)
    assert [row["measured"] for row in stored["scores"]] == [score["measured"], 9.0]
    for row in stored["scores"]:
        assert verified(row, "score", kind="score")["prediction_digest"] == stored["digest"]
    assert verified(stored, str(out), kind="prediction")["loss"] == prediction["loss"]


def test_a_changed_prediction_is_refused(law: Path, tmp_path: Path, workspace: Path) -> None:
    out = tmp_path / "prediction.json"
    prediction = plan_predict(PredictConfig(law, out=out, params=1e9, tokens=1e10), workspace)
    write_json(out, {**prediction, "loss": prediction["loss"] * 0.99})
    for path in (out, law):
        with pytest.raises(CauserieError) as caught:
            plan_score(ScoreConfig(path, measured=2.0), workspace)
        assert caught.value.code == "CAU-4303"


def test_a_new_digest_does_not_help_without_the_key(law: Path, tmp_path: Path, workspace: Path) -> None:
    """Whoever changes the loss and the digest still lacks the signature."""
    out = tmp_path / "prediction.json"
    prediction = plan_predict(PredictConfig(law, out=out, params=1e9, tokens=1e10), workspace)
    content = {k: v for k, v in prediction.items() if k not in ("digest", "public_key", "signature")}
    content["loss"] *= 0.9
    forged: list[dict[str, Any]] = [
        {**prediction, **content, "digest": sha256_json(content)},
        {**prediction, **content, "digest": sha256_json(content), "signature": "00" * 64},
        {**content, "digest": sha256_json(content)},
        {**prediction, "public_key": "zz"},
        {**prediction, "public_key": "00" * 31},
        {**prediction, "signature": None},
    ]
    for value in forged:
        write_json(out, value)
        with pytest.raises(CauserieError) as caught:
            plan_score(ScoreConfig(out, measured=2.0), workspace)
        assert caught.value.code == "CAU-4303"


def test_the_key_is_made_once_and_is_its_owners(workspace: Path) -> None:
    first = signed({"kind": "x", "n": 1}, workspace)
    assert first["public_key"] == signed({"kind": "x", "n": 2}, workspace)["public_key"]
    assert stat.S_IMODE((workspace / KEY_FILE).stat().st_mode) == 0o600
    assert verified(first, "x", kind="x") == {"kind": "x", "n": 1}
    other = signed({"kind": "x", "n": 1}, workspace / "other")
    assert other["public_key"] != first["public_key"]
    assert other["digest"] == first["digest"]


def test_a_damaged_key_is_refused(workspace: Path) -> None:
    signing_key(workspace)
    (workspace / KEY_FILE).write_text("no key")
    with pytest.raises(CauserieError) as caught:
        signing_key(workspace)
    assert caught.value.code == "CAU-4303"
    assert caught.value.fix


def test_signatures_are_those_of_the_standard(workspace: Path) -> None:
    """The seal is plain Ed25519 over the digest's text: checked with the library, not with our own code."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    seal = signed({"kind": "x"}, workspace)
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(seal["public_key"]))
    key.verify(bytes.fromhex(seal["signature"]), seal["digest"].encode())
    assert seal["digest"] == sha256_json({"kind": "x"})


def test_a_models_manifest_gives_measure_and_date(law: Path, tmp_path: Path, workspace: Path) -> None:
    out = tmp_path / "prediction.json"
    plan_predict(PredictConfig(law, out=out, params=1e9, tokens=1e10), workspace)
    for name, seconds in (("before", 3600.0), ("after", -3600.0)):
        with write_artifact(tmp_path / name, "model", "m", "0" * 64, exact=True) as draft:
            draft.metrics.update({"val_loss_after": 2.5, "seconds": seconds, "broken": float("nan")})
    scores = [plan_score(ScoreConfig(out, model=tmp_path / name), workspace) for name in ("before", "after")]
    assert [score["made_before_run"] for score in scores] == [False, True]
    assert scores[0]["measured"] == 2.5
    assert scores[0]["run"] == "0" * 64
    for metric in ("other", "broken"):
        with pytest.raises(CauserieError, match=f"there is no metric {metric!r}"):
            plan_score(ScoreConfig(out, model=tmp_path / "before", metric=metric), workspace)


@pytest.mark.parametrize("measured", [0.0, -2.0, float("nan"), float("inf")])
def test_what_was_measured_must_be_a_loss(law: Path, tmp_path: Path, workspace: Path, measured: float) -> None:
    out = tmp_path / "prediction.json"
    plan_predict(PredictConfig(law, out=out, params=1e9, tokens=1e10), workspace)
    with pytest.raises(CauserieError) as caught:
        plan_score(ScoreConfig(out, measured=measured), workspace)
    assert caught.value.code == "CAU-4305"
    assert "scores" not in read_json(out)
    with pytest.raises(CauserieError) as caught:
        plan_score(ScoreConfig(out), workspace)
    assert caught.value.where == "measured, model"


def test_a_budget_is_split(law: Path, workspace: Path) -> None:
    prediction = plan_predict(PredictConfig(law, flops=1e21), workspace)
    assert 6 * prediction["params"] * prediction["tokens"] == pytest.approx(1e21)


def test_a_task_is_predicted_too(law: Path, tmp_path: Path, workspace: Path) -> None:
    curve = TaskFit("quiz", 0.8, 2.0, 1.0, 9, ((0.79, 2.0, 1.0), (0.81, 2.0, 1.0)))
    write_json(tmp_path / "task.json", curve.as_dict())
    found = plan_predict(PredictConfig(law, flops=1e21, task=tmp_path / "task.json"), workspace)
    assert found["task"]["error"] == pytest.approx(curve.error(found["loss"]))
    assert found["task"]["interval"][0] <= found["task"]["error"] <= found["task"]["interval"][1]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"params": 1e9},
        {"params": 1e9, "tokens": 1e9, "flops": 1e20},
        {"flops": -1.0},
        {"flops": 1e20, "level": 1.0},
    ],
    ids=str,
)
def test_unclear_questions_are_refused(law: Path, workspace: Path, given: dict[str, float]) -> None:
    with pytest.raises(CauserieError) as caught:
        plan_predict(PredictConfig(law, **given), workspace)
    assert caught.value.code == "CAU-4301"
    assert caught.value.where


def test_a_law_must_be_a_law(tmp_path: Path, workspace: Path) -> None:
    write_json(tmp_path / "x.json", {"kind": "something"})
    with pytest.raises(CauserieError) as caught:
        plan_predict(PredictConfig(tmp_path / "x.json", flops=1e20), workspace)
    assert caught.value.code == "CAU-4303"
