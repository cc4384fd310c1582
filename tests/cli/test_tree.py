"""The whole tree of commands: help for each, a text for each flag, one edge where every ending gets its status."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from cyclopts import App, Token
from hypothesis import given
from hypothesis import strategies as st

from causerie.cli import app as edge
from causerie.cli.app import build_app, main
from causerie.cli.flags import (
    as_object,
    command_for,
    describe,
    field_docs,
    hide_dash,
    show_dash,
    whole_number,
)
from causerie.cli.reference import command_lines
from causerie.core import CauserieError, Finding, Stopped, write_artifact


def commands(app: App, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], App]]:
    """Every command below `app` that can be run, with the words that name it."""
    if path and app.default_command is not None:
        yield path, app
    for name in app:
        if not name.startswith("-"):
            yield from commands(app[name], (*path, name))


TREE = {" ".join(path): found for path, found in commands(build_app())}


def run(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main([*words])
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


def test_the_tree_has_the_commands_of_the_architecture() -> None:
    groups = {name.split()[0] for name in TREE}
    assert {"demo", "data", "tokenizer", "train", "eval", "generate", "chat", "serve", "feedback", "improve"} <= groups
    assert {"models", "plan", "runs", "doctor", "keys", "canary"} <= groups
    plan = {name.split()[1] for name in TREE if name.startswith("plan ")}
    assert {"count", "fit", "predict", "score", "memory", "layout", "dryrun", "gap"} <= plan


@pytest.mark.parametrize("name", sorted(TREE))
def test_every_flag_says_what_it_is(name: str) -> None:
    app = TREE[name]
    doc = (app.default_command.__doc__ or "").strip().split("\n")[0]
    assert doc.endswith(".")
    assert len(doc) > 10
    for argument in app.assemble_argument_collection(parse_docstring=False):
        names = [flag for flag in argument.names if flag.startswith("--")]
        assert all(flag == flag.lower() and "_" not in flag for flag in names), names
        if command_for.__name__ in getattr(app.default_command, "__qualname__", ""):
            assert (argument.parameter.help or "").strip(), (name, argument.names)


@pytest.mark.parametrize("name", ["", "data", "data build", "plan count", "models import", "runs plot", "keys create"])
def test_help_is_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(*name.split(), "--help", capsys=capsys)
    assert (status, err) == (0, "")
    assert "Usage: causerie" in out
    if name in TREE:
        flags = [n for a in TREE[name].assemble_argument_collection(parse_docstring=False) for n in a.names]
        assert all(
            flag in out for flag in flags if flag.startswith("--") and not flag.startswith(("--no-", "--empty-"))
        )


def test_the_reference_lists_every_command_once_with_every_flag() -> None:
    lines = command_lines(build_app())
    heads = [line.removeprefix("## causerie ") for line in lines if line.startswith("## ")]
    assert sorted(heads) == sorted(TREE)
    text = "\n".join(lines)
    assert "| `--vocab-size` | `16384` |" in text
    assert all(line.count("|") == 4 for line in lines if line.startswith("| `"))


ENDINGS = [
    (Finding("the answer is no"), 1, "the answer is no"),
    (Stopped("half of it is done"), 75, "run the same command again"),
    (KeyboardInterrupt(), 130, ""),
    (CauserieError("CAU-1001", "a cause", where="a place", fix="a fix"), 2, "error CAU-1001: a cause"),
    (FileNotFoundError(errno.ENOENT, "No such file", "/no/such"), 2, "/no/such"),
    (PermissionError(errno.EACCES, "Permission denied", "/root/x"), 2, "check the path and its rights"),
    (OSError(errno.ENOSPC, "No space left on device"), 2, "free some space"),
    (OSError(errno.EDQUOT, "Disk quota exceeded"), 2, "free some space"),
    (IsADirectoryError(errno.EISDIR, "Is a directory", "here"), 2, "CAU-7004"),
    (ModuleNotFoundError("No module named 'torch'", name="torch"), 2, "causerie[train]"),
]


@pytest.mark.parametrize(("error", "status", "words"), ENDINGS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("as_json", [False, True])
def test_every_ending_has_its_status_and_its_words(
    error: BaseException, status: int, words: str, as_json: bool, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    def fail(_tokens: list[str]) -> None:
        raise error

    monkeypatch.setattr(edge, "dispatch", fail)
    got, out, err = run("data", "build", *(["--json"] if as_json else []), capsys=capsys)
    assert got == status
    assert words in err.replace("\n", " ") or words in err
    assert "Traceback" not in err
    if as_json and status == 2:
        told = json.loads(out)["error"]
        assert told["code"].startswith("CAU-")
        assert all(told.values()), told
    else:
        assert out == ""


def test_a_bug_is_no_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (ModuleNotFoundError("No module named 'x'", name="x"), ZeroDivisionError("a bug")):

        def fail(_tokens: list[str], error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr(edge, "dispatch", fail)
        with pytest.raises(type(error)):
            main(["data", "build"])


def test_words_that_are_no_utf8_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run("data", "extract", os.fsdecode(b"caf\xe9.html"), capsys=capsys)
    assert (status, out) == (2, "")
    assert "caf\\udce9.html" in err


@pytest.mark.parametrize("form", ["environment", "file", "flag"])
def test_a_real_command_takes_its_values_from_each_place(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["plan", "count", "llama3-8b", "--json"]
    if form != "flag":
        (tmp_path / "c.toml").write_text("seq_len = 1000\n")
        words += ["--config", str(tmp_path / "c.toml")]
    if form == "environment":
        monkeypatch.setenv("CAUSERIE_PLAN_COUNT_SEQ_LEN", "2000")
    if form == "flag":
        words += ["--seq-len", "3000"]
    status, out, err = run(*words, capsys=capsys)
    assert status == 0, err
    assert json.loads(out)["seq_len"] == {"file": 1000, "environment": 2000, "flag": 3000}[form]


@pytest.mark.parametrize(
    "words",
    [
        ["runs", "list"], ["models", "list"], ["plan", "models"], ["plan", "count", "gpt2-774m"], ["canary", "show"],
        ["keys", "list"], ["feedback", "stats"], ["plan", "layout", "llama3-8b"],
    ],
)  # fmt: skip
def test_json_is_one_object_and_the_last_line(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAUSERIE_WORKSPACE", str(tmp_path / "w"))
    status, out, err = run(*words, "--json", capsys=capsys)
    assert status in (0, 1), err
    assert out.endswith("\n")
    assert isinstance(json.loads(out.strip().split("\n")[-1]), dict)
    assert out.count("\n") == 1


@dataclasses.dataclass(frozen=True)
class Base:
    """Fields of a base are flags too."""

    first: int = 1
    """Of the base."""


@dataclasses.dataclass(frozen=True)
class Config(Base):
    """A configuration with a field of each kind."""

    source: str = ""
    """What it
    reads."""
    many: tuple[str, ...] = ()
    """Several."""
    sizes: tuple[int, ...] = (1, 2)
    """Several with values."""
    ratio: float = 0.5
    """A share."""
    fast: bool = True
    """Whether."""
    mode: Literal["a", "b"] = "a"
    """One of two."""
    limit: int | None = None
    """Perhaps."""
    out: Path | None = None
    """Where."""
    undocumented: int = 0


def call(*words: str) -> Config:
    seen: list[Config] = []
    app = App(result_action="return_value")
    app.command(
        command_for(Config, lambda config, _: seen.append(config) or {}, "Test.", positional=("source",)), name="t"
    )
    app(["t", *map(hide_dash, words)], exit_on_error=False, print_error=False)
    return seen[0]


@pytest.mark.parametrize(
    ("words", "change"),
    [
        ((), {}),
        (("x",), {"source": "x"}),
        (("-",), {"source": "-"}),
        (("--many", "-", "b"), {"many": ("-", "b")}),
        (("--source", "x", "--many", "a", "b", "c"), {"source": "x", "many": ("a", "b", "c")}),
        (("--many", "a", "--many", "b"), {"many": ("a", "b")}),
        (("--sizes", "3", "1000"), {"sizes": (3, 1000)}),
        (("--empty-sizes",), {"sizes": ()}),
        (("--no-fast", "--mode", "b", "--limit", "7"), {"fast": False, "mode": "b", "limit": 7}),
        (("--limit", "none", "--ratio", "1e-3", "--out", "a/b"), {"limit": None, "ratio": 1e-3, "out": Path("a/b")}),
        (("--first", "0x20"), {"first": 32}),
    ],
)
def test_fields_become_flags(words: tuple[str, ...], change: dict[str, Any]) -> None:
    assert call(*words) == dataclasses.replace(Config(), **change)


@pytest.mark.parametrize(
    "words", [("--mode", "c"), ("--ratio", "much"), ("--first", "1.5"), ("--nonsense", "1"), ("--many",)]
)
def test_values_of_the_wrong_kind_are_refused(words: tuple[str, ...]) -> None:
    from cyclopts import CycloptsError

    with pytest.raises(CycloptsError):
        call(*words)


def test_the_text_below_a_field_is_its_help() -> None:
    docs = field_docs(Config)
    assert docs["source"] == "What it reads."
    assert docs["first"] == "Of the base."
    assert "undocumented" not in docs


@given(st.integers(-(10**20), 10**20))
def test_whole_numbers_keep_every_digit(number: int) -> None:
    for text in (str(number), f"{number:_}", hex(number)):
        assert whole_number(int, [Token(value=text)]) == number


@given(st.floats(allow_nan=False, allow_infinity=False).filter(lambda value: not value.is_integer()))
def test_a_broken_number_is_no_whole_one(number: float) -> None:
    with pytest.raises(ValueError, match="whole"):
        whole_number(int, [Token(value=repr(number))])


@given(st.recursive(st.text(max_size=3), lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=6))
def test_a_dash_is_hidden_and_shown_again(value: Any) -> None:
    hidden = (
        hide_dash(value)
        if isinstance(value, str)
        else tuple(map(hide_dash, value))
        if all(isinstance(v, str) for v in value)
        else value
    )
    assert show_dash(hidden) == value or "./-" in str(value)


def test_results_as_objects_and_for_people(tmp_path: Path) -> None:
    with write_artifact(tmp_path, "corpus", "c", "a" * 64, inputs={"x": "y"}) as draft:
        draft.metrics |= {"documents_kept": 3, "share": 1 / 3, "by_language": {"en": {"bytes": 2.5}}}
    found = as_object(draft.artifact)
    assert {name: found[name] for name in ("kind", "name", "key", "inputs")} == {
        "kind": "corpus", "name": "c", "key": "a" * 64, "inputs": {"x": "y"},
    }  # fmt: skip
    lines = describe(draft.artifact).split("\n")
    assert lines[0] == found["path"]
    assert lines[1:] == ["  documents_kept: 3", "  share: 0.3333", "  by_language: en bytes 2.5"]
    assert as_object([1, 2]) == {"result": [1, 2]}
    assert describe(Config()) == "\n".join(f"  {k}: {v}" for k, v in as_object(Config()).items())


def test_the_program_ends_with_the_status_it_says(tmp_path: Path) -> None:
    """Seen from outside: a module, its standard streams and its exit status."""
    done = subprocess.run(
        [sys.executable, "-m", "causerie", "models", "show", "nobody", "--json", "--workspace", str(tmp_path)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["code"] == "CAU-5001"
    assert done.stderr.startswith("error CAU-5001")


def test_ctrl_c_while_the_program_still_loads_leaves_no_traceback() -> None:
    """The key is pressed when the parser of flags is imported: long before the edge that turns errors into statuses."""
    pressed = (
        "import sys\n"
        "class Press:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'cyclopts': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Press())\n"
        "from causerie.cli import main\n"
        "main(['models', 'list'])\n"
    )
    done = subprocess.run([sys.executable, "-c", pressed], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
