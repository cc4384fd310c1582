"""What people type every day: keys, versions, runs, a look at the machine, a talk; each through the real command line."""

from __future__ import annotations

import io
import json
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import select

from causerie.cli import doctor, talk
from causerie.cli.app import main
from causerie.core import open_run, write_artifact
from causerie.infer import Event, Sampling
from causerie.store import api_keys, open_store


@dataclass
class Shell:
    """A workspace, and commands in it."""

    workspace: Path
    capsys: pytest.CaptureFixture[str]

    def run(self, *words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main([*words])
        out, err = self.capsys.readouterr()
        return int(caught.value.code or 0), out, err

    def json(self, *words: str, status: int = 0) -> dict[str, Any]:
        got, out, err = self.run(*words, "--json")
        assert got == status, err
        found: dict[str, Any] = json.loads(out.strip().split("\n")[-1])
        return found


@pytest.fixture
def shell(workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setenv("CAUSERIE_WORKSPACE", str(workspace))
    return Shell(workspace, capsys)


def artifact(workspace: Path, letter: str, kind: str = "model") -> Path:
    with write_artifact(workspace, kind, "m", letter * 64) as draft:
        (draft.path / "config.json").write_text(json.dumps({"letter": letter}))
        draft.notices.append(f"notice of {letter}")
    assert draft.artifact is not None
    return draft.artifact.path


@pytest.fixture
def versions(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """Two versions of `home`, the second promoted."""
    monkeypatch.setattr("causerie.model.check_model", lambda _folder: None)
    for letter in "ab":
        folder = artifact(shell.workspace, letter)
        assert shell.json("models", "import", str(folder), "--name", "home", "--licence", "MIT")["status"] == "promoted"
    return shell


def test_versions_are_listed_promoted_and_gone_back_to(versions: Shell) -> None:
    status, out, _ = versions.run("models", "list")
    assert status == 0
    assert [line.split()[:3] for line in out.strip().split("\n")] == [
        ["home@1", "retired", "model"],
        ["*", "home@2", "promoted"],
    ]
    assert "MIT" in out
    assert versions.run("models", "rollback", "home", "--reason", "worse")[1] == "serving: home@1\n"
    assert versions.json("models", "show", "home")["lineage"]["refs"] == ["home@1"]
    assert (
        versions.json("models", "promote", "home@2", status=2)["error"]["code"] == "CAU-5003"
    )  # refused by the rollback
    assert versions.json("models", "rollback", "home", status=2)["error"]["code"] == "CAU-5005"
    assert versions.json("models", "list", "nobody", status=2)["error"]["code"] == "CAU-5001"
    assert "did you mean" in versions.run("models", "show", "hone")[2]


def test_a_card_says_terms_notices_and_parents(versions: Shell) -> None:
    status, out, _ = versions.run("models", "show", "home@2")
    assert status == 0
    for words in ("# home@2", "MIT", "notice of b", "## Lineage", "No human feedback was used."):
        assert words in out


@pytest.mark.parametrize("damage", ["changed", "added", "removed", "manifest"])
def test_any_damage_to_a_version_is_a_finding(versions: Shell, damage: str) -> None:
    assert versions.json("models", "verify", "home@2")["problems"] == []
    (folder,) = (path for path in (versions.workspace / "model").iterdir() if path.name.endswith("bbbb"))
    if damage == "changed":
        (folder / "config.json").write_text('{"letter": "x"}')
    elif damage == "added":
        (folder / "more.py").write_text("evil")
    elif damage == "removed":
        (folder / "config.json").unlink()
    else:
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps({**manifest, "notices": []}))
    status, out, err = versions.run("models", "verify", "home@2", "--json")
    assert status == 1
    assert "does not verify" in err
    (problem,) = json.loads(out)["problems"]
    expected = {"changed": "was changed", "added": "more.py", "removed": "missing", "manifest": "since registration"}
    assert expected[damage] in problem
    assert versions.json("models", "verify", "home@1")["problems"] == []


@pytest.mark.parametrize("words", [["--name", "x"], ["--licence", "MIT"], ["--no-promote"]])
def test_the_starter_brings_its_own_name_and_terms(shell: Shell, words: list[str]) -> None:
    error = shell.json("models", "import", "starter", *words, status=2)["error"]
    assert error["code"] == "CAU-7001"
    assert words[0] in error["cause"]


def test_a_key_is_shown_once_listed_without_itself_and_revoked(shell: Shell) -> None:
    made = shell.json("keys", "create", "laptop", "--scope", "inference", "platform", "--days", "30")
    status, plain, _ = shell.run("keys", "create", "script", "--tokens-per-day", "1_000")
    key = plain.strip()
    assert status == 0
    assert key != made["key"]
    listed = {row["name"]: row for row in shell.json("keys", "list")["keys"]}
    assert listed["laptop"]["scopes"] == ["inference", "platform"]
    assert listed["laptop"]["id"] == made["id"]
    assert listed["laptop"]["expires"] > time.time() + 29 * 86_400
    assert listed["script"]["expires"] is None
    for text in (json.dumps([*listed.values()]), (shell.workspace / "causerie.db").read_bytes().decode("latin-1")):
        assert key not in text
        assert made["key"] not in text
    assert shell.run("keys", "revoke", made["id"])[0] == 0
    status, out, _ = shell.run("keys", "list")
    assert [line.split()[2:4] for line in out.strip().split("\n")] == [
        ["revoked", "inference,platform"],
        ["in", "force"],
    ]
    assert shell.json("keys", "revoke", made["id"], status=2)["error"]["code"] == "CAU-6009"
    assert shell.json("keys", "create", "x", "--scope", "everything", status=2)["error"]["cause"].startswith(
        "'everything'"
    )
    with open_store(shell.workspace) as store:
        assert len(store.read(select(api_keys))) == 2


@pytest.mark.parametrize("flag", ["--days", "--tokens-per-minute", "--tokens-per-day", "--requests-per-minute"])
def test_a_key_that_would_be_worth_nothing_is_not_made(shell: Shell, flag: str) -> None:
    for number in ("0", "-3"):
        error = shell.json("keys", "create", "x", flag, number, status=2)["error"]
        assert (error["code"], error["where"]) == ("CAU-7001", flag)
    assert shell.json("keys", "list")["keys"] == []


def test_runs_are_found_by_the_beginning_of_their_name(shell: Shell) -> None:
    assert shell.run("runs", "list")[1] == "no runs yet\n"
    for name in ("one", "other"):
        with open_run(shell.workspace, "pretrain", name, "a" * 64, {"depth": 2}) as made:
            for step in range(30):
                made.log("step", step=step, loss=3.0)
            made.result = {"bits": 1.5}
    with pytest.raises(ZeroDivisionError), open_run(shell.workspace, "sft", "bad", "b" * 64, {}):
        raise ZeroDivisionError("a bug")
    rows = shell.json("runs", "list")["runs"]
    assert [(row["id"], row["status"]) for row in rows] == [
        ("sft-bad-bbbbbbbb", "failed"), ("pretrain-other-aaaaaaaa", "done"), ("pretrain-one-aaaaaaaa", "done"),
    ]  # fmt: skip
    shown = shell.json("runs", "show", "pretrain-one")
    assert (shown["config"], shown["result"]) == ({"depth": 2}, {"bits": 1.5})
    assert [event["step"] for event in shown["events"]] == list(range(10, 30))
    assert "may be several runs" in shell.run("runs", "show", "pretrain-o")[2]
    assert shell.json("runs", "show", "sft")["error"]["cause"] == "a bug"


def test_the_machine_is_looked_at_and_each_lack_has_its_mend(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    free = shutil._ntuple_diskusage(10**12, 0, 10**12)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    assert shell.run("doctor")[0] == 0
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free._replace(free=10**9))
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setenv("CAUSERIE_DATA", str(shell.workspace / "nowhere"))
    monkeypatch.setattr(doctor.importlib.metadata, "version", missing)
    status, out, err = shell.run("doctor")
    assert status == 1
    assert "2 of " in err
    for words in ("FAIL  torch: not installed", "pip install 'causerie[train]'", "FAIL  free disk: 1.0 GB"):
        assert words in out
    for words in ("-     C++ compiler: none", "-     browser for the tests: none", "-     data pack: none"):
        assert words in out
    assert sum(line.startswith("FAIL") for line in out.split("\n")) == 2


def missing(name: str) -> str:
    raise doctor.importlib.metadata.PackageNotFoundError(name)


def test_a_workspace_that_cannot_be_written_is_told(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    checks = {
        row["check"]: row for row in shell.json("doctor", "--workspace", str(tmp_path / "file"), status=1)["checks"]
    }
    assert not checks["workspace"]["ok"]
    assert "--workspace" in checks["workspace"]["fix"]


@dataclass
class Scripted:
    """An engine that says what it was told to, and remembers what it was asked."""

    answers: list[list[str]]
    asked: list[tuple[list[int], Sampling]] = field(default_factory=list)
    has_work: bool = False
    _left: list[Event] = field(default_factory=list)

    def add(self, name: str, ids: list[int], sampling: Sampling) -> None:
        self.asked.append((ids, sampling))
        pieces = self.answers.pop(0)
        self._left = [Event(name, ids=[*piece.encode()]) for piece in pieces]
        self._left.append(Event(name, ids=[1], finish="stop"))
        self.has_work = True

    def step(self) -> Iterator[Event]:
        yield self._left.pop(0)
        self.has_work = bool(self._left)


class Bytes:
    """Ids are bytes; 0 begins a document and 1 ends a turn."""

    eot_id = 0

    def encode(self, text: str) -> list[int]:
        return [*text.encode()]

    def decode_bytes(self, ids: list[int]) -> bytes:
        return bytes(ids)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Scripted:
    def prompt(messages: list[dict[str, str]]) -> list[int]:
        return [*"".join(f"<{m['role'][0]}>{m['content']}" for m in messages).encode()]

    made = Scripted([])
    chat = SimpleNamespace(tokenizer=Bytes(), stop_ids=(1,), prompt=prompt)
    monkeypatch.setattr(talk, "folder_of", lambda *_: tmp_path)
    monkeypatch.setattr(talk, "load_chat_format", lambda _: chat)
    monkeypatch.setattr(talk, "_engine", lambda _: made)
    return made


def test_a_talk_remembers_what_was_said(shell: Shell, engine: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.answers = [["Bon", "jour é"[:5], "\u00e9"], ["Adieu"]]
    monkeypatch.setattr(sys, "stdin", io.StringIO("Salut\n  Et toi ?  \n\nnever asked\n"))
    status, out, _ = shell.run("chat", "m", "--system", "Be brief.", "--temperature", "0.3")
    assert status == 0
    assert out == "Bonjour é\nAdieu\n"
    prompts = [bytes(ids).decode() for ids, _ in engine.asked]
    assert prompts == ["<s>Be brief.<u>Salut", "<s>Be brief.<u>Salut<a>Bonjour é<u>Et toi ?"]
    assert {sampling.temperature for _, sampling in engine.asked} == {0.3}
    assert all({0, 1} <= set(sampling.stop_ids) for _, sampling in engine.asked)


def test_half_a_character_waits_for_its_other_half(shell: Shell, engine: Scripted) -> None:
    whole = "é".encode()
    engine.answers = [[]]
    engine.add = lambda name, ids, sampling: engine.asked.append((ids, sampling))  # type: ignore[method-assign]
    engine._left = [
        Event("cli", ids=[whole[0]]),
        Event("cli", ids=[whole[1]]),
        Event("cli", ids=[195, 1], finish="stop"),
    ]
    engine.has_work = True
    assert shell.json("generate", "m", "--prompt", "x") == {"text": "é\ufffd", "finish": "stop", "prompt_tokens": 4}


@pytest.mark.parametrize(
    ("words", "prompt", "heat"),
    [
        (["--prompt", "a"], b"<u>a", 0.8),
        (["--prompt", "a", "--raw"], b"\0a", 0.8),
        (["--prompt", "-", "--greedy"], b"<u>-", 0),
    ],
)
def test_a_prompt_is_answered_or_continued(
    shell: Shell, engine: Scripted, words: list[str], prompt: bytes, heat: float
) -> None:
    engine.answers = [["b"]]
    assert shell.run("generate", "m", *words, "--max-tokens", "1e2")[1] == "b\n"
    ((ids, sampling),) = engine.asked
    assert (bytes(ids), sampling.temperature, sampling.max_tokens) == (prompt, heat, 100)
