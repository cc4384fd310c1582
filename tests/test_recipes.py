"""Every recipe says its command line, has only keys that its command knows, and values that its command takes."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from cyclopts.config import Toml

from causerie.align import DpoConfig
from causerie.cli.app import build_app, main
from causerie.demo.config import SCALES
from causerie.loop import GUARD_FILE, ImproveConfig
from causerie.plan import CountConfig
from causerie.train import PretrainConfig, SftConfig

ROOT = Path(__file__).resolve().parents[1]
CONFIGS: dict[str, type] = {
    "demo-pretrain": PretrainConfig,
    "demo-sft": SftConfig,
    "starter-sft": SftConfig,
    "starter-dpo": DpoConfig,
    "improve": ImproveConfig,
    "plan-count": CountConfig,
}


def command_line(recipe: Path) -> list[str]:
    """The words after `causerie` in the recipe's second line."""
    first, second = recipe.read_text(encoding="utf-8").split("\n")[:2]
    assert re.fullmatch(r"# \S.+[.:]", first), f"{recipe.name} does not begin with what it is for"
    program, *words = shlex.split(second.removeprefix("# "))
    assert program == "causerie"
    return words


def parse(words: list[str]) -> dict[str, Any]:
    """What a command line with `--config` gives its command, read as `causerie` reads it; nothing is run."""
    at = words.index("--config")
    app = build_app()
    app.config = [Toml(ROOT / words[at + 1], must_exist=True, use_commands_as_keys=False)]
    _, bound, _ = app.parse_args([*words[:at], *words[at + 2 :]], exit_on_error=False, print_error=False)
    return dict(bound.arguments)


def built(name: str) -> Any:
    """The configuration that the recipe's command line makes."""
    return CONFIGS[name](**parse(command_line(ROOT / "recipes" / f"{name}.toml")))


def test_every_recipe_is_known_here_and_stands_in_the_table() -> None:
    found = {path.stem for path in (ROOT / "recipes").glob("*.toml")}
    assert found == CONFIGS.keys()
    table = (ROOT / "recipes" / "README.md").read_text(encoding="utf-8")
    for name in found:
        command = " ".join(command_line(ROOT / "recipes" / f"{name}.toml")).split(" --")[0].removesuffix(" demo")
        assert re.search(rf"^\| \[{name}\.toml\]\({name}\.toml\) \| `{command}` \|", table, re.MULTILINE), name


@pytest.mark.parametrize("name", CONFIGS)
def test_the_values_arrive_and_pass_the_commands_own_checks(name: str) -> None:
    path = ROOT / "recipes" / f"{name}.toml"
    written = tomllib.loads(path.read_text(encoding="utf-8"))
    assert written.keys() <= {field.name for field in fields(CONFIGS[name])}
    assert str(path.relative_to(ROOT)) in command_line(path)
    config = built(name)
    assert {key: getattr(config, key) for key in written} == written
    if hasattr(config, "check"):
        config.check()


def test_the_demos_recipes_are_what_the_demo_does() -> None:
    scale, pretraining, manners = SCALES["small"], built("demo-pretrain"), built("demo-sft")
    asked = (pretraining.depth, pretraining.seq_len, pretraining.batch_size, pretraining.tokens, pretraining.compile)
    assert asked == (scale.depth, scale.seq_len, scale.batch_size, scale.pretrain_tokens, scale.compile)
    assert (manners.steps, manners.seq_len, manners.batch_size) == (scale.sft_steps, scale.seq_len, scale.batch_size)
    assert (ROOT / manners.heldout, manners.lora_rank) == (GUARD_FILE, 0)
    assert all((ROOT / source).is_file() for source in manners.data)


def test_the_loops_recipe_is_its_defaults_in_full() -> None:
    assert built("improve") == ImproveConfig("demo")
    written = tomllib.loads((ROOT / "recipes" / "improve.toml").read_text(encoding="utf-8"))
    assert {field.name for field in fields(ImproveConfig)} - written.keys() == {"model", "guard", "do_not_train"}


def run(*words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str, str]:
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    return int(caught.value.code or 0), *capsys.readouterr()


def test_a_recipe_runs_and_a_flag_overrides_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = command_line(ROOT / "recipes" / "plan-count.toml")
    status, out, _ = run(*words, "--json", capsys=capsys, monkeypatch=monkeypatch)
    counted = json.loads(out)
    assert (status, counted["shape"]["vocab_size"], counted["shape"]["n_layer"], counted["seq_len"]) == (
        0,
        4096,
        4,
        256,
    )
    _, out, _ = run(*words, "--depth", "2", "--json", capsys=capsys, monkeypatch=monkeypatch)
    assert json.loads(out)["shape"]["n_layer"] == 2


def test_an_unknown_key_is_an_error_that_names_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recipe = tmp_path / "typo.toml"
    recipe.write_text("depht = 4\n")
    status, out, err = run("plan", "count", "--config", str(recipe), capsys=capsys, monkeypatch=monkeypatch)
    assert (status, out) == (2, "")
    assert "CAU-7001" in err
    assert "depht" in err
