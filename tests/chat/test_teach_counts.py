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
