"""What a round is judged by is settled, and on record, before its candidate exists."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from causerie.core import CauserieError, read_json, write_json
from causerie.hub import list_audit
from causerie.loop import ImproveConfig, rules
from causerie.loop.protocol import register_protocol, registered_rules
from causerie.store import Store, open_store

CONFIG = ImproveConfig(model="home")
FACTS = {"model": "home", "seed": 0}


@pytest.fixture
def store(workspace: Path) -> Iterator[Store]:
    with open_store(workspace) as opened:
        yield opened


@pytest.fixture
def folder(workspace: Path) -> Path:
    path = workspace / "runs" / "improve-home-1"
    path.mkdir(parents=True)
    return path


def test_registered_and_read_back(store: Store, folder: Path) -> None:
    given = rules(CONFIG, ("preference", "answer_loss", "ending", "sycophancy"), "preference")
    digest = register_protocol(store, folder, "home@1", given, FACTS)
    (row,) = list_audit(store, "home@1")
    assert (row.action, row.detail["protocol"]) == ("preregister", digest)
    assert registered_rules(store, folder) == given
    assert register_protocol(store, folder, "home@1", given, FACTS) == digest  # resumed: once in the log
    assert len(list_audit(store, "home@1")) == 1


def test_a_margin_that_was_moved_afterwards_is_found(store: Store, folder: Path) -> None:
    register_protocol(store, folder, "home@1", rules(CONFIG, ("preference",), "preference"), FACTS)
    content = read_json(folder / "protocol.json")
    content["rules"][0]["floor"] = -9.0
    write_json(folder / "protocol.json", content)
    with pytest.raises(CauserieError, match="CAU-5107"):
        registered_rules(store, folder)
    with pytest.raises(CauserieError, match="CAU-5107"):
        register_protocol(store, folder, "home@1", rules(CONFIG, ("preference",), "preference"), FACTS)


def test_killed_before_the_log_was_written_the_round_goes_on(store: Store, folder: Path) -> None:
    given = rules(CONFIG, ("preference",), "preference")
    register_protocol(store, folder, "home@1", given, FACTS)
    other = folder.with_name("improve-home-2")
    other.mkdir()
    (other / "protocol.json").write_bytes((folder / "protocol.json").read_bytes())
    with pytest.raises(CauserieError, match="CAU-5107"):
        registered_rules(store, other)
    register_protocol(store, other, "home@1", given, FACTS)
    assert registered_rules(store, other) == given


def test_one_promise_and_the_guards_of_the_suites_that_run() -> None:
    suites = ("preference", "votes", "answer_loss", "ending")
    found = rules(CONFIG, suites, "votes")
    assert [rule.metric for rule in found if rule.role == "promise"] == ["agreement"]
    assert found[0].metric == "agreement"
    assert {rule.metric for rule in found if rule.role == "guard"} == {
        "nats_per_token", "ended", "empty", "answer_tokens",
    }  # fmt: skip
