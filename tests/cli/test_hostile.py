"""Hostile use of the commands: bad files, bad values, bad places. Each is told with code, cause, place and fix."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from causerie.cli.app import main
from causerie.core import open_run, write_artifact
from causerie.data import DataBuildConfig, PackConfig, build, pack
from causerie.text import TokenizerConfig, train_tokenizer
from tests.data.conftest import prose

KEY = "a" * 64
RUNS = "\n".join(
    f"{n:g},{d:g},{1.7 + 40 / n**0.3 + 200 / d**0.3:.4f}" for n in (1e6, 2e6, 4e6, 8e6) for d in (2e7, 8e7, 3e8)
)


def run(line: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a command line run in this process."""
    with pytest.raises(SystemExit) as caught:
        main(shlex.split(line))
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


def manifest(folder: Path, **changed: object) -> None:
    folder.mkdir()
    whole = {"kind": "corpus", "name": "x", "key": KEY, "created": "2026", **changed}
    (folder / "manifest.json").write_text(json.dumps(whole))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one good thing of each kind, and many bad ones. Slow to make, so the module shares it."""
    here = tmp_path_factory.mktemp("lieu à part")
    rows = [{"text": prose(n), "url": f"https://a.example/{n}"} for n in range(30)]
    (here / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus = build(DataBuildConfig((str(here / "docs.jsonl"),), out=here / "corpus", workers=1), here / "w")
    train_tokenizer(TokenizerConfig((str(corpus.path),), out=here / "tok", vocab_size=300), here / "w")
    pack(PackConfig(corpus.path, here / "tok", out=here / "shards", val_fraction=0.2), here / "w")
    (here / "runs.csv").write_text(f"N,D,loss\n{RUNS}\n")
    with pytest.raises(SystemExit):
        main(["plan", "fit", str(here / "runs.csv"), "--out", str(here / "law.json"), "--bootstrap", "4"])
    (here / "latin.txt").write_bytes("un été à Orléans\n".encode("latin-1"))
    (here / "noise.bin").write_bytes(bytes(range(255, -1, -1)) * 9)
    (here / "empty").touch()
    (here / "broken.jsonl.gz").write_bytes(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03broken")
    (here / "list.json").write_text("[1, 2]")
    (here / "decimals.csv").write_text(f"N,D,loss\n{RUNS}\n1e6,2e7,4,10\n")
    manifest(here / "numbers", files=[{"path": 5, "bytes": "x", "sha256": 1}])
    manifest(here / "nulls", metrics=None)
    manifest(here / "outside", files=[{"path": "../docs.jsonl", "bytes": 1, "sha256": "0"}])
    (here / "listed").mkdir()
    (here / "listed" / "manifest.json").write_text("[]")
    return here


DATA = """
build docs.jsonl --sample nan                      | CAU-2003 | --sample
build docs.jsonl --page-seconds nan                | CAU-2003 | --page-seconds
build docs.jsonl --page-seconds inf                | CAU-2003 | --page-seconds
build docs.jsonl --page-memory-mb -5               | CAU-2003 | --page-memory-mb
build docs.jsonl --min-words -5                    | CAU-2003 | --min-words
build docs.jsonl --min-words 2.5                   | CAU-7001 | no whole number
build docs.jsonl --max-short-lines nan             | CAU-2003 | --max-short-lines
build docs.jsonl --dedup-words nan                 | CAU-2003 | --dedup-words
build docs.jsonl --boilerplate-pages -3            | CAU-2003 | --boilerplate-pages
build docs.jsonl --workers -2                      | CAU-2003 | --workers
build docs.jsonl --weights nan                     | CAU-2003 | nan is no weight
build docs.jsonl --weights 1 2                     | CAU-2003 | 2 weights for 1 sources
build docs.jsonl --max-top-ngrams 0.2 nan 0.1      | CAU-2003 | nan
build docs.jsonl --languages en english            | CAU-2003 | 'english'
build --languages en docs.jsonl                    | CAU-2003 | before the flags
build docs.jsonl --name ../escape                  | CAU-1011 | ../escape
build docs.jsonl --name ''                         | CAU-1011 | --name
build docs.jsonl --name .hidden                    | CAU-1011 | .hidden
build docs.jsonl --without latin.txt               | CAU-2015 | latin.txt
build docs.jsonl --without nowhere                 | CAU-2015 | nowhere
build docs.jsonl --decontaminate latin.txt         | CAU-2009 | latin.txt
build docs.jsonl --decontaminate empty             | CAU-2009 | nothing can be compared
build docs.jsonl --decontaminate broken.jsonl.gz   | CAU-2009 | broken.jsonl.gz
build docs.jsonl --after shards                    | CAU-1010 | corpus is needed
build docs.jsonl --after numbers                   | CAU-1003 | numbers
build docs.jsonl --languages de                    | CAU-2005 | docs.jsonl
build docs.jsonl --config latin.txt                | CAU-7004 | latin.txt
build docs.jsonl --config list.json                | CAU-7004 | not TOML
build ''                                           | CAU-2001 | empty name
build ~nobody-of-this-name/x                       | CAU-2001 | nobody-of-this-name
pack corpus --tokenizer tok --shard-tokens 0       | CAU-2003 | --shard-tokens
pack corpus --tokenizer tok --weights inf          | CAU-2003 | inf is no weight
pack corpus --tokenizer tok --name a/b             | CAU-1011 | a/b
pack shards --tokenizer tok                        | CAU-1010 | shards
pack docs.jsonl --tokenizer tok                    | CAU-1001 | docs.jsonl
pack numbers --tokenizer tok                       | CAU-1003 | path is 5
pack nulls --tokenizer tok                         | CAU-1003 | metrics is None
pack outside --tokenizer tok                       | CAU-1003 | out of the folder
pack listed --tokenizer tok                        | CAU-1003 | listed
refilter corpus max_top_ngrams=1                   | CAU-2003 | 1 values where 3
refilter corpus dedup_threshold=nan                | CAU-2003 | nan
refilter corpus min_words=10 min_words=20          | CAU-2003 | twice
refilter shards min_words=10                       | CAU-1010 | shards
refilter corpus min_words=40 --out corpus          | CAU-1009 | made from
trace ''                                           | CAU-2010 | url
trace x --shards corpus                            | CAU-1010 | corpus
remove shards --listed noise.bin                   | CAU-2015 | noise.bin
remove shards https://a.example/0 --out shards     | CAU-1009 | made from
report docs.jsonl                                  | CAU-1001 | docs.jsonl
report tok                                         | CAU-1001 | tok
report corpus --shards tok                         | CAU-2008 | tok
report corpus --out .                              | CAU-1007 | folder
quality train --good docs.jsonl --bad docs.jsonl --seed -1 | CAU-2003 | --seed
download empty out                                 | CAU-2014 | 0 files
download empty out --pause-seconds nan             | CAU-2003 | --pause-seconds
download empty out --base https://                 | CAU-2003 | --base
"""
PLAN = """
count ''                                           | CAU-4301 | no name
count depth:²                                      | CAU-4301 | depth:²
count llama3-8b --seq-len 1.5                      | CAU-7001 | no whole number
layout llama3-8b --data 0                          | CAU-4306 | data
layout llama3-8b --micro-batch 0                   | CAU-4306 | micro_batch
layout llama3-8b --recompute full                  | CAU-4306 | none of its sizes
fit runs.csv --drop-highest -2                     | CAU-4301 | drop_highest
fit runs.csv --min-tokens-per-param nan            | CAU-4301 | min_tokens_per_param
fit runs.csv --n-column D                          | CAU-4301 | twice
fit decimals.csv                                   | CAU-4302 | row 13
fit runs.csv --bootstrap 2 --out .                 | CAU-1007 | folder
fit latin.txt                                      | CAU-4302 | latin.txt
write llama3-8b --out .                            | CAU-4301 | .md
write llama3-8b --out plan.json                    | CAU-4301 | .md
picture --law law.json --out law.svg               | CAU-4301 | take the place
frontier runs.csv                                  | CAU-1003 | runs.csv
"""
OTHERS = """
models list nobody                                 | CAU-5001 | nobody
models show ''                                     | CAU-5001 | MODEL
models import corpus                               | CAU-5004 | a corpus, not a model
models import tok --name 'Bad Name'                | CAU-      | tok
runs show ''                                       | CAU-1001 | runs
tokenizer train noise.bin --vocab-size 300         | CAU-1203 | noise.bin
tokenizer train latin.txt --vocab-size 300         | CAU-1203 | UTF-8
tokenizer train broken.jsonl.gz --vocab-size 300   | CAU-1203 | broken.jsonl.gz:1
tokenizer train corpus --vocab-size 300 --name a/b | CAU-1011 | a/b
"""


def cases() -> Iterator[tuple[str, str, str]]:
    for table, group in ((DATA, "data "), (PLAN, "plan "), (OTHERS, "")):
        for line in table.strip().split("\n"):
            command, code, words = (part.strip() for part in line.split(" | "))
            yield group + command, code, words


@pytest.mark.parametrize(("line", "code", "words"), list(cases()), ids=lambda value: str(value)[:60])
def test_what_is_bad_is_refused_and_nothing_is_changed(
    line: str,
    code: str,
    words: str,
    place: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("CAUSERIE_WORKSPACE", str(tmp_path / "w"))
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*")}
    status, out, err = run(line, capsys)
    assert (status, out) == (2, ""), err
    told = err[err.index("error CAU-") :]
    assert re.match(rf"error {code}\d*: .+\nwhere: .+\nhint: .+", told, re.DOTALL), err
    assert words in told
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*")} == before


@pytest.mark.parametrize("form", ["--flops 1e18 1e19", "--flops 1e18 --flops 1e19"])
def test_a_flag_of_several_values_takes_them_in_both_ways(
    form: str, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    status, out, err = run(f"plan frontier law.json {form} --json", capsys)
    assert status == 0, err
    assert [row["flops"] for row in json.loads(out)["frontier"]] == [1e18, 1e19]


def test_a_flag_of_several_values_wants_one_at_least_and_may_be_cleared(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(place)
    assert "CAU-7001" in run("plan frontier law.json --flops", capsys)[2]
    (tmp_path / "german.jsonl").write_text((place / "docs.jsonl").read_text())
    command = f"data build {shlex.quote(str(tmp_path / 'german.jsonl'))} --workers 1 --workspace {shlex.quote(str(tmp_path))} --json"
    status, out, err = run(f"{command} --empty-languages", capsys)
    assert status == 0, err
    assert json.loads(out)["metrics"]["documents_kept"] == 30


@pytest.mark.parametrize(
    ("word", "number"), [("1e3", 1000), ("1_000", 1000), ("0x10", 16), ("32.0", 32), ("010", 10), ("4096", 4096)]
)
def test_whole_numbers_as_people_write_them(word: str, number: int, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(f"plan count llama3-8b --json --batch-size {word}", capsys)
    assert status == 0, err
    one = json.loads(run("plan count llama3-8b --json", capsys)[1])["memory_bytes"]
    many = json.loads(out)["memory_bytes"]
    assert {name for name in one if not math.isclose(many[name], one[name])} <= {
        "activations",
        "training",
        "kv_cache",
        *one,
    }
    assert many != one or number == 1


@pytest.mark.parametrize("text", ["1.5", "nan", "inf", "two", "", "1e400", "²"])
def test_other_words_are_no_whole_number(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(f"plan count llama3-8b --batch-size '{text}'", capsys)
    assert (status, "CAU-7001" in err) == (2, True), err


def test_runs_that_cannot_be_read_do_not_hide_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_run(tmp_path, "pretrain", "good", KEY, {}) as made:
        made.log("step", step=1, tokens=1, loss=1.0)
    for name, content in (("half", '{"id'), ("bare", "{}"), ("list", "[]"), ("bytes", "\udcff")):
        (tmp_path / "runs" / name).mkdir()
        (tmp_path / "runs" / name / "run.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    where = f"--workspace {shlex.quote(str(tmp_path))}"
    status, out, _ = run(f"runs list --json {where}", capsys)
    assert status == 0
    states = {row["id"]: row["status"] for row in json.loads(out)["runs"]}
    assert states == {made.id: "done", **dict.fromkeys(("half", "bare", "list", "bytes"), "damaged")}
    for name, code in (("half", "CAU-1003"), ("bare", "CAU-1012"), ("list", "CAU-1012"), ("bytes", "CAU-1003")):
        assert code in run(f"runs show {name} {where}", capsys)[2]
    with open(made.path / "events.jsonl", "ab") as events:
        events.write(b"{broken\n")
    for command in ("show", "plot"):
        status, _, err = run(f"runs {command} {made.id} {where}", capsys)
        assert status == 2
        assert "events.jsonl:2" in err


def in_process(*words: str | bytes, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "causerie", *words]
    return subprocess.run(command, capture_output=True, env={**os.environ, **environment}, timeout=200)


def test_a_terminal_without_accents_still_gets_an_answer(tmp_path: Path) -> None:
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    page = tmp_path / "latin.txt"
    page.write_bytes("un été à Orléans\n".encode("latin-1"))
    text = in_process("data", "extract", str(page), **plain)
    assert (text.returncode, text.stderr) == (0, b"")
    assert text.stdout.strip() == rb"un \xe9t\xe9 \xe0 Orl\xe9ans"
    found = in_process("data", "extract", str(page), "--json", PYTHONIOENCODING="latin-1")
    assert json.loads(found.stdout.decode("latin-1"))["text"] == "un été à Orléans"


def test_words_that_are_no_utf8_are_refused_and_files_in_a_folder_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "crawl"
    folder.mkdir()
    name = os.fsencode(folder) + b"/caf\xe9.jsonl"
    with open(name, "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": prose(n)}) + "\n" for n in range(3))
    refused = in_process("data", "build", name)
    assert refused.returncode == 2
    assert b"CAU-7001" in refused.stderr
    assert b"caf\\udce9" in refused.stderr
    done = in_process("data", "build", str(folder), "--workspace", str(tmp_path / "w"), "--workers", "1", "--json")
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout)["metrics"]["by_source"]) == ["caf\\udce9.jsonl"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this machine")
def test_a_full_disk_behind_stdout_is_told() -> None:
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "causerie", "plan", "models", "--json"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=200)
    assert done.returncode != 0
    assert b"CAU-7004: No space left on device" in done.stderr
    assert b"Traceback" not in done.stderr


def test_importing_again_says_what_it_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.hub.conftest import write_weights

    monkeypatch.setattr("causerie.model.check_model", lambda _: None)
    write_weights(tmp_path / "My Model")
    where = f"--workspace {shlex.quote(str(tmp_path / 'w'))}"
    source = f"models import {shlex.quote(str(tmp_path / 'My Model'))} {where}"
    assert "CAU-5002" in run(source, capsys)[2]
    assert not (tmp_path / "w" / "model").exists()
    assert run(f"{source} --name mine --licence MIT --no-promote", capsys)[1].startswith("mine@1 (candidate)")
    assert "registered already, under MIT" in run(f"{source} --name mine --licence GPL-3.0", capsys)[2]
    assert run(f"{source} --name mine", capsys)[1].startswith("mine@1 (promoted)")


def test_an_artifact_beside_its_name_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--out` over a folder of another kind is refused whoever asks."""
    with write_artifact(tmp_path, "model", "m", KEY) as draft:
        (draft.path / "model.safetensors").write_bytes(b"weights")
    assert draft.artifact is not None
    text = tmp_path / "text.txt"
    text.write_text("a cat and a dog " * 50)
    line = f"tokenizer train {shlex.quote(str(text))} --vocab-size 280 --out {shlex.quote(str(draft.artifact.path))}"
    assert "CAU-1009" in run(f"{line} --workspace {shlex.quote(str(tmp_path))}", capsys)[2]
    assert (draft.artifact.path / "model.safetensors").read_bytes() == b"weights"
