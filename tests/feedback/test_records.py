"""The two records refuse what breaks their rules, and recording happens once."""

from __future__ import annotations

from typing import Any

import pytest

from causerie.core import CauserieError
from causerie.feedback import (
    Exposure,
    Signal,
    get_exposure,
    record_exposure,
    record_signal,
    signals_of,
    withdraw_signal,
)
from causerie.feedback.errors import ERRORS
from causerie.feedback.records import COMMENT_LIMIT, REASON_LIMIT, TEXT_LIMIT, opening_key, prompt_key
from causerie.store import Store

from .conftest import Page

ASK = ({"role": "user", "content": "Why?"},)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", "no spaces"),
        ("user", ""),
        ("prompt", ()),
        ("prompt", ({"role": "king", "content": "x"},)),
        ("prompt", ({"role": "user", "content": None},)),
        ("prompt", ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})),
        ("prompt", ({"role": "user", "content": "x" * (TEXT_LIMIT + 1)},)),
        ("text", "x" * (TEXT_LIMIT + 1)),
        ("text", None),
        ("log_probs", (-0.5,)),
        ("log_probs", (float("nan"), -1.0)),
        ("log_probs", (float("-inf"), -1.0)),
    ],
)
def test_a_bad_exposure_is_refused(field: str, value: Any) -> None:
    good = {
        "user": "ada",
        "model": "home",
        "prompt": ASK,
        "text": "Because.",
        "token_ids": (1, 2),
        "log_probs": (-1, -2),
    }
    Exposure(**good)
    with pytest.raises(CauserieError) as caught:
        Exposure(**{**good, field: value})
    assert caught.value.code == "CAU-1301"
    assert field in caught.value.where


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "applause"},
        {"value": {}},
        {"value": {"label": "yes"}},
        {"kind": "choice", "value": {"outcome": "chosen", "others": []}},
        {"kind": "choice", "value": {"outcome": "maybe", "others": ["exp_b"]}},
        {"kind": "choice", "value": {"outcome": "tie", "others": ["exp_a"]}},
        {"kind": "choice", "value": {"outcome": "tie", "others": "exp_b"}},
        {"kind": "regenerate", "value": {}},
        {"kind": "edit", "value": {"text": "  "}},
        {"kind": "edit", "value": {"text": "x" * (TEXT_LIMIT + 1)}},
        {"comment": "x" * (COMMENT_LIMIT + 1)},
        {"reasons": ("not a word!",)},
        {"reasons": ("wrong",) * (REASON_LIMIT + 1)},
        {"user": ""},
        {"exposure_id": "a b"},
    ],
)
def test_a_bad_signal_is_refused(change: dict[str, Any]) -> None:
    good: dict[str, Any] = {"exposure_id": "exp_a", "user": "ada", "kind": "thumb", "value": {"label": True}}
    Signal(**good, reasons=("correct", "too_long"), comment="fine")
    with pytest.raises(CauserieError) as caught:
        Signal(**{**good, **change})
    assert caught.value.code == "CAU-1301"


def test_nul_is_refused_everywhere() -> None:
    makers = (
        lambda: Exposure(user="a", model="m", prompt=ASK, text="a\0b"),
        lambda: Exposure(user="a", model="m", prompt=({"role": "user", "content": "\0"},), text="x"),
        lambda: Signal("exp_a", "a", "thumb", {"label": True}, comment="\0"),
        lambda: Signal("exp_a", "a", "edit", {"text": "x\0"}),
    )
    for make in makers:
        with pytest.raises(CauserieError) as caught:
            make()
        assert caught.value.code == "CAU-1110"


def test_keys_depend_on_roles_and_contents_only() -> None:
    longer = ({"role": "system", "content": "Be short."}, *ASK)
    assert prompt_key(ASK) == prompt_key([{"content": "Why?", "role": "user", "extra": "x"}])
    assert prompt_key(ASK) != prompt_key(longer)
    turns = (*ASK, {"role": "assistant", "content": "So."}, {"role": "user", "content": "And?"})
    assert opening_key(ASK) == opening_key(longer) == opening_key(turns)


def test_what_is_recorded_is_read_back(page: Page) -> None:
    shown = page.show(
        "Où est Oslo ?",
        "En Norvège.",
        token_ids=(5, 6),
        log_probs=(-0.1, -2.5),
        sampling={"temperature": 0.7},
        lang="fr",
    )
    said = page.thumb(shown, True, reasons=("correct",), comment="oui\u2028!")
    assert get_exposure(page.store, shown.id) == shown
    assert signals_of(page.store, shown.id) == [said]
    assert get_exposure(page.store, "exp_none") is None


def test_sending_twice_records_once_and_changed_content_is_refused(page: Page) -> None:
    shown = page.show("Why?", "Because.")
    assert record_exposure(page.store, shown) == 0
    said = page.thumb(shown, True)
    again = Signal(**{**vars(said), "created": said.created + 5})
    assert record_signal(page.store, again) is False
    assert len(signals_of(page.store, shown.id)) == 1
    for changed in ({"value": {"label": False}}, {"user": "eve"}):
        with pytest.raises(CauserieError) as caught:
            record_signal(page.store, Signal(**{**vars(said), **changed}))
        assert caught.value.code == "CAU-1303"


def test_a_choice_sent_again_as_parsed_json_is_the_same_choice(page: Page) -> None:
    one, two = page.show("Why?", "One."), page.show("Why?", "Two.")
    said = page.vote(one, "choice", {"outcome": "chosen", "others": (two.id,)})
    parsed = Signal(**{**vars(said), "value": {"others": [two.id], "outcome": "chosen"}})
    assert record_signal(page.store, parsed) is False


def test_signals_about_nothing_or_about_different_questions_are_refused(page: Page) -> None:
    shown, other = page.show("Why?", "Because."), page.show("When?", "Now.")
    for make in (
        lambda: page.store and record_signal(page.store, Signal("exp_none", "ada", "thumb", {"label": True})),
        lambda: page.vote(shown, "regenerate", {"discarded": ["exp_none"]}),
        lambda: page.choose(shown, other),
    ):
        with pytest.raises(CauserieError) as caught:
            make()
        assert caught.value.code == "CAU-1302"


def test_a_signal_can_be_withdrawn_by_its_user_only(page: Page) -> None:
    said = page.thumb(page.show("Why?", "Because."), True)
    with pytest.raises(CauserieError) as caught:
        withdraw_signal(page.store, said.id, user="eve")
    assert caught.value.code == "CAU-1304"
    assert withdraw_signal(page.store, said.id, user="ada") is True
    assert withdraw_signal(page.store, said.id) is False
    assert signals_of(page.store, said.exposure_id)[0].withdrawn is not None


def test_codes_are_in_the_rooms_range(store: Store) -> None:
    assert all(code.startswith("CAU-13") for code in ERRORS)
