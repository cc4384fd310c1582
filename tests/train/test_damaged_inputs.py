"""Faults around a training run: full disks and cut files of what it reads and writes beside its checkpoints."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from causerie.core import Artifact, CauserieError, open_artifact, write_artifact
from causerie.data import PackConfig, pack
from causerie.model import load_model, save_model
from causerie.train import PretrainConfig, pretrain
from tests.train.test_pretraining import config, made
from tests.train.tiny import model_folder, tiny_model, tiny_tokenizer

__all__ = ["made"]

PACK = """
import sys
from pathlib import Path
from causerie.data import PackConfig, pack
corpus, tokenizer, out = map(Path, sys.argv[1:])
pack(PackConfig(corpus=corpus, tokenizer=tokenizer, val_fraction=0.1, out=out), out.parent)
"""


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes: what a full disk does to whoever writes."""
    before, old = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old)


def corpus_of(made: tuple[Path, Artifact]) -> Path:
    (corpus,) = (made[0].parent / "corpus").iterdir()
    return corpus


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file() and p.name != "manifest.json"}


def test_f3_packing_killed_at_any_point_ends_with_the_same_bytes(made: tuple[Path, Artifact], tmp_path: Path) -> None:
    script = [sys.executable, "-c", PACK, str(corpus_of(made)), str(made[0])]

    def run(out: Path, **environment: str) -> int:
        return subprocess.run([*script, str(out)], env={**os.environ, **environment}, capture_output=True).returncode

    log = tmp_path / "points"
    assert run(tmp_path / "whole", CAUSERIE_CRASH_LOG=str(log)) == 0
    whole = content(tmp_path / "whole")
    assert {"train-00000.bin", "val.bin"} <= set(whole)
    points = list(dict.fromkeys(log.read_text().split()))
    assert points
    for point in points:
        out = tmp_path / point / "shards"
        out.parent.mkdir()
        assert run(out, CAUSERIE_CRASH_AT=point) == -signal.SIGKILL, point
        assert run(out) == 0, point
        open_artifact(out, verify="digest")
        assert content(out) == whole, point
        assert [p.name for p in out.parent.iterdir() if p.name.startswith(".") and p.name.endswith(".part")] == [], (
            point
        )


def test_f4_a_full_disk_leaves_no_half_shards(made: tuple[Path, Artifact], tmp_path: Path) -> None:
    wanted = PackConfig(corpus=corpus_of(made), tokenizer=made[0], val_fraction=0.1, out=tmp_path / "shards")
    with files_up_to(1000), pytest.raises(CauserieError) as caught:
        pack(wanted, tmp_path)
    assert caught.value.code == "CAU-1007"
    assert "free" in caught.value.cause
    assert str(tmp_path) in caught.value.where
    assert not (tmp_path / "shards").exists()
    assert open_artifact(pack(wanted, tmp_path).path, verify="digest")


def test_f4_a_full_disk_leaves_the_tokenizer_that_was_there(tmp_path: Path) -> None:
    tiny_tokenizer().save(tmp_path)
    before = content(tmp_path)
    with files_up_to(200), pytest.raises(CauserieError) as caught:
        tiny_tokenizer(["other words", "for another tokenizer"] * 5).save(tmp_path)
    assert caught.value.code == "CAU-1007"
    assert "tokenizer" in caught.value.where
    assert content(tmp_path) == before


def test_f4_a_full_disk_at_the_export_is_an_error_with_a_code(tmp_path: Path) -> None:
    with files_up_to(1000), pytest.raises(CauserieError) as caught:  # noqa: SIM117
        with write_artifact(tmp_path, "model", "tiny", "0" * 64) as draft:
            save_model(tiny_model(), draft.path, None)
    assert caught.value.code == "CAU-1007"
    assert "File too large" in caught.value.cause
    assert "tiny-00000000" in caught.value.where
    assert list((tmp_path / "model").iterdir()) == []
    with files_up_to(1000), pytest.raises(OSError, match="File too large") as refused:
        save_model(tiny_model(), tmp_path, None)
    assert refused.value.filename.endswith("model.safetensors")


@pytest.mark.parametrize("name", ["train-00000.bin", "train-00000.idx.npy", "val.bin", "val.idx.npy", "manifest.json"])
@pytest.mark.parametrize("left", ["nothing", "a part"])
def test_f6_cut_shards_are_refused_and_the_file_is_named(
    made: tuple[Path, Artifact], tmp_path: Path, name: str, left: str
) -> None:
    folder = tmp_path / "shards"
    shutil.copytree(made[1].path, folder)
    size = (folder / name).stat().st_size
    os.truncate(folder / name, 0 if left == "nothing" else random.Random(name).randrange(1, size))
    with pytest.raises(CauserieError) as caught:
        pretrain(PretrainConfig(**{**vars(config(made)), "shards": folder}), tmp_path)
    assert caught.value.code.startswith("CAU-10")
    assert name in f"{caught.value.where} {caught.value.cause}"
    assert not list(tmp_path.glob("model/*"))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
@pytest.mark.parametrize("left", ["nothing", "a part", "noise"])
def test_f6_cut_models_are_refused_and_the_file_is_named(tmp_path: Path, name: str, left: str) -> None:
    from causerie.text import load_tokenizer

    folder = model_folder(tmp_path / "model")
    path = folder / name
    whole = path.read_bytes()
    cut = {"nothing": b"", "a part": whole[: len(whole) // 3], "noise": b"\x00\xff\x13" * 50}[left]
    path.write_bytes(cut)
    with pytest.raises(CauserieError) as caught:
        load_model(folder) if name != "tokenizer.json" else load_tokenizer(folder)
    assert name in f"{caught.value.where} {caught.value.cause}"
    assert caught.value.fix


def test_f16_shards_and_tokenizers_that_are_not_there_are_named(made: tuple[Path, Artifact], tmp_path: Path) -> None:
    for field in ("shards", "tokenizer"):
        with pytest.raises(CauserieError) as caught:
            pretrain(PretrainConfig(**{**vars(config(made)), field: tmp_path / "nowhere"}), tmp_path)
        assert "nowhere" in caught.value.where, field
        assert caught.value.fix


INODES = """
import errno, os, sys
from pathlib import Path
from causerie.core import CauserieError, write_artifact
folder = Path(sys.argv[1])
number = 0
try:
    while True:
        (folder / f"file{number}").touch()
        number += 1
except OSError as error:
    assert error.errno == errno.ENOSPC and number > 3
try:
    with write_artifact(folder, "kind", "name", "k" * 64) as draft:
        (draft.path / "one").write_text("1")
except CauserieError as error:
    print(error.code, error.cause)
"""


def test_f16_a_full_inode_table_is_an_error_in_words(tmp_path: Path) -> None:
    """A small file system with twenty inodes, in a mount namespace of its own."""
    script = f'mount -t tmpfs -o size=1m,nr_inodes=20 none "{tmp_path}" && exec "{sys.executable}" -c "$1" "{tmp_path}"'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", INODES]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("there is no unshare on this machine")
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip(f"no mount namespace here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("CAU-1007"), done.stdout
    assert "No space left" in done.stdout
