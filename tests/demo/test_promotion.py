"""Votes can change the version that answers, the change can be taken back, and careless or hostile votes cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from causerie.hub import get_version, resolve, verify_audit
from causerie.store import open_store

from .conftest import CHOICES, LEARN, Circle, causerie, copied, imported_votes, last_json, with_choices

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
"""Slow: the demo runs once for this folder, and each round trains and judges a real candidate."""


def test_votes_can_promote_and_a_rollback_brings_the_old_version_back(
    circle: Circle, finished: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    before = circle[1]["verdict"]["version"]
    workspace = with_choices(copied(finished, tmp_path_factory))
    flags = [word for name, value in LEARN.items() for word in (f"--{name.replace('_', '-')}", value)]
    status, told = causerie("improve", "demo", *flags, "--json", workspace=workspace)
    result = last_json(told)
    assert status == 0, result["why"]
    assert result["why"].startswith("promoted: preference for what people chose")
    assert (result["promoted"], result["incumbent"]) == (True, before)
    assert result["version"] == result["candidate"] != before
    assert len(imported_votes(workspace, result["version"])) > CHOICES / 2
    with open_store(workspace) as store:
        assert resolve(store, workspace, "demo").name == result["version"]
        assert get_version(store, result["version"]).parents == (before,)
    status, told = causerie("models", "rollback", "demo", workspace=workspace)
    assert (status, told) == (0, f"serving: {before}\n")
    with open_store(workspace) as store:
        assert resolve(store, workspace, "demo").name == before
        assert get_version(store, result["version"]).status == "refused"
        assert verify_audit(store).ok


def test_votes_for_nonsense_with_careless_settings_are_refused_in_words(
    circle: Circle, finished: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    workspace = with_choices(copied(finished, tmp_path_factory), inverted=True)
    careless = ("--lr", "0.03", "--epochs", "4", "--beta", "0.01", "--json")
    status, told = causerie("improve", "demo", *careless, workspace=workspace)
    result = last_json(told)
    assert (status, result["promoted"]) == (1, False)
    assert result["why"].startswith("refused: ")
    assert "loss on held-out human answers (nats per token) is outside its margin +0.050" in result["why"]
    rows = {row["metric"]: row for row in result["gate"]}
    assert not rows["nats_per_token"]["passed"]
    before = circle[1]["verdict"]["version"]
    with open_store(workspace) as store:
        assert resolve(store, workspace, "demo").name == before == result["version"]
        assert get_version(store, result["candidate"]).status == "refused"
