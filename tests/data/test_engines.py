"""Whoever curates and whatever kills it: the same bytes. Workers, datatrove's executor, kill -9 at any moment."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

import causerie
from causerie.core import CauserieError
from causerie.data import DataBuildConfig, build
from causerie.data.batch_store import BatchStore
from causerie.data.cluster import curate_task, write_plan
from causerie.data.plan import batches_of, bytes_read, units_of
from causerie.data.sources import find_sources
from tests.waiting import wait_for

SCRIPT = """
import sys
from pathlib import Path
from causerie.data import DataBuildConfig, PackConfig, build, pack

class Bytes:
    vocab_size, eot_id = 257, 0
    def encode_batch(self, texts):
        return [[byte + 1 for byte in text.encode()] for text in texts]

if __name__ == "__main__":
    source, engine, place = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    config = DataBuildConfig(sources=(source,), engine=engine, tasks=2, workers=2, batch_documents=3, out=place / "corpus")
    made = build(config, place)
    (place / "t").mkdir(exist_ok=True)
    (place / "t" / "tokenizer.json").write_text("{}")
    pack(PackConfig(made.path, place / "t", val_fraction=0.3, out=place / "shards"), place, Bytes())
"""


@pytest.fixture
def folder(tmp_path: Path, make_prose) -> Path:
    """Files enough for several units: 24 JSONL files with copies across them."""
    made = tmp_path / "in"
    made.mkdir()
    for number in range(24):
        texts = [make_prose(number), make_prose(number // 2, "fr"), "short", make_prose(100 + number) * 20]
        (made / f"{number:02d}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return made


def start(python: str, tmp_path: Path, source: Path, engine: str, place: Path) -> subprocess.Popen[bytes]:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    env = {**os.environ, "PYTHONPATH": str(Path(causerie.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    log = open(tmp_path / "log", "ab")  # noqa: SIM115 - the process writes to it
    return subprocess.Popen([python, str(script), str(source), engine, str(place)], env=env, stdout=log, stderr=log)


def changes(place: Path) -> int:
    """Files that a build has made so far: how far it has come, whatever the time it took."""
    return sum(len(files) for _, _, files in os.walk(place))


def content(place: Path) -> dict[str, bytes]:
    """Every file of corpus and shards but the manifests, which hold the time."""
    files = sorted(path for name in ("corpus", "shards") for path in (place / name).iterdir())
    return {path.name: path.read_bytes() for path in files if path.name != "manifest.json"}


def test_units_hold_every_file_in_order(folder: Path, tmp_path: Path) -> None:
    files = find_sources((str(folder),), tmp_path)
    units = units_of(files)
    assert [file for unit in units for file in unit.files] == files
    assert len(units) > 3
    assert units == units_of(files)
    config = DataBuildConfig(batch_documents=3)
    opened: list[str] = []
    names = [name for unit in units for name, _ in batches_of(unit, config, lambda file: opened.append(file.label))]
    assert names == sorted(set(names))
    assert opened == [file.label for file in files]


def test_how_far_a_file_was_read(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x" * 100)
    with open(path, "rb", buffering=0) as file:
        file.read(40)
        assert bytes_read(path) == 40
    assert bytes_read(path) == 0


def test_tasks_of_any_number_write_the_same_batches(folder: Path, tmp_path: Path) -> None:
    config = DataBuildConfig(sources=(str(folder),), batch_documents=3)
    units = units_of(find_sources(config.sources, tmp_path))
    found = []
    for tasks in (1, 3):
        store = BatchStore(tmp_path / f"batches{tasks}")
        plan = write_plan(tmp_path / f"plan{tasks}", config, units, store, None)
        counts = [sum(curate_task(plan, rank, tasks)) for rank in range(tasks)]
        assert sum(counts) == 96
        assert sum(curate_task(plan, 0, tasks)) == 0  # all there: nothing is done twice
        found.append({path.name: path.read_bytes() for path in store.folder.iterdir()})
    assert found[0] == found[1]


def test_without_datatrove_it_says_what_to_install(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("causerie.data")
    try:
        import datatrove  # noqa: F401
    except ImportError:
        with pytest.raises(CauserieError, match="datatrove") as caught:
            build(DataBuildConfig(sources=(str(folder),), engine="cluster"), tmp_path)
        assert caught.value.code == "CAU-1008"


@pytest.mark.slow
def test_datatrove_gives_the_same_bytes_as_local_workers(folder: Path, tmp_path: Path) -> None:
    """Slow: two builds, one through datatrove's executor with two workers, in an environment that has it."""
    peer = os.environ.get("DATATROVE_PYTHON", "")
    if not peer or not Path(peer).exists():
        pytest.skip("DATATROVE_PYTHON names no environment with datatrove")
    assert start(peer, tmp_path, folder, "cluster", tmp_path / "cluster").wait(250) == 0, (tmp_path / "log").read_text()
    assert start(sys.executable, tmp_path, folder, "local", tmp_path / "local").wait(250) == 0
    assert content(tmp_path / "cluster") == content(tmp_path / "local")
    tasks = list((tmp_path / "cluster" / "runs").rglob("*"))
    assert tasks  # the run folder stays, its batches do not


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    """Slow: a process that builds and packs is killed four times, then left to end."""
    assert start(sys.executable, tmp_path, folder, "local", tmp_path / "whole").wait(250) == 0
    chance = random.Random(0)
    place = tmp_path / "killed"
    kills = 0
    for _ in range(4):
        before, more = changes(place), chance.randint(1, 12)
        process = start(sys.executable, tmp_path, folder, "local", place)
        wait_for(lambda: process.poll() is not None or changes(place) >= before + more)  # noqa: B023
        kills += process.poll() is None
        process.kill()
        process.wait()
    assert start(sys.executable, tmp_path, folder, "local", place).wait(250) == 0
    assert kills > 0
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
