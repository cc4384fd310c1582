"""Weights written by `save_tensors`, read by safetensors' NumPy side; what comes of a folder that cannot be written."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.numpy import load_file

from causerie.core import CauserieError, write_artifact
from causerie.model import save_tensors

SHAPES = st.lists(st.lists(st.integers(0, 4), max_size=3).map(tuple), min_size=1, max_size=5)


@given(SHAPES, st.sampled_from([torch.float32, torch.float16, torch.int64, torch.uint8, torch.bool]))
@settings(max_examples=25, deadline=None)
def test_another_reader_finds_every_tensor(
    tmp_path_factory: pytest.TempPathFactory, shapes: list[tuple[int, ...]], dtype: torch.dtype
) -> None:
    """Scalars and tensors without a single number are tensors too."""
    path = tmp_path_factory.mktemp("tensors") / "some.safetensors"
    generator = torch.Generator().manual_seed(0)
    made = {f"t{i}": (torch.rand(shape, generator=generator) * 9).to(dtype) for i, shape in enumerate(shapes)}
    save_tensors(made, path)
    found = load_file(path)
    assert set(found) == set(made)
    for name, tensor in made.items():
        np.testing.assert_array_equal(found[name], tensor.numpy())


def test_notes_stand_in_the_files_head(tmp_path: Path) -> None:
    save_tensors({"a": torch.ones(2)}, tmp_path / "a.safetensors", metadata={"format": "pt"})
    content = (tmp_path / "a.safetensors").read_bytes()
    head = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert head["__metadata__"] == {"format": "pt"}
    assert head["a"]["shape"] == [2]


def test_a_folder_that_is_not_there_is_the_systems_error(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "a.safetensors"
    with pytest.raises(OSError, match="No such file") as caught:
        save_tensors({"a": torch.ones(2)}, path)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOENT, str(path))


@pytest.mark.parametrize(("said", "code"), [("I/O error: ... (os error 28)", errno.ENOSPC), ("something", errno.EIO)])
def test_in_an_artifact_it_is_an_error_with_a_code(
    said: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise SafetensorError(said)

    monkeypatch.setattr("causerie.model.tensor_files.save_file", refuse)
    with pytest.raises(CauserieError) as caught, write_artifact(tmp_path, "model", "full", "0" * 64) as draft:
        save_tensors({"a": torch.ones(2)}, draft.path / "model.safetensors")
    assert caught.value.code == "CAU-1007"
    cause = caught.value.__cause__
    assert isinstance(cause, OSError)
    assert cause.errno == code
    assert list((tmp_path / "model").iterdir()) == []
