"""Talking on the page in Chromium with real engines: what the tiny models say is left open, what the page does is not."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.waiting import wait_for

from .conftest import RealServed, ask, needs_chromium, reader
from .documents import a_pdf, office

pytestmark = needs_chromium


def answers(page: Page) -> Any:
    return page.locator("article.answer")


def settle(page: Page, **values: int | str) -> None:
    """Set fields of the drawer by their labels and save."""
    page.get_by_role("button", name="Settings of this conversation").click()
    for label, value in values.items():
        page.get_by_label(label.replace("_", " "), exact=False).fill(str(value))
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("dialog")).to_be_hidden()


def short(page: Page, tokens: int = 12) -> None:
    settle(page, Longest_answer=tokens)


def shown(real: RealServed) -> list[dict[str, Any]]:
    """The messages of the conversation last used, as the server has them."""
    newest = real.get("/api/conversations")["conversations"][0]["id"]
    found: list[dict[str, Any]] = real.get(f"/api/conversations/{newest}")["messages"]
    return found


def idle(real: RealServed, name: str = "demo") -> int:
    """Tokens that an engine drew in all, once nothing runs in it any more."""
    wait_for(lambda: not real.engine(name).get("running") and not real.engine(name).get("waiting"))
    return real.engine(name).get("decode_tokens", 0)


def long_story(page: Page, real: RealServed, tokens: int) -> None:
    """Ask for an answer of so many tokens, and wait until it has begun."""
    made = real.post("/api/conversations", {"title": "Long"})["id"]
    params = {"max_tokens": tokens, "frequency_penalty": 0.0, "temperature": 0.0}
    real.send("PATCH", f"/api/conversations/{made}", {"settings": {"params": params}})
    page.goto(f"/#/c/{made}")
    expect(page.get_by_role("heading", name="Long")).to_be_visible()
    page.get_by_label("Your message").fill("Tell me a long story")
    page.keyboard.press("Enter")
    expect(page.locator(".growing")).to_contain_text(re.compile("sea|mer|Bread"))


@contextmanager
def held(real: RealServed) -> Iterator[None]:
    """The engine stands still for the block: an answer under way is still under way, however slow the browser is."""
    worker = int(real.pool.get("demo").engine.info["pid"])
    os.kill(worker, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(worker, signal.SIGCONT)


WATCH = """() => { window.seen = [];
    new MutationObserver(() => {
        const text = document.querySelector('article.answer .markdown')?.textContent ?? '';
        if (text && text !== window.seen.at(-1)) window.seen.push(text);
    }).observe(document.body, { childList: true, subtree: true, characterData: true }); }"""


def test_an_answer_grows_and_stop_stops_the_engine(live: Page, real: RealServed) -> None:
    before = idle(real)
    live.evaluate(WATCH)
    long_story(live, real, 8000)
    live.wait_for_function("window.seen.length > 2")
    with held(real):
        expect(live.get_by_text("Answering…")).to_be_attached()
        growing = live.locator(".growing")
        expect(growing).to_have_attribute("aria-live", "polite")
        expect(growing).to_have_attribute("aria-busy", "true")
        live.keyboard.press("Escape")
    expect(live.get_by_text("Stopped", exact=True)).to_be_visible()
    expect(live.get_by_text("Answer finished.")).to_be_attached()
    drawn = idle(real) - before
    assert 0 < drawn < 7900
    time.sleep(0.3)
    assert idle(real) - before == drawn, "nothing is drawn after the stop"
    states = live.evaluate("window.seen")
    assert len(states) > 2
    question, answer = shown(real)
    assert answer["exposure"]["finish"] == "cancelled"
    assert answer["content"].strip().startswith(states[0].strip()[:10])
    assert question["content"] == "Tell me a long story"


def test_a_cut_answer_continues_from_its_tokens(live: Page, real: RealServed) -> None:
    short(live, 6)
    ask(live, "Hello")
    expect(live.get_by_text("Cut at the length limit")).to_be_visible()
    live.get_by_role("button", name="Continue").click()
    expect(live.get_by_text("2 of 2")).to_be_visible()
    _, first, second = shown(real)
    assert second["content"].startswith(first["content"])
    assert len(second["content"]) > len(first["content"])


def test_wordings_and_answers_are_branches_that_stay(live: Page, real: RealServed) -> None:
    short(live)
    ask(live, "First wording")
    live.get_by_role("button", name="Edit the question").click()
    live.get_by_label("Your question in other words").fill("Second wording")
    live.keyboard.press("Enter")
    expect(live.get_by_role("article", name="You")).to_have_text("Second wording")
    expect(live.get_by_role("group", name="Versions of this question")).to_contain_text("2 of 2")
    live.get_by_role("button", name="Answer again").click()
    expect(live.get_by_role("group", name="Answers to this question")).to_contain_text("2 of 2")
    live.get_by_role("button", name="Previous wording").click()
    expect(live.get_by_role("article", name="You")).to_have_text("First wording")
    expect(live.get_by_role("group", name="Answers to this question")).to_have_count(0)
    live.get_by_role("button", name="Next wording").click()
    live.get_by_role("button", name="Previous answer").click()
    expect(live.get_by_role("group", name="Answers to this question")).to_contain_text("1 of 2")
    ask(live, "Further")
    tree = {message["id"]: message for message in shown(real)}
    last = next(message for message in tree.values() if message["content"] == "Further")
    roots = [message["content"] for message in tree.values() if message["parent"] is None]
    assert sorted(roots) == ["First wording", "Second wording"]
    assert tree[tree[last["parent"]]["parent"]]["content"] == "Second wording"
    live.reload()
    expect(live.get_by_text("Further")).to_be_visible()
    live.get_by_role("button", name="Edit the question").last.click()
    live.keyboard.press("Escape")
    expect(live.get_by_role("button", name="Edit the question").last).to_be_focused()


def test_copying_gives_what_the_answer_says(browser: Browser, real: RealServed) -> None:
    with reader(browser, real.url, permissions=["clipboard-read", "clipboard-write"]) as page:
        short(page)
        ask(page, "Hello")
        answers(page).get_by_role("button", name="Copy").click()
        expect(answers(page).get_by_role("button", name="Copied")).to_be_visible()
        assert page.evaluate("navigator.clipboard.readText()") == shown(real)[1]["content"]


def test_the_model_is_chosen_and_shows_its_card(live: Page, real: RealServed) -> None:
    short(live)
    live.get_by_label("Model", exact=True).select_option("other")
    live.get_by_role("button", name="About this model").click()
    card = live.get_by_role("dialog", name="other@1")
    for text in ("A tiny model of the sea.", "100K parameters", "Apache-2.0", "Made for tests."):
        expect(card).to_contain_text(text)
    card.get_by_role("button", name="Where other@1 comes from").click()
    expect(live.get_by_role("dialog", name="Where other@1 comes from")).to_contain_text("no other version")
    live.keyboard.press("Escape")
    before = idle(real, "other")
    ask(live, "Hello")
    expect(live.get_by_role("article", name="other@1")).to_be_visible()
    assert idle(real, "other") > before
    live.reload()
    expect(live.get_by_label("Model", exact=True)).to_have_value("other")


def test_the_drawer_is_kept_with_the_conversation(live: Page, real: RealServed) -> None:
    settle(live, System_prompt="Be brief.", Longest_answer=9, Seed=7)
    ask(live, "Hello")
    first = shown(real)[1]["content"]
    live.get_by_role("button", name="Answer again").click()
    expect(live.get_by_text("2 of 2")).to_be_visible()
    assert shown(real)[2]["content"] == first, "the same seed draws the same"
    live.reload()
    expect(live.get_by_text("2 of 2")).to_be_visible()
    live.get_by_role("button", name="Settings of this conversation").click()
    expect(live.get_by_label("System prompt")).to_have_value("Be brief.")
    expect(live.get_by_label("Longest answer")).to_have_value("9")
    live.get_by_role("button", name="Usual values").click()
    expect(live.get_by_label("System prompt")).to_have_value("")
    expect(live.get_by_label("Longest answer")).to_have_value("384")


def test_the_list_searches_renames_pins_files_away_and_deletes(live: Page, real: RealServed) -> None:
    short(live)
    ask(live, "Où est l’éléphant ?")
    live.keyboard.press("Alt+n")
    expect(live.get_by_text("What shall we talk about?")).to_be_visible()
    ask(live, "Second talk")
    live.keyboard.press("Control+k")
    live.keyboard.type("elephant")
    expect(live.get_by_text("1 conversation found")).to_be_visible()
    live.get_by_role("searchbox").fill("")
    live.get_by_role("button", name="Rename “Second talk”").click()
    live.get_by_role("textbox", name="Rename").fill("Renamed")
    live.get_by_label("Folder").fill("Sea")
    live.keyboard.press("Enter")
    expect(live.get_by_role("heading", name="Sea")).to_be_visible()
    live.get_by_role("button", name="Pin “Renamed”").click()
    expect(live.get_by_role("heading", name="Pinned")).to_be_visible()
    live.get_by_role("button", name="Unpin “Renamed”").click()
    live.get_by_role("button", name="Delete “Renamed”").click()
    expect(live.get_by_role("link", name="Renamed")).to_have_count(0)
    live.get_by_role("button", name="Undo").click()
    expect(live.get_by_role("link", name="Renamed")).to_be_visible()
    kept = real.get("/api/conversations")["conversations"]
    assert sorted((one["title"], one["folder"]) for one in kept) == [("Où est l’éléphant ?", None), ("Renamed", "Sea")]


def test_a_conversation_is_exported_and_printed(live: Page, real: RealServed) -> None:
    short(live)
    ask(live, "Hello")
    said = shown(real)[1]["content"].strip()
    for name, ending in (("Markdown", ".md"), ("JSON", ".json")):
        live.get_by_role("button", name="Export").click()
        with live.expect_download() as download:
            live.get_by_role("link", name=name).click()
        text = Path(download.value.path()).read_text(encoding="utf-8")
        assert download.value.suggested_filename.endswith(ending)
        assert said in (text if ending == ".md" else json.loads(text)["messages"][1]["content"])
        live.keyboard.press("Escape")
    live.evaluate("window.print = () => { window.printed = true; }")
    live.get_by_role("button", name="Export").click()
    live.get_by_role("button", name="Print").click()
    live.wait_for_function("window.printed")
    live.emulate_media(media="print")
    expect(live.get_by_label("Your message")).to_be_hidden()
    expect(live.get_by_role("navigation", name="Conversations")).to_be_hidden()
    expect(live.get_by_role("article", name="You")).to_be_visible()


def test_a_reload_in_the_middle_goes_on(live: Page, real: RealServed) -> None:
    long_story(live, real, 4000)
    with held(real):
        live.reload()
        expect(live.get_by_role("button", name="Stop")).to_be_visible()
    expect(live.get_by_text("Cut at the length limit")).to_be_visible(timeout=60_000)
    assert shown(real)[1]["exposure"]["finish"] == "length"
    expect(answers(live)).to_have_count(1)


def test_a_lost_connection_is_taken_up_where_it_broke(browser: Browser, real: RealServed) -> None:
    context = browser.new_context(base_url=real.url, locale="en-GB")
    page = context.new_page()
    page.goto("/")
    long_story(page, real, 2500)
    context.set_offline(True)
    page.wait_for_timeout(400)
    context.set_offline(False)
    expect(page.get_by_text("Cut at the length limit")).to_be_visible(timeout=60_000)
    said = " ".join(shown(real)[1]["content"].split())
    assert " ".join(answers(page).locator(".markdown").inner_text().split()) == said
    context.close()


def test_files_come_by_the_button_by_dropping_and_by_pasting(live: Page, real: RealServed) -> None:
    short(live)
    files = {
        "sea.txt": b"Salt comes from rivers.",
        "sea.docx": office("docx"),
        "sea.pdf": a_pdf("Salt comes from rivers."),
    }
    live.locator("input[type=file]").set_input_files(
        [{"name": name, "mimeType": "application/octet-stream", "buffer": data} for name, data in files.items()]
    )
    for name in files:
        expect(live.get_by_role("button", name=f"Remove {name}")).to_be_visible(timeout=60_000)
    give = """([kind, name, text]) => {
        const data = new DataTransfer();
        data.items.add(new File([text], name, { type: 'text/plain' }));
        const target = document.querySelector(kind === 'drop' ? 'form' : '#question');
        const event = kind === 'drop' ? new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true })
            : new ClipboardEvent('paste', { clipboardData: data, bubbles: true, cancelable: true });
        target.dispatchEvent(event);
    }"""
    for kind in ("drop", "paste"):
        live.evaluate(give, [kind, f"{kind}.txt", "The Moon pulls."])
        expect(live.get_by_role("button", name=f"Remove {kind}.txt")).to_be_visible(timeout=60_000)
    live.get_by_role("button", name="Remove drop.txt").click()
    ask(live, "Why is the sea salty?")
    question = shown(real)[0]
    assert [file["name"] for file in question["files"]] == [*files, "paste.txt"]
    for name in files:
        expect(live.get_by_text(name, exact=True)).to_be_visible()
    live.get_by_role("button", name="Edit the question").click()
    live.get_by_label("Your question in other words").fill("And why blue?")
    live.keyboard.press("Enter")
    expect(live.get_by_role("article", name="You")).to_have_text("And why blue?")
    assert [file["name"] for file in shown(real)[2]["files"]] == [*files, "paste.txt"], (
        "the files stay with the question"
    )


def test_a_file_that_cannot_be_read_says_why(browser: Browser, real: RealServed) -> None:
    page = browser.new_page(base_url=real.url, locale="en-GB")
    page.goto("/")
    broken = {"name": "broken.pdf", "mimeType": "application/pdf", "buffer": b"%PDF-1.4 nothing"}
    page.locator("input[type=file]").set_input_files(broken)
    expect(page.get_by_role("alert")).to_contain_text("'broken.pdf' was not read", timeout=60_000)
    page.get_by_role("button", name="Close").click()
    expect(page.get_by_role("alert")).to_have_count(0)
    page.close()


def test_of_a_file_longer_than_the_model_the_passages_that_matter_are_read(live: Page, real: RealServed) -> None:
    short(live)
    filler = "\n".join(f"Line {number} speaks of nothing in particular, at some length." for number in range(1200))
    half = len(filler) // 2
    text = filler[:half] + "\nThe lighthouse keeper of Ouessant was called Aveline.\n" + filler[half:]
    live.locator("input[type=file]").set_input_files(
        {"name": "long.txt", "mimeType": "text/plain", "buffer": text.encode()}
    )
    expect(live.get_by_role("button", name="Remove long.txt")).to_be_visible(timeout=60_000)
    ask(live, "Who was the lighthouse keeper of Ouessant?")
    live.get_by_text("passages of long.txt were read").click()
    expect(live.get_by_text("The lighthouse keeper of Ouessant was called Aveline.")).to_be_visible()
    passages = shown(real)[1]["passages"]
    assert 1 <= len(passages) <= 8
    assert any("Aveline" in passage["text"] for passage in passages)
    assert [passage["part"] for passage in passages] == sorted(passage["part"] for passage in passages)


def test_shortcuts_are_told_and_work(live: Page) -> None:
    expect(live.get_by_label("Your message")).to_be_visible()
    live.locator("#conversation").focus()
    live.keyboard.press("?")
    help_ = live.get_by_role("dialog", name="Keyboard shortcuts")
    expect(help_.locator("kbd")).to_have_count(8)
    live.keyboard.press("Escape")
    expect(help_).to_be_hidden()
    live.keyboard.press("Alt+s")
    expect(live.get_by_role("dialog", name="Settings of this conversation")).to_be_visible()
    live.keyboard.press("Escape")
    live.locator("#conversation").focus()
    live.keyboard.press("/")
    expect(live.get_by_label("Your message")).to_be_focused()
    live.keyboard.type("one")
    live.keyboard.press("Shift+Enter")
    live.keyboard.type("two ?")
    expect(live.get_by_label("Your message")).to_have_value("one\ntwo ?")
    expect(live.get_by_role("dialog")).to_have_count(0)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_phone_has_everything_within_its_width(browser: Browser, real: RealServed, theme: Any) -> None:
    with reader(browser, real.url, viewport={"width": 360, "height": 740}, color_scheme=theme, has_touch=True) as page:
        short(page)
        ask(page, "Hello")
        page.get_by_role("button", name="Conversations").click()
        page.get_by_role("link", name="Hello").click()
        expect(page.get_by_role("button", name="New conversation")).not_to_be_in_viewport()
        for view in ("Teach", "Runs", "Admin", "Chat"):
            page.get_by_role("link", name=view, exact=True).click()
            assert page.evaluate("document.documentElement.scrollWidth") <= 360, view
        ground = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", ground)[:3])) < 200) == (theme == "dark")
