"""What stands behind a run: the reports of its data, and the prediction made for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from causerie.chat.predictions import prediction_for
from causerie.chat.reports import report_of, reports_behind
from causerie.chat.runs import list_runs
from causerie.core import CauserieError, open_run, write_artifact

from .conftest import Served


def made(workspace: Path, kind: str, name: str, key: str, inputs: dict[str, str] | None = None) -> Path:
    with write_artifact(workspace, kind, name, key * 32, inputs=inputs) as draft:
        if kind == "corpus":
            draft.metrics.update(documents_in=9, documents_kept=7)
            (draft.path / "report.html").write_text("<style>h1{color:red}</style><h1>Pages</h1>")
    assert draft.artifact is not None
    return draft.artifact.path


@pytest.fixture
def chain(workspace: Path) -> Path:
    """A corpus, its shards, and a model trained on them; another corpus beside."""
    made(workspace, "corpus", "sea", "c0")
    made(workspace, "corpus", "sky", "c1")
    made(workspace, "shards", "sea", "50", {"corpus": "c0" * 32, "tokenizer": "70" * 32})
    made(workspace, "model", "base", "a0", {"shards": "50" * 32})
    return workspace


SEA = {"corpus": "sea-c0c0c0c0", "name": "sea", "documents_in": 9, "documents_kept": 7}


@pytest.mark.parametrize(
    ("run", "config", "found"),
    [
        ("pretrain-base-a0a0a0a0", {}, [SEA]),
        ("corpus-sea-c0c0c0c0", {}, [SEA]),
        ("pretrain-new-99999999", {"shards": "/elsewhere/shards/sea-50505050"}, [SEA]),
        ("pretrain-new-99999999", {"shards": "/elsewhere/shards/gone-12345678"}, []),
        ("sft-x-99999999", None, []),
        (
            "x",
            {"data": ["/w/corpus/sky-c1c1c1c1", "/w/corpus/sea-c0c0c0c0"]},
            [SEA, SEA | {"corpus": "sky-c1c1c1c1", "name": "sky"}],
        ),
    ],
)
def test_corpora_are_found_through_what_a_run_made_or_reads(
    chain: Path, run: str, config: Any, found: list[dict[str, Any]]
) -> None:
    assert reports_behind(chain, run, config) == found


def test_damaged_manifests_are_passed_over(chain: Path) -> None:
    (chain / "shards" / "sea-50505050" / "manifest.json").write_text("{")
    assert reports_behind(chain, "pretrain-base-a0a0a0a0", {}) == []


@pytest.mark.parametrize("name", ["..", "../corpus/sea-c0c0c0c0", "nothing", "sea-c0c0c0c0/report.html", ""])
def test_only_reports_of_corpora_are_given_out(chain: Path, name: str) -> None:
    assert report_of(chain, "sea-c0c0c0c0").read_text().endswith("</h1>")
    with pytest.raises(CauserieError) as caught:
        report_of(chain, name)
    assert caught.value.code == "CAU-6102"


def test_a_report_comes_with_a_policy_of_its_own(served: Served) -> None:
    made(served.workspace, "corpus", "sea", "c0")
    found = served.send("GET", "/api/reports/sea-c0c0c0c0")
    assert found.headers["content-type"].startswith("text/html")
    policies = found.headers.get_list("content-security-policy")
    assert len(policies) == 1
    assert {"sandbox", "default-src 'none'", "style-src 'unsafe-inline'"} <= {
        part.strip() for part in policies[0].split(";")
    }
    assert found.headers["x-content-type-options"] == "nosniff"
    assert served.send("GET", "/api/reports/..%2Fcorpus").status_code == 404
    assert served.send("GET", "/api/reports/nothing").status_code == 404


SAID = {"loss": 2.0, "interval": [1.9, 2.1], "created": "2026-11-01"}
SCORE = {"run": "ab" * 32, "measured": 2.2, "relative_error": 0.1, "within_interval": False, "made_before_run": True}


def predict(workspace: Path, name: str, **said: Any) -> None:
    (workspace / "predictions").mkdir(exist_ok=True)
    (workspace / "predictions" / f"{name}.json").write_text(json.dumps(SAID | said))


def test_a_prediction_belongs_to_the_run_of_its_name_and_to_the_one_it_was_scored_with(workspace: Path) -> None:
    assert prediction_for(workspace, "pretrain-small-abababab", "small") is None
    predict(workspace, "small")
    assert prediction_for(workspace, "pretrain-small-abababab", "small") == SAID | {"file": "small.json", "score": None}
    assert prediction_for(workspace, "pretrain-other-abababab", "other") is None
    predict(workspace, "target", scores=[SCORE | {"measured": 9.9}, SCORE])
    found = prediction_for(workspace, "pretrain-other-abababab", "other")
    assert found is not None
    assert found["file"] == "target.json"
    assert found["score"] == {
        key: SCORE[key] for key in ("measured", "relative_error", "within_interval", "made_before_run")
    }


@pytest.mark.parametrize(
    "damage",
    ["{", "[]", '{"loss": "x"}', '{"loss": 1, "interval": 3}', '{"loss": 1, "interval": [1, 2], "scores": [3]}'],
)
def test_a_damaged_prediction_is_passed_over(workspace: Path, damage: str) -> None:
    (workspace / "predictions").mkdir()
    (workspace / "predictions" / "small.json").write_text(damage)
    assert prediction_for(workspace, "pretrain-small-abababab", "small") is None


def test_the_list_of_runs_tells_predictions_and_rates(workspace: Path) -> None:
    predict(workspace, "small")
    with open_run(workspace, "pretrain", "small", "ab" * 32, {}) as run:
        for step in range(3):
            run.log("step", step=step, loss=2.0, tokens_per_second=123.0)
    (listed,) = list_runs(workspace)
    assert listed["prediction"]["loss"] == 2.0
    assert listed["tokens_per_second"] == 123.0
    assert listed["steps_per_second"] is None or listed["steps_per_second"] > 0
