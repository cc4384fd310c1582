"""What the teach view counts as new: everything since the last round that came to a candidate, and nothing else."""

from __future__ import annotations

from typing import Any

from causerie.chat.votes import teach_stats
from causerie.feedback import (
    Exposure,
    Signal,
    TrainingSetConfig,
    record_exposure,
    record_signal,
    training_set,
    withdraw_signal,
)
from causerie.hub import refuse, register
from causerie.text import Tokenizer

from .conftest import Served, make_model


def show(served: Served, number: int, text: str = "Because.") -> Exposure:
    prompt = ({"role": "user", "content": f"Why {number}?"},)
    shown = Exposure(user="ada", model="demo", version=2, prompt=prompt, text=text, consent=True)
    record_exposure(served.store, shown)
    return shown


def choose(served: Served, number: int, outcome: str = "chosen") -> Signal:
    first, second = show(served, number), show(served, number, "Just so.")
    said = Signal(first.id, "ada", "choice", {"outcome": outcome, "others": [second.id]})
    record_signal(served.store, said)
    return said


def counted(served: Served) -> dict[str, Any]:
    return teach_stats(served.store, served.workspace, "demo")


def test_only_a_round_with_a_candidate_uses_votes_up(served: Served, tokenizer: Tokenizer) -> None:
    for number in range(3):
        choose(served, number)
    choose(served, 9, outcome="tie")
    thumbs = [Signal(show(served, 20).id, "ada", "thumb", {"label": up}) for up in (True,)]
    record_signal(served.store, *thumbs)
    votes = training_set(TrainingSetConfig(), served.workspace, served.store)
    found = counted(served)
    assert found["since"] == found["counts"] == {"choice": 3, "tie": 1, "up": 1}, "a refused round used nothing up"
    made = make_model(served.workspace, tokenizer, "c3")
    register(served.store, served.workspace, "demo", made, card={"preferences": votes.key})
    assert counted(served)["since"] == {}, "a candidate on trial did, ties included"
    refuse(served.store, "demo@3", actor="gate", reason="worse")
    choose(served, 30, outcome="tie")
    choose(served, 31)
    assert counted(served)["since"] == {"choice": 1, "tie": 1}
    assert counted(served)["counts"] == {"choice": 4, "tie": 2, "up": 1}


def test_a_changed_vote_was_not_withdrawn(served: Served) -> None:
    shown = show(served, 1)
    first = Signal(shown.id, "ada", "thumb", {"label": False})
    record_signal(served.store, first)
    withdraw_signal(served.store, first.id)
    assert counted(served)["withdrawn"] == 1
    record_signal(served.store, Signal(shown.id, "ada", "thumb", {"label": False}, reasons=("wrong",)))
    assert (counted(served)["withdrawn"], counted(served)["counts"]) == (0, {"down": 1})


def test_what_the_gate_asked_for_is_what_the_page_asks_for(served: Served, tokenizer: Tokenizer) -> None:
    """One number in both places: votes in all, counted down by those that came since."""
    for number in range(3):
        choose(served, number)
    before = counted(served)
    assert (before["votes"], before["needed"], before["missing"], before["asked_by_gate"]) == (3, 340, 337, False)
    assert before["to_start"] == 17
    votes = training_set(TrainingSetConfig(), served.workspace, served.store)
    aim = {"metric": "margin_per_token", "promise": True}
    card = {"preferences": votes.key, "missing_votes": 120, "gate": [aim]}
    register(served.store, served.workspace, "demo", make_model(served.workspace, tokenizer, "c3"), card=card)
    refuse(served.store, "demo@3", actor="gate", reason="not enough evidence")
    choose(served, 40)
    record_signal(served.store, Signal(show(served, 41).id, "ada", "thumb", {"label": True}))
    after = counted(served)
    assert (after["votes"], after["needed"], after["missing"], after["asked_by_gate"]) == (1, 120, 119, True)
    assert after["to_start"] == 18


def test_a_round_judged_by_thumbs_counts_thumbs(served: Served, tokenizer: Tokenizer) -> None:
    record_signal(served.store, Signal(show(served, 1).id, "ada", "thumb", {"label": True}))
    votes = training_set(TrainingSetConfig(), served.workspace, served.store)
    aim = {"metric": "agreement", "promise": True}
    card = {
        "preferences": votes.key,
        "missing_votes": 9,
        "gate": [aim, {"metric": "margin_per_token", "promise": False}],
    }
    register(served.store, served.workspace, "demo", make_model(served.workspace, tokenizer, "c3"), card=card)
    refuse(served.store, "demo@3", actor="gate", reason="not enough evidence")
    choose(served, 2)
    record_signal(served.store, Signal(show(served, 3).id, "ada", "thumb", {"label": False}))
    assert (counted(served)["votes"], counted(served)["missing"]) == (1, 8)
