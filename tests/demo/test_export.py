"""Exporting never removes what is not an earlier export."""

from __future__ import annotations

from pathlib import Path

import pytest

from causerie.core import CauserieError, write_artifact
from causerie.demo import export_version
from causerie.demo.export import make_room
from causerie.store import open_store

EXPORT = ("config.json", "model.safetensors", "README.md", "NOTICE", "loss.svg")


def filled(folder: Path, *names: str) -> Path:
    """A folder with files of these names."""
    folder.mkdir()
    for name in names:
        (folder / name).write_text(name)
    return folder


def test_an_earlier_export_makes_room(tmp_path: Path) -> None:
    target = filled(tmp_path / "export", *EXPORT)
    make_room(target)
    assert not target.exists()
    make_room(target)


@pytest.mark.parametrize(
    "names", [("config.json", "app.js"), (*EXPORT, "app.js"), ("config.json", "model.safetensors"), ("notes.txt",)]
)
def test_other_folders_are_left_alone(names: tuple[str, ...], tmp_path: Path) -> None:
    target = filled(tmp_path / "mine", *names)
    with pytest.raises(CauserieError) as caught:
        make_room(target)
    assert caught.value.code == "CAU-7103"
    assert {path.name for path in target.iterdir()} == set(names)


def test_files_and_artifacts_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("file")
    with write_artifact(tmp_path / "model", "model", "m", "0" * 64, exact=True) as draft:
        (draft.path / "config.json").write_text("{}")
    for target in (tmp_path / "file", tmp_path / "model"):
        with pytest.raises(CauserieError):
            make_room(target)
        assert target.exists()


def test_a_model_that_is_not_there_costs_no_folder(tmp_path: Path) -> None:
    target = filled(tmp_path / "export", *EXPORT)
    with open_store(tmp_path / "workspace") as store, pytest.raises(CauserieError) as caught:
        export_version(store, tmp_path / "workspace", "nobody", target)
    assert caught.value.code == "CAU-5001"
    assert len(list(target.iterdir())) == len(EXPORT)
