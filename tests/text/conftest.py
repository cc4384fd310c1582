"""A small bilingual tokenizer, trained once for all tests of this room."""

from __future__ import annotations

import pytest

from causerie.text import Tokenizer, train_bpe
from tests.text.vocabulary import TEXTS


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """Our byte-level BPE with a few hundred merges."""
    return train_bpe(list(TEXTS) * 3, 700)


@pytest.fixture(scope="session")
def texts() -> tuple[str, ...]:
    """The texts it was trained on."""
    return TEXTS
