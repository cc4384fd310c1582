"""Saying what one thinks of answers, in Chromium with real engines: recorded, shown, and taken back."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page, expect
from sqlalchemy import select

from causerie.store import exposures, signals

from .conftest import RealServed, ask, needs_chromium
from .test_real_chat import settle, short, shown

pytestmark = needs_chromium


def counts(real: RealServed) -> dict[str, int]:
    found: dict[str, int] = real.get("/api/teach?model=demo")["counts"]
    return found


def drawn_by(real: RealServed) -> list[str]:
    """Versions of the answers of the conversation last used, as recorded, in their order on the screen."""
    newest = real.get("/api/conversations")["conversations"][0]["id"]
    query = select(exposures).where(exposures.c.conversation == newest).order_by(exposures.c.position)
    return [f"{row.model}@{row.version}" for row in real.store.read(query)]


def test_a_thumb_has_reasons_and_a_comment_and_is_withdrawn(live: Page, real: RealServed) -> None:
    short(live)
    expect(live.get_by_text("Only rated answers are learnt from.")).to_be_visible()
    ask(live, "Hello")
    answer = live.get_by_role("article", name="demo@2")
    answer.get_by_role("button", name="Bad answer").click()
    expect(answer).to_contain_text("Recorded: a bad answer.")
    for reason in ("Wrong", "Too long"):
        answer.get_by_role("button", name=reason, exact=True).click()
    answer.get_by_label("Comment (optional)").fill("Bread does not cost <b>$5</b>.")
    answer.get_by_role("button", name="Add", exact=True).click()
    expect(answer.get_by_role("group", name="Reasons")).to_be_hidden()
    (said,) = shown(real)[1]["signals"]
    assert (said["value"], sorted(said["reasons"])) == ("down", ["too_long", "wrong"])
    assert said["comment"] == "Bread does not cost <b>$5</b>."
    answer.get_by_role("button", name="Good answer").click()
    expect(answer).to_contain_text("Recorded: a good answer.")
    assert counts(real) == {"up": 1}, "one thumb at a time"
    answer.get_by_role("button", name="Withdraw").click()
    expect(live.get_by_text("Withdrawn: it will not be learnt from.")).to_be_visible()
    assert counts(real) == {}
    assert shown(real)[1]["signals"] == []


def test_two_drafts_are_compared_and_a_tie_counts_as_one(live: Page, real: RealServed) -> None:
    settle(live, Longest_answer=40, Seed=7)
    live.get_by_label("Two drafts").check()
    ask(live, "Hello")
    for name in ("A", "B"):
        expect(live.get_by_role("region", name=f"Draft {name}")).to_be_visible()
    expect(live.get_by_role("button", name="Where demo@2 comes from")).to_have_count(0)
    first, second = (message["content"] for message in shown(real)[1:])
    assert first != second, "drafts are drawn with seeds of their own"
    live.get_by_role("button", name="No preference").click()
    expect(live.get_by_text("Recorded: no preference.")).to_be_visible()
    expect(live.get_by_role("button", name="Where demo@2 comes from")).to_have_count(2)
    assert counts(real) == {"tie": 1}
    live.get_by_role("button", name="Withdraw").click()
    expect(live.get_by_role("button", name="A is better")).to_be_visible()
    expect(live.get_by_role("button", name="Where demo@2 comes from")).to_have_count(0)


def test_two_models_are_compared_blind_and_told_afterwards(live: Page, real: RealServed) -> None:
    short(live)
    live.get_by_label("Two drafts").check()
    live.get_by_label("Second draft by").select_option("other")
    for _ in range(2):
        live.keyboard.press("Alt+n")
        ask(live, "Hello")
        order = drawn_by(real)
        assert sorted(order) == ["demo@2", "other@1"]
        assert live.get_by_text("demo@2").and_(live.locator(".pair *")).count() == 0, "blind"
        assert all(message["exposure"]["version"] is None for message in shown(real)[1:])
        live.get_by_role("button", name="B is better").click()
        expect(live.get_by_text("Recorded: B is better.")).to_be_visible()
        chips = live.locator(".pair section header button").all_inner_texts()
        assert chips == order, "the reveal stands where each draft stood"
    (chosen,) = real.store.read(
        select(signals).where(signals.c.kind == "choice").order_by(signals.c.created.desc()).limit(1)
    )
    assert chosen.value["outcome"] == "chosen"
    own = real.store.first(select(exposures).where(exposures.c.id == chosen.exposure_id))
    assert own is not None
    assert f"{own.model}@{own.version}" == order[1]


def test_a_correction_teaches_and_is_what_the_talk_goes_on_with(live: Page, real: RealServed) -> None:
    short(live)
    ask(live, "Hello")
    live.get_by_role("button", name="Teach a better answer").click()
    live.get_by_label("What should the answer have been?").fill("Good **day**.")
    live.get_by_role("button", name="Teach this answer").click()
    expect(live.locator("article strong", has_text="day")).to_be_visible()
    expect(live.get_by_text("corrected by you")).to_be_visible()
    assert counts(real) == {"edit": 1}
    ask(live, "And now?")
    newest = real.get("/api/conversations")["conversations"][0]["id"]
    query = select(exposures).where(exposures.c.conversation == newest).order_by(exposures.c.created.desc())
    prompt: list[Any] = real.store.read(query)[0].prompt
    assert [message["content"] for message in prompt] == ["Hello", "Good **day**.", "And now?"]


def test_going_on_after_asking_again_is_a_signal(live: Page, real: RealServed) -> None:
    short(live)
    ask(live, "Hello")
    live.get_by_role("button", name="Answer again").click()
    expect(live.get_by_text("2 of 2")).to_be_visible()
    ask(live, "Further")
    expect(live.get_by_text("Recorded: you went on with this answer after asking again.")).to_be_visible()
    assert counts(real) == {"regenerate": 1}


def test_what_must_not_be_learnt_from_is_not(live: Page, real: RealServed) -> None:
    short(live)
    live.get_by_label("May be learnt from").uncheck()
    expect(live.get_by_text("These answers will not be learnt from.")).to_be_visible()
    ask(live, "Hello")
    newest = real.get("/api/conversations")["conversations"][0]["id"]
    (row,) = real.store.read(select(exposures).where(exposures.c.conversation == newest))
    assert row.consent is False
    live.reload()
    expect(live.get_by_label("May be learnt from")).not_to_be_checked()


def test_everything_said_is_withdrawn_at_once(live: Page, real: RealServed) -> None:
    short(live)
    ask(live, "Hello")
    live.get_by_role("button", name="Good answer").click()
    expect(live.get_by_text("Recorded: a good answer.")).to_be_visible()
    live.keyboard.press("Alt+n")
    ask(live, "Hello again")
    live.get_by_role("button", name="Bad answer").click()
    expect(live.get_by_text("Recorded: a bad answer.")).to_be_visible()
    assert counts(real) == {"up": 1, "down": 1}
    live.get_by_role("button", name="Settings of this conversation").click()
    live.get_by_role("button", name="Withdraw all my votes").click()
    expect(live.get_by_text("2 votes were withdrawn.")).to_be_visible()
    expect(live.get_by_text("Recorded: a bad answer.")).to_be_hidden()
    assert counts(real) == {}
