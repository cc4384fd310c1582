"""Votes can change the version that answers, the change can be taken back, and careless or hostile votes cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from causerie.hub import get_version, resolve, verify_audit
from causerie.store import open_store

from .conftest import Circle, Taught, causerie, copied, last_json, write_choices

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
"""Slow: the demo runs once for this folder, and each round trains and judges a real candidate."""


def test_votes_can_promote_and_a_rollback_brings_the_old_version_back(
    taught: Taught, tmp_path_factory: pytest.TempPathFactory
) -> None:
    result = taught.result
    assert taught.status == 0, result["why"]
    assert result["why"].startswith("promoted: preference for what people chose")
    assert (result["promoted"], result["incumbent"]) == (True, taught.before)
    assert result["version"] == result["candidate"] != taught.before
    assert len(taught.votes) > 60
    workspace = copied(taught.workspace, tmp_path_factory)
    with open_store(workspace) as store:
        assert resolve(store, workspace, "demo").name == result["version"]
        assert get_version(store, result["version"]).parents == (taught.before,)
    status, told = causerie("models", "rollback", "demo", workspace=workspace)
    assert (status, told) == (0, f"serving: {taught.before}\n")
    with open_store(workspace) as store:
        assert resolve(store, workspace, "demo").name == taught.before
        assert get_version(store, result["version"]).status == "refused"
        assert verify_audit(store).ok


def test_votes_for_nonsense_with_careless_settings_are_refused_in_words(
    circle: Circle, finished: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    workspace = copied(finished, tmp_path_factory)
    poison = write_choices(workspace.parent / "loops.jsonl", inverted=True)
    causerie("feedback", "import", str(poison), workspace=workspace)
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
