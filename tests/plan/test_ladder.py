"""The ladder: a tiny one is trained, fitted, predicted and scored; the one in docs/plans is checked as it stands."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from causerie.core import CauserieError, list_artifacts, read_json, write_artifact
from causerie.data import PackConfig, pack
from causerie.model import shape_from_depth
from causerie.plan import FitConfig, LadderConfig, plan_fit, plan_ladder
from causerie.plan.ladder import Rung, parse_rung, rung_config, rung_shape
from causerie.plan.law import fit_from_dict
from causerie.plan.sign import verified
from causerie.text import train_bpe

PLANS = Path(__file__).parents[2] / "docs" / "plans"
RUNGS = ("1x16:2048", "1x16:3072", "1x16:4096", "1x32:2048", "1x32:3072", "1x32:4096", "1x48:2048", "1x48:4096")


@pytest.fixture(scope="module")
def ladder(tmp_path_factory: pytest.TempPathFactory) -> LadderConfig:
    """Settings of a ladder of eight runs of a fraction of a second, on packed shards of made-up text."""
    root = tmp_path_factory.mktemp("ladder")
    words = ["the", "cat", "sat", "on", "a", "mat", "and", "dog", "ran", "to", "big", "red", "house", "by", "sea"]
    texts = [" ".join(words[(i + 3 * j) % len(words)] for j in range(20 + i % 50)) for i in range(300)]
    (root / "tokenizer").mkdir()
    train_bpe(texts, 300).save(root / "tokenizer")
    with write_artifact(root, "corpus", "corpus", "0" * 64) as draft:
        rows = [{"id": str(i), "text": text, "url": "", "title": "", "lang": "en"} for i, text in enumerate(texts)]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (draft.path / "documents.jsonl.zst").write_bytes(zstandard.compress(lines.encode()))
    assert draft.artifact is not None
    shards = pack(PackConfig(corpus=draft.artifact.path, tokenizer=root / "tokenizer", val_fraction=0.1), root)
    return LadderConfig(
        shards.path, root / "tokenizer", RUNGS, "1x64:5120", prediction=root / "prediction.json", batch_size=4,
        seq_len=32, eval_tokens=1024, bootstrap=20,
    )  # fmt: skip


@pytest.mark.slow
def test_a_ladder_trains_predicts_and_scores_itself(ladder: LadderConfig, tmp_path: Path) -> None:
    """Slow: nine real trainings, the large one only after its prediction is written; then all of it again for free."""
    first = plan_ladder(replace(ladder, stop_before_target=True), tmp_path)
    assert len(first["runs"]) == len(RUNGS)
    assert "score" not in first
    made = list_artifacts(tmp_path, "model")
    assert len(made) == len(RUNGS)
    stored = read_json(ladder.prediction)
    assert verified(stored, "prediction", kind="prediction")["tokens"] == 5120
    assert stored["params"] == rung_shape(parse_rung("1x64:5120"), 300).n_params

    result = plan_ladder(ladder, tmp_path)
    score = result["score"]
    assert score["made_before_run"] is True
    assert result["prediction"]["digest"] == stored["digest"]
    assert [row["key"] for row in result["runs"]] == [row["key"] for row in first["runs"]]
    assert len(list_artifacts(tmp_path, "model")) == len(RUNGS) + 1
    assert verified(read_json(ladder.prediction)["scores"][0], "score", kind="score")["measured"] == score["measured"]
    table = list(csv.DictReader(ladder.prediction.with_suffix(".runs.csv").open(encoding="utf-8")))
    assert [row["run"] for row in table] == [parse_rung(text).label for text in RUNGS]
    assert all(float(row["loss"]) > 0 for row in table)


def test_rungs_on_the_dial_are_the_dials_shapes() -> None:
    for depth in (1, 2, 3):
        shape = rung_shape(Rung(depth, 48 * depth, 1000), 512)
        assert shape == shape_from_depth(depth, 512)


def test_rungs_grow_and_keep_the_proportions() -> None:
    sizes = [rung_shape(Rung(3, width, 1000), 1024) for width in (32, 48, 64, 96, 112, 160)]
    counts = [shape.n_params for shape in sizes]
    assert counts == sorted(counts)
    for shape in sizes:
        assert shape.ffn_dim == pytest.approx(shape.n_embd * 8 / 3, rel=0.15)
        assert shape.n_head % shape.n_kv_head == 0


def test_every_rung_has_the_same_recipe(ladder: LadderConfig) -> None:
    configs = [rung_config(parse_rung(text), ladder).as_dict() for text in (*RUNGS, ladder.target)]
    varied = {"name", "depth", "n_layer", "n_embd", "n_head", "n_kv_head", "head_dim", "ffn_dim", "tokens"}
    rest = [{key: value for key, value in config.items() if key not in varied} for config in configs]
    assert all(values == rest[0] for values in rest)


@pytest.mark.parametrize(
    "text",
    ["", "2x96", "2x96:", "x96:1000", "2x96:1e6", "-2x96:1000", "0x96:1000", "2x8:1000", "2x96:10", "2x96:1000 "],
)
def test_bad_rungs_are_refused(text: str) -> None:
    with pytest.raises(CauserieError) as caught:
        parse_rung(text)
    assert caught.value.code == "CAU-4301"
    assert caught.value.where == "rungs"
    assert caught.value.fix


@pytest.mark.parametrize(
    "change", [{"rungs": (*RUNGS, RUNGS[0])}, {"target": RUNGS[0]}, {"target": "big"}, {"rungs": ("1x16:x",)}], ids=str
)
def test_repeated_and_bad_rungs_stop_before_training(
    ladder: LadderConfig, tmp_path: Path, change: dict[str, object]
) -> None:
    with pytest.raises(CauserieError) as caught:
        plan_ladder(replace(ladder, **change), tmp_path)  # type: ignore[arg-type]
    assert caught.value.code == "CAU-4301"
    assert not list_artifacts(tmp_path, "model")


def test_the_ladder_in_the_docs_is_whole() -> None:
    """Signature, law and runs of docs/plans/ladder.json belong together, and its score says what happened."""
    stored = read_json(PLANS / "ladder.json")
    content = verified(stored, "ladder.json", kind="prediction")
    fitted = read_json(PLANS / "ladder.law.json")
    assert content["law"] == fitted["law"]
    law = fit_from_dict(fitted, "ladder.law.json").law
    assert law.loss(content["params"], content["tokens"]) == pytest.approx(content["loss"], rel=1e-9)
    again = plan_fit(FitConfig(PLANS / "ladder.runs.csv", bootstrap=0))
    assert again["rows"] == 14
    predicted = fit_from_dict(again, "again").law.loss(content["params"], content["tokens"])
    assert predicted == pytest.approx(content["loss"], rel=1e-3)


def test_the_largest_run_came_out_as_predicted() -> None:
    """Within 1.5 %, inside the interval, and predicted before it began."""
    stored = read_json(PLANS / "ladder.json")
    if not stored.get("scores"):
        pytest.skip("the large run of docs/plans/ladder.json has not ended yet")
    score = verified(stored["scores"][0], "score", kind="score")
    assert score["prediction_digest"] == stored["digest"]
    assert score["made_before_run"] is True
    assert abs(score["relative_error"]) <= 0.015
    assert score["within_interval"]
