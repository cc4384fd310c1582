"""One vector for a text: packed equals alone, and a mean equals transformers' hidden states averaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from causerie.core import CauserieError
from causerie.model import embed_rows, load_model
from tests.model.references import saved_reference, tokens

ROWS = [tokens(1, length, seed=length)[0].tolist() for length in (7, 1, 12, 3)]
PICK: dict[str, Any] = {"mean": lambda h: h.mean(0), "last": lambda h: h[-1], "first": lambda h: h[0]}


@pytest.mark.parametrize("how", PICK)
@pytest.mark.parametrize("name", ["qwen3", "gpt2", "bert", "modernbert"])
@torch.no_grad()
def test_packed_vectors_are_those_of_transformers(name: str, how: Any, tmp_path: Path) -> None:
    theirs = saved_reference(name, tmp_path)
    model = load_model(tmp_path)
    found = embed_rows(model, ROWS, how, batch_tokens=15)
    for row, vector in zip(ROWS, found, strict=True):
        hidden = theirs.base_model(torch.tensor([row])).last_hidden_state[0]
        torch.testing.assert_close(vector, F.normalize(PICK[how](hidden), dim=-1), rtol=0, atol=2e-5)


def test_vectors_have_length_one_and_none_is_fine(tmp_path: Path) -> None:
    saved_reference("modernbert", tmp_path)
    model = load_model(tmp_path)
    torch.testing.assert_close(embed_rows(model, ROWS).norm(dim=-1), torch.ones(4))
    assert embed_rows(model, []).shape == (0, 64)


@pytest.mark.parametrize("row", [[], [5] * 200])
def test_texts_that_do_not_fit_are_refused(row: list[int], tmp_path: Path) -> None:
    saved_reference("bert", tmp_path)
    with pytest.raises(CauserieError, match="text 1 has"):
        embed_rows(load_model(tmp_path), [[3, 4], row])
