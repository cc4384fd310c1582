"""The plans in docs/plans are what their commands write today."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from causerie.core import read_json
from causerie.plan import PlanConfig, blueprint, plan_write

PLANS = Path(__file__).parents[2] / "docs" / "plans"
WRITTEN = ("mai-1-500b", "moe-1t")


def written(name: str) -> str:
    return (PLANS / f"{name}.md").read_text(encoding="utf-8")


def config_of(name: str, out: Path) -> PlanConfig:
    """The configuration in the command that the plan names."""
    found = re.search(r"`causerie plan write ([^`]+)`", written(name))
    assert found
    words = shlex.split(found[1])
    flags = dict(zip(words[1::2], words[2::2], strict=True))
    return PlanConfig(
        words[0], out, hardware=flags["--hardware"], devices=int(flags["--devices"]), tokens=float(flags["--tokens"]),
        global_batch=int(flags["--global-batch"]), seq_len=int(flags["--seq-len"]),
    )  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_the_plan_is_written_again_to_the_letter(name: str, tmp_path: Path) -> None:
    out = tmp_path / f"{name}.md"
    plan_write(config_of(name, out))
    assert out.read_text(encoding="utf-8") == written(name)
    assert out.with_suffix(".json").read_text() == (PLANS / f"{name}.json").read_text()
    assert out.with_suffix(".svg").read_bytes().startswith(b"<?xml")


@pytest.mark.parametrize("name", WRITTEN)
def test_a_plan_says_what_a_budget_meeting_asks(name: str) -> None:
    text, figures = written(name), read_json(PLANS / f"{name}.json")
    for heading in ("What it is", "Layout on", "The run", "Elsewhere", "What it should reach", "How far to trust"):
        assert f"## {heading}" in text
    assert figures["count"]["parameters"] == blueprint(name).n_params
    assert figures["fits"]
    assert figures["memory"]["total"] < figures["memory"]["of"]
    run = figures["run"]
    assert run["dollars"] > 1e6
    assert 0.9 < run["goodput"]["share"] < 1
    assert len(figures["elsewhere"]) >= 5
    assert (PLANS / f"{name}.svg").is_file()


def test_a_small_plan_can_be_written(tmp_path: Path) -> None:
    config = PlanConfig(
        "gpt2-124m", tmp_path / "p.md", devices=8, tokens=1e10, global_batch=512, seq_len=1024, title="Small"
    )
    found = plan_write(config)
    text = (tmp_path / "p.md").read_text(encoding="utf-8")
    assert text.startswith("# Small\n")
    assert found["days"] < 1
    assert "does not fit" not in text.split("## Elsewhere")[0]
