from __future__ import annotations

from pathlib import Path

import pytest

from causerie.model import shape_from_depth
from causerie.train import PretrainConfig, batch_tokens, horizon
from causerie.train.rules import by_rule, default_lr, default_matrix_lr
from tests.train.tiny import settings


def plain(**changes: object) -> PretrainConfig:
    return PretrainConfig(shards=Path(), tokenizer=Path(), **changes)  # type: ignore[arg-type]


def test_the_dial_alone_gives_a_horizon_and_a_batch() -> None:
    """Twenty tokens a parameter; the batch grows with the horizon, within bounds."""
    found = []
    for depth in (4, 8, 12, 24):
        shape = shape_from_depth(depth, 32_768)
        config = by_rule(plain(depth=depth), shape)
        assert config.tokens == horizon(shape) == 20 * shape.n_matrix_params
        updates = config.tokens / (config.batch_size * config.seq_len)
        assert updates >= 1500
        found.append(config.batch_size * config.seq_len)
    assert found == sorted(found)
    assert found[0] >= 2048
    assert found[-1] >= 2**19


def test_the_batch_law_at_its_anchor() -> None:
    assert batch_tokens(int(1.3e9)) == 2**19
    assert batch_tokens(int(1.3e9 * 2 ** (1 / 0.383)) + 10**7) == 2**20
    assert batch_tokens(10**5) == 2048


def test_what_is_given_stays() -> None:
    shape = shape_from_depth(4, 512)
    assert by_rule(plain(batch_size=3, steps=7), shape) == plain(batch_size=3, steps=7)
    by_time = by_rule(plain(minutes=5.0), shape)
    assert by_time.tokens is None
    assert by_time.batch_size * by_time.seq_len == 4096


def test_learning_rates_by_width_batch_and_horizon() -> None:
    base = settings(batch_size=16, seq_len=256)
    assert default_lr(256, base) == pytest.approx(6e-3)
    assert default_lr(1024, base) == pytest.approx(3e-3)
    assert default_lr(256, settings(batch_size=4, seq_len=256)) == pytest.approx(3e-3)
    assert default_lr(256, settings(batch_size=1024, seq_len=256)) == pytest.approx(12e-3)  # held at twice
    assert default_lr(256, settings(batch_size=16, seq_len=256, optimizer="adamw")) == pytest.approx(2e-3)
    assert default_matrix_lr(base) == pytest.approx(0.02)
    long = settings(batch_size=16, seq_len=256, tokens=int(2.6e9 * 32), steps=None)
    assert default_matrix_lr(long) == pytest.approx(0.02 / 32**0.3, rel=1e-3)
