"""Counting feedback, how much more is needed, and taking a person out of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import insert, select

from causerie.core import CauserieError, open_artifact, read_manifest
from causerie.feedback import (
    TrainingSetConfig,
    erase_user,
    feedback_stats,
    get_exposure,
    pairs_needed,
    signals_of,
    training_set,
)
from causerie.store import api_keys, conversations, messages, open_store, users

from .conftest import Page

CANARY = "zanzibar-petrichor"


@pytest.mark.parametrize(
    ("win_rate", "pairs"), [(0.52, 4904), (0.53, 2178), (0.55, 783), (0.575, 347), (0.6, 194), (0.65, 85), (0.7, 47)]
)
def test_needed_pairs_are_the_published_numbers(win_rate: float, pairs: int) -> None:
    """Two-sided 5 %, power 80 %: the project's table of sample sizes."""
    assert pairs_needed(win_rate) == pairs
    assert pairs_needed(1 - win_rate) == pairs


def test_the_needed_pairs_give_the_power_asked_for() -> None:
    """Exact binomial power of the score test at the number of pairs for 60 %."""
    from scipy.stats import binom

    count = pairs_needed(0.6)
    wins = [number for number in range(count + 1) if abs(number - count / 2) / (count / 4) ** 0.5 >= 1.96]
    assert binom.pmf(wins, count, 0.6).sum() == pytest.approx(0.8, abs=0.03)
    assert binom.pmf(wins, count, 0.5).sum() == pytest.approx(0.05, abs=0.015)


@pytest.mark.parametrize("win_rate", [0.0, 0.5, 1.0, -1.0])
def test_impossible_win_rates_are_refused(win_rate: float) -> None:
    with pytest.raises(ValueError, match="win_rate"):
        pairs_needed(win_rate)


def test_stats_count_by_kind_version_and_day(page: Page, workspace: Path) -> None:
    one, two = page.show("Why?", "One."), page.show("Why?", "Two.", version=2)
    page.choose(two, one)
    page.thumb(one, False, "bob")
    page.thumb(page.show("When?", "Now.", consent=False), True)
    stats = feedback_stats(page.store, workspace)
    assert (stats.exposures, stats.signals, stats.users) == (3, 3, 2)
    assert stats.by_kind == {"choice": 1, "thumb": 2}
    assert stats.by_version == {"home@1": {"lost": 1, "signals": 1, "down": 1}, "home@2": {"signals": 1, "won": 1}}
    assert stats.by_day == {"1970-01-01": 3}
    assert stats.left_out == {"without_consent": 1}
    assert (stats.pairs, stats.unpaired, stats.new_pairs, stats.new_unpaired, stats.new_usable) == (1, 1, 1, 1, 2)
    assert stats.needed == {"60%": 4 * 194, "65%": 4 * 85}, "a round keeps one vote in four to judge by"
    assert stats.missing == {"60%": 4 * 194 - 1, "65%": 4 * 85 - 1}
    training_set(TrainingSetConfig(), workspace, page.store)
    after = feedback_stats(page.store, workspace)
    assert (after.new_signals, after.new_pairs, after.new_usable, after.pairs) == (0, 0, 0, 1)
    assert after.missing == stats.missing, "votes that a round used still judge the next one"


def test_an_empty_store_has_stats(page: Page) -> None:
    stats = feedback_stats(page.store)
    assert (stats.exposures, stats.signals, stats.pairs) == (0, 0, 0)


def test_erasure_leaves_no_word_in_any_file(page: Page, workspace: Path) -> None:
    """The person's texts, prompts, edits, comments, titles and pseudonym are in no file of the workspace afterwards."""
    page.store.write(
        insert(users).values(id="eve", pseudonym=f"eve {CANARY}", role="user", created=0.0),
        insert(conversations).values(id="c1", user="eve", title=f"about {CANARY}", created=0.0, updated=0.0),
        insert(messages).values(id="m1", conversation="c1", role="user", content=CANARY * 100, created=0.0),
        insert(api_keys).values(id="k1", prefix="p", sha256="s", name="n", user="eve", scopes=[], created=0.0),
    )
    hers = page.show(f"Why {CANARY}?", f"Because {CANARY}. " * 300, user="eve", conversation="c1")
    page.thumb(hers, True, "eve", comment=f"{CANARY}!")
    page.vote(hers, "edit", {"text": f"Edited {CANARY}"}, user="bob")
    page.thumb(page.show("When?", "Now."), True)
    artifact = training_set(TrainingSetConfig(), workspace, page.store)
    done = erase_user(page.store, "eve", workspace)
    assert (done.exposures, done.signals, done.conversations, done.messages) == (1, 2, 1, 1)
    assert done.training_sets == (artifact.key,)
    assert get_exposure(page.store, hers.id) is None
    assert signals_of(page.store, hers.id) == []
    page.store.close()
    found = [path for path in workspace.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]
    assert found == []
    assert read_manifest(artifact.path).config["signals"]
    with pytest.raises(CauserieError):
        open_artifact(artifact.path)
    with open_store(workspace) as store:
        (key,) = store.read(select(api_keys))
        assert key.revoked is not None
        rebuilt = training_set(TrainingSetConfig(held_out=0.0), workspace, store)
        assert rebuilt.manifest.metrics["unpaired"] == 1
        assert feedback_stats(store).signals == 1


def test_erasing_someone_unknown_leaves_a_tombstone(page: Page) -> None:
    done = erase_user(page.store, "nobody")
    assert (done.exposures, done.signals, done.training_sets) == (0, 0, ())
    (row,) = page.store.read(select(users))
    assert (row.id, row.pseudonym) == ("nobody", "erased")
    assert row.erased is not None
