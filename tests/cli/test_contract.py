"""The command line's contract: exit statuses, errors with code, cause, place and fix, JSON as the last line of stdout."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from causerie.cli import talk
from causerie.cli.app import main
from causerie.core import open_run
from causerie.infer import Event

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a command run in this process."""
    with pytest.raises(SystemExit) as caught:
        main([*arguments])
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


def test_help_loads_no_torch() -> None:
    code = "import sys\nfrom causerie.cli.app import dispatch\ndispatch(['--help'])\nprint('torch' in sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Own your ChatGPT" in done.stdout
    assert done.stderr.strip() == "False"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["data", "buidl"], "CAU-7001", "Did you mean"),
        (["data", "build", "--laguages", "en"], "CAU-7001", "--languages"),
        (["data", "build"], "CAU-20", ""),
        (["data", "build", "no-such-file.warc.gz"], "CAU-", "no-such-file.warc.gz"),
        (["data", "extract", "no-such.html"], "CAU-7002", "no-such.html"),
        (["train", "sft"], "CAU-7001", "--model"),
        (["train", "pretrain", "--shards", "nowhere", "--tokenizer", "nowhere", "--steps", "1"], "CAU-", "nowhere"),
        (["train", "pretrain", "--shards", "x", "--tokenizer", "x", "--lr", "fast"], "CAU-7001", "fast"),
        (["train", "pretrain", "--config", "absent.toml", "--shards", "x", "--tokenizer", "x"], "CAU-1001", "absent.toml"),
        (["tokenizer", "train", "--vocab-size", "300"], "CAU-", ""),
        (["eval", "no-such-model"], "CAU-5001", "no-such-model"),
        (["generate", "no-such-model", "--prompt", "hello"], "CAU-5001", "no-such-model"),
        (["improve", "no-such-model"], "CAU-5001", "no-such-model"),
        (["models", "show", "no-such-model"], "CAU-5001", "no-such-model"),
        (["models", "import", "/no/such/folder"], "CAU-", "/no/such/folder"),
        (["models", "promote", "no-such-model@3"], "CAU-5001", "no-such-model"),
        (["feedback", "import", "absent.jsonl"], "CAU-", "absent.jsonl"),
        (["runs", "show", "absent"], "CAU-1001", "absent"),
        (["data", "report", "absent"], "CAU-1001", "absent"),
        (["improve", "x", "--config", "."], "CAU-7004", "."),
        (["models", "import", "starter", "--name", "mine"], "CAU-7001", "--name"),
        (["tokenizer", "train", __file__, "--vocab-size", "300", "--out", str(ROOT / "tests")], "CAU-1009", "tests"),
    ],
)  # fmt: skip
def test_bad_input_gives_code_cause_place_and_fix(
    arguments: list[str],
    code: str,
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CAUSERIE_WORKSPACE", str(tmp_path / "w"))
    status, out, err = run(*arguments, capsys=capsys)
    assert status == 2, err
    assert out == ""
    assert re.search(rf"error {code}\d*: .+", err), err
    assert "where: " in err
    assert "hint: " in err
    assert words in err
    assert "Traceback" not in err


def test_errors_are_json_when_asked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, out, _ = run("models", "show", "nobody", "--json", "--workspace", str(tmp_path), capsys=capsys)
    assert status == 2
    error = json.loads(out.strip().split("\n")[-1])["error"]
    assert set(error) == {"code", "cause", "where", "fix"}
    assert all(error.values())


def test_values_come_from_defaults_file_environment_flags_in_that_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import dataclass

    from cyclopts import App
    from cyclopts.config import Env, Toml

    from causerie.cli.flags import command_for

    @dataclass(frozen=True)
    class Config:
        a: int = 1
        """First."""
        b: int = 1
        c: int = 1
        d: int = 1

    seen = []
    (tmp_path / "c.toml").write_text("b = 2\nc = 2\nd = 2\n")
    monkeypatch.setenv("CAUSERIE_T_C", "3")
    monkeypatch.setenv("CAUSERIE_T_D", "3")
    app = App(
        name="causerie",
        config=[Env("CAUSERIE_"), Toml(tmp_path / "c.toml", use_commands_as_keys=False)],
        result_action="return_value",
    )
    app.command(command_for(Config, lambda config, _: seen.append(config) or {}, "Test."), name="t")
    app(["t", "--d", "4"], exit_on_error=False)
    assert seen == [Config(1, 2, 3, 4)]


def test_an_unknown_key_in_a_file_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.toml").write_text("learning_rat = 2\n")
    status, _, err = run("improve", "x", "--config", str(tmp_path / "c.toml"), capsys=capsys)
    assert status == 2
    assert "learning_rat" in err


def test_extract_reads_a_page_from_a_file_and_from_stdin(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    sentence = "The quick brown fox jumps over the lazy dog near the river bank, and then it rests for a while. "
    page.write_text(
        f"<html><head><title>Fox</title></head><body><nav>menu</nav><article><p>{sentence * 5}</p></article></body></html>"
    )
    command = [sys.executable, "-m", "causerie", "data", "extract"]
    by_name = subprocess.run([*command, str(page)], capture_output=True, text=True, check=True)
    by_stdin = subprocess.run(
        [*command, "-", "--json"], input=page.read_text(), capture_output=True, text=True, check=True
    )
    assert "quick brown fox" in by_name.stdout
    assert "menu" not in by_name.stdout
    assert "quick brown fox" in json.loads(by_stdin.stdout.split("\n")[0])["text"]


def test_doctor_finds_what_is_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, out, _ = run("doctor", "--json", "--workspace", str(tmp_path), capsys=capsys)
    checks = {row["check"]: row for row in json.loads(out)["checks"]}
    assert status == (1 if json.loads(out)["failed"] else 0)
    assert checks["Python"]["ok"]
    assert checks["torch"]["found"].startswith("2.")


def test_generated_reference_is_current() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/make_docs.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ},
    )
    assert done.returncode == 0, done.stderr


def test_every_code_that_is_raised_is_in_a_table() -> None:
    tables = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "causerie").glob("*/errors.py"))
    listed = set(re.findall(r'"(CAU-\d{4})":', tables))
    raised = {
        code
        for path in (ROOT / "causerie").rglob("*.py")
        if path.name != "errors.py"
        for code in re.findall(r'"(CAU-\d{4})"', path.read_text(encoding="utf-8"))
    }
    assert raised - listed == set()


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m causerie runs list --json --workspace {tmp_path} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_run_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, steps in (("long", 5), ("empty", 0)):
        with open_run(tmp_path, "pretrain", name, "a" * 64, {}) as made:
            for step in range(steps):
                made.log("step", step=step, tokens=100 * step, loss=5.0 - step)
    status, out, _ = run("runs", "plot", "pretrain-long", "--workspace", str(tmp_path), "--json", capsys=capsys)
    assert status == 0
    assert (Path(json.loads(out)["path"]) / "loss.svg").read_text().startswith("<?xml")
    status, _, err = run("runs", "plot", "pretrain-empty", "--workspace", str(tmp_path), capsys=capsys)
    assert status == 2
    assert "CAU-7003" in err


def test_an_answer_ends_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chat = SimpleNamespace(tokenizer=SimpleNamespace(eot_id=0), stop_ids=(1,), prompt=lambda _: [5, 6])
    monkeypatch.setattr(talk, "folder_of", lambda *_: tmp_path)
    monkeypatch.setattr(talk, "load_chat_format", lambda _: chat)
    monkeypatch.setattr(talk, "_engine", lambda _: None)
    monkeypatch.setattr(talk, "_stream", lambda *_: [("Bon", Event("cli")), ("jour", Event("cli", finish="stop"))])
    assert run("generate", "m", "--prompt", "x", capsys=capsys)[1] == "Bonjour\n"
    told = json.loads(run("generate", "m", "--prompt", "x", "--json", capsys=capsys)[1])
    assert told == {"text": "Bonjour", "finish": "stop", "prompt_tokens": 2}
