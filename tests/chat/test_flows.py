"""Files, maths, code and hostile texts over a scripted engine, the first admin's way in; and axe-core everywhere."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from causerie.chat.accounts import Accounts
from causerie.chat.signin import Door
from causerie.core import open_run
from causerie.hub import register
from causerie.loop import CanaryConfig, start_canary
from causerie.store import open_store
from causerie.text import Tokenizer
from tests.waiting import PATIENCE

from .conftest import IMPROVE, Script, Served, ask, make_model, needs_chromium, start_server
from .test_page import PAYLOADS

AXE = Path(__file__).parents[2] / "page" / "node_modules" / "axe-core" / "axe.min.js"

pytestmark = needs_chromium


def test_files_are_attached_read_and_cited(page: Page, served: Served) -> None:
    served.script.answer = lambda _prompt, _seed: "It is salty [1], not `[1]` sweet [2]."
    name = "<img src=x onerror=alert(1)>.txt"
    page.locator("input[type=file]").set_input_files({"name": name, "mimeType": "text/plain", "buffer": b"Salt."})
    expect(page.get_by_role("button", name=f"Remove {name}")).to_be_visible()
    ask(page, "Why?")
    assert "Salt." in served.script.prompts[-1]
    expect(page.get_by_text(name)).to_be_visible()
    expect(page.locator("sup.cite")).to_have_count(1)
    expect(page.locator("sup.cite")).to_have_attribute("title", name)
    expect(page.locator(".markdown")).to_contain_text("sweet [2].")


def test_a_conversation_longer_than_the_model_goes_on_without_its_oldest(page: Page, served: Served) -> None:
    served.script.length = 200
    note = page.get_by_text("oldest messages no longer fit")
    ask(page, "Zebra " + "sea " * 40)
    expect(note).to_be_hidden()
    for number in range(2):
        ask(page, f"{number} " + "blue " * 40)
        expect(page.locator("article.answer")).to_have_count(number + 2)
    expect(note).to_be_visible()
    assert "Zebra" not in served.script.prompts[-1]
    assert served.script.prompts[-1].count("blue") >= 40
    page.reload()
    expect(page.locator("#conversation")).to_contain_text("Zebra")  # nothing is lost, only left out


def test_keyboard_help_and_code_and_maths_are_drawn(page: Page, served: Served) -> None:
    tex = (
        r"Pull $a = \frac{1}{r^3}$ costs $5 or $10."
        + "\n\n$$x^2$$\n\n\\(y\\)\n\n```python\ndef f():\n    return 'a'\n```"
    )
    served.script.answer = lambda _prompt, _seed: tex
    ask(page, "Draw")
    expect(page.locator("math")).to_have_count(3)
    expect(page.locator("mfrac")).to_have_count(1)
    assert page.locator("math[display=block]").count() == 1
    expect(page.get_by_text("costs $5 or $10.")).to_be_visible()
    expect(page.locator(".hljs-keyword").first).to_have_text("def")
    page.locator("#conversation").focus()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    expect(page.get_by_label("Your message")).to_be_focused()


MATHS_ATTACKS = [
    r"$\href{javascript:alert(1)}{x}$", r"$\includegraphics{http://evil.example/x.png}$", r"$$\style{position:fixed}{x^2}$$",
    r"$\class{hljs}{x^2}$ $\text{<img src=x onerror=alert(1)>}_2$", r"$\id{question}{x_1}$", r"$\def\a{\a\a}\a_1$",
]  # fmt: skip


def test_hostile_maths_code_titles_and_folders_do_nothing(page: Page, served: Served) -> None:
    code = "\n\n".join(f"```html\n{payload}\n```" for payload in PAYLOADS if "```" not in payload)
    served.script.answer = lambda _prompt, _seed: "\n\n".join(MATHS_ATTACKS) + "\n\n" + code
    assert len(PAYLOADS) >= 50
    made = served.post("/api/conversations", {"title": PAYLOADS[1]})["id"]
    served.send("PATCH", f"/api/conversations/{made}", {"folder": PAYLOADS[0][:60]})
    body: dict[str, Any] = {"conversation": made, "model": "demo", "content": "x", "params": {"max_tokens": 8000}}
    assert served.send("POST", "/api/chat", body).status_code == 200
    page.evaluate("() => { window.attacked = 0; window.alert = () => { window.attacked += 1; }; }")
    page.goto(f"/#/c/{made}")
    expect(page.locator(".code").first).to_be_visible()
    page.wait_for_timeout(500)
    harmful = page.evaluate("""() => [...document.querySelectorAll('.markdown *, nav li *, nav h2 *')].filter((node) =>
        /^(script|iframe|object|embed|form|style|img|video|audio|base|meta|link)$/i.test(node.tagName) ||
        [...node.attributes].some(({ name, value }) => /^on|^style$|^id$|^src/i.test(name) ||
            (name === 'href' && node.closest('.markdown') && !/^(https?:|mailto:)/i.test(value)))).map((node) => node.outerHTML)""")
    assert harmful == []
    assert page.evaluate("window.attacked") == 0


HARMFUL = """() => [...document.querySelectorAll('#app *')].filter((node) =>
    /^(script|iframe|object|embed|img|video|audio|base|meta|link|marquee)$/i.test(node.tagName) ||
    [...node.attributes].some(({ name, value }) => /^on|^srcdoc$/i.test(name) ||
        (/^(href|src|action|formaction|xlink:href)$/i.test(name) && /^\\s*(javascript|data|vbscript):/i.test(value))))
    .map((node) => node.outerHTML.slice(0, 200))"""
"""Elements of the whole page that run or load something, or would when touched."""


def test_every_payload_is_harmless_as_a_title_a_file_name_a_file_and_a_citation(page: Page, served: Served) -> None:
    """All of them in every place: titles in the list, files on questions, names on marks, passages under answers."""
    served.script.length = 700
    names = [payload.replace("\0", " ")[:190] or "x" for payload in PAYLOADS]
    served.script.answer = lambda _prompt, _seed: " ".join(f"[{number}]" for number in range(1, 9))
    page.add_init_script(
        "window.attacked = 0; for (const name of ['alert', 'prompt', 'confirm']) window[name] = () => { window.attacked += 1; };"
    )
    made = ""
    for first in range(0, len(names), 8):
        part = names[first : first + 8]
        made = served.post("/api/conversations", {"title": part[0]})["id"]
        for title in part:
            served.post("/api/conversations", {"title": title})
        files = [{"name": name, "text": f"{name}\n{PAYLOADS[first]}\n" * 12} for name in part]
        body = {
            "conversation": made,
            "model": "demo",
            "content": part[-1] + " sea",
            "attachments": files,
            "system": part[0],
        }
        assert served.send("POST", "/api/chat", body).status_code == 200
        page.goto(f"/#/c/{made}")
        page.reload()
        expect(page.locator("sup.cite").first).to_be_visible()
        page.locator("summary").first.click()
        page.locator("sup.cite").first.hover()
        assert page.evaluate(HARMFUL) == [], part
        assert page.evaluate("window.attacked") == 0, part
    assert served.get(f"/api/conversations/{made}")["messages"][1]["passages"], "long files were cut into passages"
    page.reload()
    expect(page.locator("nav li")).to_have_count(len(names) + len(range(0, len(names), 8)))
    page.get_by_role("searchbox").fill("script")
    expect(page.get_by_role("status").filter(has_text="found")).to_be_visible()
    assert page.evaluate(HARMFUL) == []
    assert page.evaluate("window.attacked") == 0


def serious(page: Page) -> list[str]:
    """What axe-core finds that is serious or critical."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{one['id']}: {node['html'][:120]}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


@pytest.mark.slow
@pytest.mark.skipif(not AXE.exists(), reason="axe-core is not in page/node_modules (npm --prefix page ci)")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Browser, served: Served, tokenizer: Tokenizer, theme: Any) -> None:
    """Slow: every view and dialog in both languages is scanned whole."""
    with open_run(served.workspace, "pretrain", "small", "a" * 64, {}) as run:
        for step in range(20):
            run.log("step", step=step, loss=3 - step / 10)
    (served.workspace / "predictions").mkdir()
    said = {
        "loss": 1.2,
        "interval": [1.0, 1.3],
        "scores": [{"run": "a" * 64, "measured": 1.1, "relative_error": -0.08}],
    }
    (served.workspace / "predictions" / "small.json").write_text(json.dumps(said))
    served.post("/v1/organization/prices", {"model": "*", "currency": "eur", "input": 2.0, "output": 8.0, "from": 1})
    served.post("/api/improve", {"model": "demo"})
    while served.get("/api/improve")["status"] != "done":
        time.sleep(0.1)
    made = make_model(served.workspace, tokenizer, "d4", {"base": "f5" * 32})
    start_canary(
        served.store, register(served.store, served.workspace, "demo", made, parents=["demo@3"]).ref, CanaryConfig()
    )
    served.script.length = 900
    served.script.answer = lambda _prompt, _seed: (
        "# A [1]\n\n| a | b |\n|---|---|\n| 1 | $x^2$ |\n\n```python\ndef f(): return 'a'  # b\n```"
    )
    long = {"name": "long.txt", "mimeType": "text/plain", "buffer": b"The sea is blue. " * 600}
    for language in ("en", "fr"):
        context = browser.new_context(base_url=served.url, locale=language, color_scheme=theme)
        found = context.new_page()
        found.goto("/")
        views = {"empty": serious(found)}
        found.locator("input[type=file]").set_input_files(long)
        expect(found.locator(".files .chip button")).to_be_visible()
        found.locator("#question").fill("Hello")
        found.keyboard.press("Enter")
        expect(found.locator(".hljs-keyword").first).to_be_visible()
        found.locator("summary").first.click()
        found.locator("article.answer [aria-pressed=false]").nth(1).click()
        views["chat"] = serious(found)
        found.locator("input[type=checkbox]").first.check()
        found.keyboard.press("Alt+n")
        found.locator("#question").fill("Which?")
        found.keyboard.press("Enter")
        expect(found.locator(".ask button")).to_have_count(3)
        views["drafts"] = serious(found)
        for name, key in (("settings", "Alt+s"), ("keys", "?")):
            found.locator("#conversation").focus()
            found.keyboard.press(key)
            expect(found.get_by_role("dialog")).to_be_visible()
            views[name] = serious(found)
            found.keyboard.press("Escape")
        for view in ("teach", "runs", f"runs/{run.id}", "admin"):
            found.goto(f"/#/{view}")
            expect(found.locator("h1")).to_be_visible()
            found.wait_for_timeout(500)
            views[view] = serious(found)
        assert found.locator(".charts .chart").count() == 2, "tokens and costs are charted"
        found.locator("section", has=found.locator("#usage")).locator("button").first.click()
        expect(found.get_by_role("dialog")).to_be_visible()
        views["prices"] = serious(found)
        assert {view: found for view, found in views.items() if found} == {}, language
        context.close()


@pytest.fixture
def house(workspace: Path, tokenizer: Tokenizer) -> Iterator[tuple[str, Accounts]]:
    with open_store(workspace) as store:
        register(store, workspace, "demo", make_model(workspace, tokenizer, "a1"), status="promoted")
        accounts = Accounts(store)
        door = Door(accounts)
        server, thread = start_server(workspace, store, Script(), (sys.executable, str(IMPROVE)), door=door)
        yield server.url, accounts
        server.stop()
        thread.join(PATIENCE)


def test_the_first_admin_signs_in_makes_an_account_and_a_key(browser: Browser, house: tuple[str, Accounts]) -> None:
    url, accounts = house
    context = browser.new_context(base_url=url, locale="en-GB")
    found = context.new_page()
    found.on("dialog", lambda dialog: dialog.accept())
    found.goto(f"/#/first/{accounts.code}")
    found.get_by_label("Name").fill("Ada")
    found.get_by_label("Password").fill("correct horse")
    if AXE.exists():
        assert serious(found) == []
    found.get_by_role("button", name="Create the account").click()
    expect(found.get_by_text("What shall we talk about?")).to_be_visible()
    found.get_by_role("link", name="Admin").click()
    found.get_by_role("button", name="Add an account").click()
    dialog = found.get_by_role("dialog")
    dialog.get_by_label("Name").fill("<b>Grace</b>")
    dialog.get_by_label("Password").fill("correct horse")
    dialog.get_by_role("button", name="Add an account").click()
    expect(found.get_by_role("cell", name="<b>Grace</b>", exact=True)).to_be_visible()
    found.get_by_role("button", name="Create a key").click()
    found.get_by_label("What is it for?").fill("notebook")
    dialog.get_by_role("button", name="Create a key").click()
    key = dialog.locator("code").inner_text()
    assert context.request.get("/v1/models", headers={"authorization": f"Bearer {key}"}).status == 200
    found.keyboard.press("Escape")
    found.get_by_role("button", name="Revoke notebook").click()
    expect(found.get_by_text("revoked", exact=True)).to_be_visible()
    assert context.request.get("/v1/models", headers={"authorization": f"Bearer {key}"}).status == 401
    found.get_by_role("button", name="Sign out (Ada)").click()
    found.get_by_label("Name").fill("<b>Grace</b>")
    found.get_by_label("Password").fill("wrong")
    found.keyboard.press("Enter")
    expect(found.get_by_role("alert")).to_contain_text("the name or the password is wrong")
    found.get_by_label("Password").fill("correct horse")
    found.keyboard.press("Enter")
    expect(found.get_by_text("What shall we talk about?")).to_be_visible()
    assert found.get_by_role("link", name="Admin").count() == 0
    context.close()
    context = browser.new_context(base_url=url, locale="fr-FR")
    found = context.new_page()
    found.goto("/")
    found.get_by_label("Nom").fill("Ada")
    found.get_by_label("Mot de passe").fill("faux")
    found.keyboard.press("Enter")
    expect(found.get_by_role("alert")).to_contain_text("le nom ou le mot de passe est faux. (the name or the password")
    context.close()
