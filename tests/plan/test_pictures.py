"""Pictures and their data: what is drawn is what is known, and the same input gives the same file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from causerie.core import CauserieError, read_json
from causerie.plan import (
    FitConfig,
    PictureConfig,
    PredictConfig,
    ScoreConfig,
    plan_fit,
    plan_picture,
    plan_predict,
    plan_score,
)

from .test_law import runs


@pytest.fixture
def known(tmp_path: Path, workspace: Path) -> PictureConfig:
    n, d, loss = runs(noise=0.003)
    lines = ["N,D,loss", *(f"{a},{b},{c}" for a, b, c in zip(n, d, loss, strict=True)), "1,x,2"]
    (tmp_path / "runs.csv").write_text("\n".join(lines))
    law = tmp_path / "law.json"
    plan_fit(FitConfig(tmp_path / "runs.csv", out=law, bootstrap=20, skip_bad=True))
    for name in ("scored", "open"):
        plan_predict(PredictConfig(law, tmp_path / f"{name}.json", params=3e10, tokens=6e11), workspace)
    plan_score(ScoreConfig(tmp_path / "scored.json", measured=2.05), workspace)
    files = (tmp_path / "scored.json", tmp_path / "open.json")
    return PictureConfig(law, tmp_path / "loss.svg", tmp_path / "runs.csv", files)


def test_the_picture_and_its_points(known: PictureConfig) -> None:
    found = plan_picture(known)
    assert found["runs"] == 60
    text = known.out.read_text()
    assert text.startswith("<?xml")
    points = read_json(Path(found["points"]))
    losses = [row["loss"] for row in points["frontier"]]
    assert losses == sorted(losses, reverse=True)
    for row in points["frontier"]:
        assert row["loss_interval"][0] <= row["loss"] <= row["loss_interval"][1]
    flops = [row["flops"] for row in points["frontier"]]
    assert min(flops) < min(run["flops"] for run in points["runs"])
    assert max(flops) > max(row["flops"] for row in points["predictions"])
    assert [row["measured"] for row in points["predictions"]] == [2.05, None]


def test_the_same_input_gives_the_same_bytes(known: PictureConfig) -> None:
    plan_picture(known)
    first = known.out.read_bytes()
    plan_picture(known)
    assert known.out.read_bytes() == first


def test_png_too_but_nothing_else(known: PictureConfig, tmp_path: Path) -> None:
    plan_picture(PictureConfig(known.law, tmp_path / "loss.png"))
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(CauserieError) as caught:
        plan_picture(PictureConfig(known.law, tmp_path / "loss.gif"))
    assert caught.value.where == "out"


def test_changed_predictions_are_not_drawn(known: PictureConfig) -> None:
    path = known.predictions[0]
    path.write_text(json.dumps({**read_json(path), "loss": 1.0}))
    with pytest.raises(CauserieError) as caught:
        plan_picture(known)
    assert caught.value.code == "CAU-4303"
