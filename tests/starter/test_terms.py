"""What the starter must say of itself, and the cut of its vocabulary, as shipped."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import pytest

from causerie.core import CauserieError
from causerie.hub import combine_licences
from causerie.starter import NOTICE, StarterConfig, kept_ids
from causerie.starter import vocabulary as vocabulary_module
from causerie.starter.gemma import notice_of_changes
from causerie.starter.package import LICENCE
from causerie.starter.vocabulary import FULL_SIZE


def test_the_notice_names_the_terms_and_what_was_changed() -> None:
    assert "ai.google.dev/gemma/terms" in NOTICE
    assert "ai.google.dev/gemma/terms" in LICENCE
    assert notice_of_changes("full").endswith("added.")
    assert notice_of_changes("en-fr").endswith("; vocabulary cut to en-fr.")
    assert combine_licences([LICENCE, "MIT"]) == f"{LICENCE} AND MIT"


def test_the_shipped_adapter_brings_the_terms_and_no_base() -> None:
    folder = files("causerie.starter").joinpath("assets", "adapter")
    names = {entry.name for entry in folder.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "GEMMA_TERMS.html"} <= names
    assert not any(name.startswith("model") for name in names)
    assert b"Gemma Terms of Use" in folder.joinpath("GEMMA_TERMS.html").read_bytes()


def test_the_cut_keeps_the_tokens_that_every_text_needs() -> None:
    kept = kept_ids(StarterConfig().vocabulary)
    assert kept is not None
    assert kept == sorted(set(kept))
    assert 0 <= kept[0] < kept[-1] < FULL_SIZE
    assert len(kept) == 83_725  # as docs/guides/starter.md says
    assert kept_ids("full") is None


@pytest.mark.parametrize("damage", ["short", "absent", "no array"])
def test_a_damaged_list_is_refused_with_its_place(damage: str, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "assets").mkdir()
    path = tmp_path / "assets" / "vocabulary-en-fr.npy"
    if damage == "short":
        np.save(path, np.zeros(4, np.uint8))
    elif damage == "no array":
        path.write_bytes(b"\x80\x04 a pickle, which nothing here reads")
    monkeypatch.setattr(vocabulary_module, "files", lambda _: tmp_path)
    with pytest.raises(CauserieError) as caught:
        kept_ids("en-fr")
    assert caught.value.code == "CAU-4403"
    assert "vocabulary-en-fr.npy" in caught.value.where
