"""The page in Debian's Chromium over a scripted engine, where what is said must be exact: markup, money, injections, widths.

What people do on the page is tested with real engines, in `test_real_chat.py`, `test_real_votes.py`, `test_real_views.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect

from .conftest import Served, ask, needs_chromium

pytestmark = needs_chromium


def test_conversations_and_lineage_with_the_keyboard(page: Page) -> None:
    ask(page, "First")
    page.get_by_role("button", name="Rename “First”").click()
    page.keyboard.press("Control+A")
    page.keyboard.type("About the sea")
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="About the sea")).to_be_visible()
    page.get_by_role("button", name="Where demo@2 comes from").focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Where demo@2 comes from")
    expect(dialog.get_by_role("button", name="demo@1")).to_be_visible()
    expect(dialog).to_contain_text("Made for tests.")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    page.get_by_role("button", name="Delete “About the sea”").click()
    expect(page.get_by_text("No conversations yet")).to_be_visible()
    expect(page.get_by_text("What shall we talk about?")).to_be_visible()


def test_language_and_theme_are_kept(page: Page) -> None:
    page.get_by_label("Language").select_option("fr")
    expect(page.get_by_text("De quoi parlons-nous")).to_be_visible()
    assert page.evaluate("document.documentElement.lang") == "fr"
    page.get_by_role("button", name="Couleurs\u00a0: Comme le système").click()
    page.get_by_role("button", name="Couleurs\u00a0: Clair").click()
    page.reload()
    expect(page.get_by_role("button", name="Couleurs\u00a0: Sombre")).to_be_visible()
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "dark"


def test_a_refusal_says_why_in_both_languages(page: Page, served: Served) -> None:
    (served.workspace / "improve-verdict").write_text("refused")
    page.get_by_role("link", name="Teach").click()
    page.get_by_role("button", name="Improve").click()
    expect(page.get_by_text("Refused: demo@2 goes on answering.")).to_be_visible(timeout=20_000)
    page.get_by_label("Language").select_option("fr")
    expect(page.get_by_text("Refusée\u00a0: demo@2 continue de répondre.")).to_be_visible()


PAYLOADS = Path(__file__).parent.joinpath("xss_payloads.txt").read_text(encoding="utf-8").split("\n----\n")


def test_injected_markup_does_nothing(page: Page, served: Served) -> None:
    """Answers, questions and titles full of markup leave no element that runs, loads or looks like the page's own."""
    answer = "\n\n".join(PAYLOADS)
    served.script.answer = lambda _prompt, _seed: answer
    conversation = served.post("/api/conversations", {"title": PAYLOADS[0][:200]})["id"]
    body: dict[str, Any] = {
        "conversation": conversation,
        "model": "demo",
        "content": answer,
        "params": {"max_tokens": 8000},
    }
    assert served.send("POST", "/api/chat", body).status_code == 200
    page.evaluate("() => { window.attacked = 0; window.alert = () => { window.attacked += 1; }; }")
    page.goto(f"/#/c/{conversation}")
    expect(page.locator(".markdown")).to_contain_text("onerror")
    harmful = page.evaluate("""() => {
        const bad = [];
        for (const node of document.querySelectorAll('.markdown *, .question *, nav li *')) {
            if (/^(script|iframe|object|embed|form|input|style|img|video|audio|base|meta|math|link)$/i.test(node.tagName)) bad.push(node.outerHTML);
            for (const { name, value } of node.attributes) {
                if (/^on|^style$|^id$|^name$|^src/i.test(name) && node.closest('.markdown')) bad.push(name);
                if (name === 'href' && node.closest('.markdown') && !/^(https?:|mailto:)/i.test(value)) bad.push(value);
            }
        }
        return bad;
    }""")
    assert harmful == []
    for link in page.locator(".markdown a").all():
        assert link.get_attribute("rel") == "noopener noreferrer nofollow"
    page.mouse.move(400, 400)
    page.wait_for_timeout(200)
    assert page.evaluate("window.attacked") == 0


def test_markdown_is_drawn_and_money_is_not_maths(page: Page, served: Served) -> None:
    text = "# Costs\n\n| item | price |\n|---|---|\n| bread | $5 |\n\n- one\n- two\n\n```python\nprint('<b>')\n```\n\nFrom $5 to $10."
    served.script.answer = lambda _prompt, _seed: text
    ask(page, "Costs?")
    expect(page.get_by_role("cell", name="$5")).to_be_visible()
    expect(page.locator("pre code")).to_have_text("print('<b>')\n")
    expect(page.get_by_text("From $5 to $10.")).to_be_visible()
    expect(page.locator(".markdown li")).to_have_count(2)


def test_nothing_is_wider_than_a_phone(page: Page, served: Served) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    served.post("/api/improve", {"model": "demo"})
    served.script.answer = lambda _prompt, _seed: "x" * 300 + "\n\n```\n" + "y " * 200 + "\n```"
    ask(page, "Wide?")
    for view in ("Chat", "Teach", "Runs"):
        page.get_by_role("link", name=view, exact=True).click()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, view
        too_wide = (
            "() => [...document.querySelectorAll('.view, .log')].some((box) => box.scrollWidth > box.clientWidth)"
        )
        assert page.evaluate(too_wide) is False, view
    page.get_by_role("link", name="Chat", exact=True).click()
    page.get_by_role("button", name="Conversations").click()
    expect(page.get_by_role("button", name="New conversation")).to_be_in_viewport()
