"""The planning commands from the command line: words for people, one JSON object for programs, errors by field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from causerie.cli.app import main

from .test_law import runs


def run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a command run in this process."""
    with pytest.raises(SystemExit) as caught:
        main([*arguments])
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


def as_json(*arguments: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The JSON object that a command prints last."""
    status, out, err = run(*arguments, "--json", capsys=capsys)
    assert status == 0, err
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


@pytest.fixture
def law(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    n, d, loss = runs(noise=0.003)
    lines = ["N,D,loss", *(f"{a},{b},{c}" for a, b, c in zip(n, d, loss, strict=True))]
    (tmp_path / "runs.csv").write_text("\n".join(lines))
    status, out, _ = run(
        "plan", "fit", str(tmp_path / "runs.csv"), "--bootstrap", "20", "--drop-highest", "1", "--out",
        str(tmp_path / "law.json"), capsys=capsys,
    )  # fmt: skip
    assert status == 0
    assert "left out" in out
    assert "90 %" in out
    assert "resampled" not in out
    return tmp_path / "law.json"


def test_count_by_name_and_dial(capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json("plan", "count", "deepseek-v3", "--seq-len", "4096", capsys=capsys)
    assert found["experts"]["count"] == 256
    assert as_json("plan", "memory", "--depth", "3", capsys=capsys)["shape"]["n_layer"] == 3


def test_models_lists_names(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run("plan", "models", capsys=capsys)
    assert status == 0
    assert "mai-1-500b" in out
    assert "h200-141gb" in out
    assert len(as_json("plan", "models", capsys=capsys)["models"]) > 40


def test_layout_for_people_and_programs(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("plan", "layout", "llama3-8b", "--devices", "8", "--global-batch", "64", "--tokens", "1e11")
    status, out, _ = run(*arguments, capsys=capsys)
    assert status == 0
    for word in ("MFU", "memory:", "days", "goodput", "searched"):
        assert word in out
    assert as_json(*arguments, capsys=capsys)["fits"] is True


def test_a_layout_that_does_not_fit_is_a_finding(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(
        "plan", "layout", "llama3-70b", "--devices", "8", "--data", "8", "--global-batch", "8", capsys=capsys
    )
    assert status == 1
    assert "too much" in out
    assert "does not fit" in err


def test_predict_score_frontier_gap_picture(law: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = ("--workspace", str(tmp_path / "ws"))
    out = str(tmp_path / "p.json")
    made = as_json("plan", "predict", "--law", str(law), "--flops", "1e21", "--out", out, *workspace, capsys=capsys)
    assert made["signature"]
    loss = str(made["loss"])
    score = as_json("plan", "score", out, "--measured", loss, *workspace, capsys=capsys)
    assert score["within_interval"] is True
    status, text, _ = run("plan", "frontier", str(law), "--inference-tokens", "1e12", capsys=capsys)
    assert status == 0
    assert "inference paid" in text
    status, text, _ = run("plan", "gap", "2.3", "2.2", "--law", str(law), capsys=capsys)
    assert status == 0
    assert "90 % interval" in text
    picture = as_json(
        "plan", "picture", "--law", str(law), "--out", str(tmp_path / "l.svg"), "--predictions", out, capsys=capsys
    )
    assert Path(picture["picture"]).stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["count", "gpt-5"], "CAU-4301", "model"),
        (["count", "gpt3-175b", "--seq-len", "0"], "CAU-4301", "seq_len"),
        (["layout", "gpt3-175b", "--hardware", "h300"], "CAU-4307", "h200-141gb"),
        (["layout", "gpt3-175b", "--devices", "8", "--global-batch", "8"], "CAU-4308", "more devices"),
        (["layout", "gpt3-175b", "--devices", "8", "--tensor", "5"], "CAU-4306", "tensor"),
        (["layout", "gpt3-175b", "--dollars", "-1"], "CAU-4307", "dollars"),
        (["fit", "absent.csv"], "CAU-4302", "absent.csv"),
        (["predict", "--law", "absent.json", "--flops", "1e20"], "CAU-1001", "absent.json"),
        (["gap", "2", "3", "--law", "absent.json"], "CAU-1001", "absent.json"),
        (["dryrun", "depth:4", "--tensor", "3"], "CAU-4306", "tensor"),
        (["write", "gpt3-175b", "--out", "x.md", "--devices", "0"], "CAU-4301", "devices"),
        (["ladder", "--shards", "x", "--tokenizer", "y", "--rungs", "1x2"], "CAU-4301", "rungs"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_bad_input_is_an_error_with_code_place_and_fix(
    arguments: list[str], code: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run("plan", *arguments, capsys=capsys)
    assert status == 2
    assert code in err
    assert words in err
    assert "hint" in err
    assert not out
