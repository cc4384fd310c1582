"""Canaries on a real store: who takes part, what counts, and what is done when votes decide."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from causerie.core import CauserieError, write_artifact
from causerie.feedback import Exposure, Signal, record_exposure, record_signal, withdraw_signal
from causerie.hub import get_version, list_audit, promote, register, verify_audit
from causerie.loop import (
    CanaryConfig,
    LiveVote,
    decide,
    duels,
    list_canaries,
    review_canary,
    running_canary,
    start_canary,
    stop_canary,
)
from causerie.store import Store, open_store

NUMBERS = itertools.count()


@pytest.fixture
def store(workspace: Path) -> Iterator[Store]:
    """A store with home@1 promoted and home@2 and home@3 as candidates."""
    with open_store(workspace) as opened:
        for key in ("a1", "b2", "c3"):
            with write_artifact(workspace, "model", "home", key * 32) as draft:
                (draft.path / "config.json").write_text("{}")
            assert draft.artifact is not None
            register(opened, workspace, "home", draft.artifact)
        promote(opened, "home@1")
        yield opened


def show(store: Store, number: int, **more: object) -> Exposure:
    values: dict = {"user": "local", "model": "home", "version": number, "text": f"answer {next(NUMBERS)}", **more}
    shown = Exposure(prompt=({"role": "user", "content": "Why?"},), consent=True, **values)
    record_exposure(store, shown)
    return shown


def choose(store: Store, winner: int, loser: int, user: str = "ada", outcome: str = "chosen") -> Signal:
    group = f"grp_{next(NUMBERS)}"
    first, second = show(store, winner, group_id=group), show(store, loser, group_id=group, position=1)
    said = Signal(first.id, user, "choice", {"outcome": outcome, "others": [second.id]})
    record_signal(store, said)
    return said


def thumb(store: Store, number: int, up: bool, user: str = "ada") -> Signal:
    said = Signal(show(store, number).id, user, "thumb", {"label": up})
    record_signal(store, said)
    return said


def test_a_share_of_conversations_and_always_the_same_ones(store: Store) -> None:
    canary = start_canary(store, "home@2", CanaryConfig(share=0.2))
    names = [f"conv_{number}" for number in range(4000)]
    taken = [name for name in names if canary.takes(name)]
    assert 0.17 < len(taken) / len(names) < 0.23
    again = running_canary(store, "home")
    assert again == canary
    assert [name for name in names if again.takes(name)] == taken


def test_choices_for_the_candidate_promote_it_and_the_log_says_so(store: Store) -> None:
    canary = start_canary(store, "home@2", CanaryConfig())
    for _ in range(12):
        choose(store, 2, 1)
    done = review_canary(store, canary)
    assert (done.status, done.figures["wins"], done.figures["losses"]) == ("promoted", 12, 0)
    assert get_version(store, "home").ref == "home@2"
    assert get_version(store, "home@2").card["canary"]["status"] == "promoted"
    actions = [row.action for row in list_audit(store, "home@2")]
    assert actions[-4:] == ["canary", "promote", "card", "canary promoted"]
    assert verify_audit(store).ok
    assert running_canary(store, "home") is None
    assert review_canary(store, done) == done


def test_choices_for_the_incumbent_roll_the_candidate_back(store: Store) -> None:
    canary = start_canary(store, "home@2", CanaryConfig())
    for _ in range(12):
        choose(store, 1, 2)
    assert review_canary(store, canary).status == "rolled_back"
    assert get_version(store, "home").ref == "home@1"
    assert get_version(store, "home@2").status == "refused"


def test_thumbs_of_the_two_versions_meet_in_their_order(store: Store) -> None:
    canary = start_canary(store, "home@2", CanaryConfig())
    for up_new, up_old in ((True, False), (True, True), (False, True), (True, False)):
        thumb(store, 2, up_new)
        thumb(store, 1, up_old)
    thumb(store, 1, False)
    figures = review_canary(store, canary).figures
    assert (figures["wins"], figures["losses"], figures["ties"], figures["waiting"]) == (2, 1, 1, 1)


def test_what_does_not_count(store: Store) -> None:
    before = show(store, 2)
    canary = start_canary(store, "home@2", CanaryConfig())
    record_signal(store, Signal(before.id, "ada", "thumb", {"label": True}))  # answered before the trial
    choose(store, 3, 1)  # another version
    choose(store, 2, 2)  # both drafts from one version
    choose(store, 2, 1, outcome="tie")
    withdraw_signal(store, choose(store, 2, 1).id)
    said = choose(store, 2, 1)
    record_signal(store, Signal(said.exposure_id, "ada", "thumb", {"label": True}))  # the choice said it already
    figures = review_canary(store, canary).figures
    assert (figures["wins"], figures["losses"], figures["ties"], figures["thumbs"]) == (1, 0, 1, 0)


def test_one_canary_a_name_and_none_for_what_serves_already(store: Store) -> None:
    start_canary(store, "home@2", CanaryConfig())
    with pytest.raises(CauserieError, match="CAU-5105"):
        start_canary(store, "home@3", CanaryConfig())
    with pytest.raises(CauserieError, match="CAU-5106"):
        start_canary(store, "home@1", CanaryConfig())
    with pytest.raises(CauserieError, match="CAU-5106"):
        start_canary(store, "home@3", CanaryConfig(share=1.5))


def test_a_canary_ends_when_another_version_is_promoted_by_hand(store: Store) -> None:
    canary = start_canary(store, "home@2", CanaryConfig())
    promote(store, "home@3", actor="page")
    done = review_canary(store, canary)
    assert done.status == "stopped"
    assert get_version(store, "home@2").status == "retired"
    assert get_version(store, "home").ref == "home@3"


def test_stopped_by_hand(store: Store) -> None:
    canary = start_canary(store, "home@2", CanaryConfig())
    assert stop_canary(store, canary, "enough").why == "stopped: enough"
    assert [one.status for one in list_canaries(store, "home")] == ["stopped"]


def test_killed_between_promotion_and_bookkeeping_the_next_look_ends_alike(store: Store) -> None:
    canary = start_canary(store, "home@2", CanaryConfig())
    for _ in range(12):
        choose(store, 2, 1)
    promote(store, "home@2", actor="canary")  # as far as the killed process came
    assert review_canary(store, canary).status == "promoted"


def test_choosing_the_candidate_by_hand_ends_its_trial(store: Store) -> None:
    canary = start_canary(store, "home@2", CanaryConfig())
    choose(store, 1, 2)
    promote(store, "home@2", actor="page")
    ended = review_canary(store, canary)
    assert (ended.status, ended.why) == ("stopped", "stopped: home@2 was chosen by hand")
    assert get_version(store, "home").ref == "home@2"
    assert running_canary(store, "home") is None


def votes(outcomes: str, user: str = "") -> list[LiveVote]:
    return [
        LiveVote(user or f"u{number % 40}", "choice", {"w": True, "l": False, "t": None}[sign], True, float(number))
        for number, sign in enumerate(outcomes)
    ]


def settle(outcomes: str, **settings: object) -> str:
    return decide(duels(votes(outcomes), 0), replace(CanaryConfig(), **settings)).status


def test_decisions() -> None:
    assert settle("wwwww") == "running"
    assert settle("w" * 12) == "promoted"
    assert settle("l" * 12) == "rolled_back"
    assert settle("wl" * 20) == "running"
    assert settle("wl" * 20, max_duels=40) == "undecided"
    assert settle("w" * 12 + "l" * 200) == "promoted"  # decided at its first moment, whatever came after
    assert decide(duels(votes("t" * 50), 0), CanaryConfig(), days=31).status == "undecided"


def test_the_reason_says_how_many_votes_are_missing() -> None:
    leaning = decide(duels(votes("wwwl" * 3), 0), CanaryConfig())
    assert leaning.figures["missing"] > 0
    assert f"about {leaning.figures['missing']} more decisive votes" in leaning.why
    assert "no decisive vote yet" in decide(duels([], 0), CanaryConfig()).why


@pytest.mark.parametrize(
    ("sign", "settings"), [("w", {}), ("l", {}), ("w", {"min_duels": 30}), ("l", {"min_duels": 30})]
)
def test_with_so_many_more_of_the_same_it_is_decided(sign: str, settings: dict[str, int]) -> None:
    """Either side by its own error rate, and never before the fewest votes that anything is decided on."""
    leaning = decide(duels(votes(sign * 4), 0), CanaryConfig(**settings))
    missing = leaning.figures["missing"]
    assert settle(sign * (4 + missing), **settings) != "running"
    assert settle(sign * (3 + missing), **settings) == "running" or missing > CanaryConfig(**settings).min_duels - 4


def test_a_diligent_troll_waits_for_the_others() -> None:
    honest = votes("wl" * 20)
    flood = votes("w" * 500, user="troll")
    found = duels([*flood, *honest], 0, min_people=5)
    assert found.wins <= 20 + 3
    assert found.in_line > 450
    decision = decide(found, CanaryConfig(min_people=5))
    assert decision.status == "running"
    assert f"{found.in_line} votes wait until others have voted as much" in decision.why


def test_the_only_voter_of_a_household_need_not_wait() -> None:
    assert len(duels(votes("w" * 30, user="ada"), 0).outcomes) == 30
    capped = duels(votes("w" * 30, user="ada"), 10)
    assert (len(capped.outcomes), capped.over_cap) == (10, 20)


def test_too_few_people_decide_nothing() -> None:
    found = duels(votes("w" * 30, user="ada"), 0, min_people=3)
    told = decide(found, CanaryConfig(min_people=3)).why
    assert "1 of the 3 people have voted without whom nothing is decided; 29 votes wait" in told
    assert "more decisive votes" not in told, "no number of this person's votes would do"
    assert decide(found, CanaryConfig(min_people=3)).status == "running"
