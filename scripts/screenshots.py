"""Screenshots of every view of the page, over the tests' scripted engine: `python scripts/screenshots.py --out FOLDER`.

Look at them after a change to the page; those that the README and the guides show are written to `docs/images` by hand.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from playwright.sync_api import APIRequestContext, Browser, Page, sync_playwright
from sqlalchemy import select

from causerie.chat.accounts import Accounts
from causerie.chat.signin import Door
from causerie.core import open_run, write_artifact
from causerie.hub import register
from causerie.loop import CanaryConfig, start_canary
from causerie.store import Store, exposures, new_id, now, open_store, usage
from causerie.text import Tokenizer, train_bpe
from tests.chat.conftest import IMPROVE, TEXT, Script, make_model, start_server

LONG = """## Tides, briefly

The **Moon** pulls on the near side of the Earth more than on the far side; the ocean answers with two bulges. At a \
distance $r$ the pull is

$$a = \\frac{2 G M R}{r^3},$$

so halving $r$ makes tides *eight* times as strong. A ferry ticket costs $5, or $10 with a bicycle.

| port | mean range | note |
|---|---:|---|
| Saint-Malo | 8.2 m | among the highest in Europe |
| Brest | 4.2 m | |
| Marseille | 0.1 m | nearly none |

1. Look up the port.
2. Add the height of the chart datum.

```python
def height(t: float, mean: float = 4.2, period: float = 12.42) -> float:
    \"\"\"Height of the water, in metres, `t` hours after high water.\"\"\"
    return mean * math.cos(2 * math.pi * t / period)  # one constituent only
```

> A rule of twelfths is enough for most landings.
"""
FRENCH = "Une **marée** est la montée puis la descente des eaux. On l’explique par l’attraction de la Lune [1] :\n\n- deux marées hautes par jour ;\n- un coefficient de 20 à 120.\n\nLe billet coûte 5 $ ou 10 $."


def seed_runs(workspace: Path) -> None:
    """Pretraining runs with curves, samples, a scored prediction and the data behind them."""
    with write_artifact(workspace, "corpus", "web-fr-en", "c0" * 32) as corpus:
        corpus.metrics.update(documents_in=48_210, documents_kept=17_904)
        (corpus.path / "report.html").write_text("<h1>Corpus</h1>")
    assert corpus.artifact is not None
    with open_run(workspace, "pretrain", "mai-small", "a" * 64, {"corpus": str(corpus.artifact.path)}) as run:
        for step in range(400):
            loss = 2.6 + 6.2 * math.exp(-step / 60) + 0.04 * math.sin(step * 1.7)
            figures = {
                "tokens_per_second": 81_000 + 900 * math.sin(step / 9),
                "peak_share": 0.41 + 0.01 * math.sin(step / 11),
            }
            run.log("step", step=step, loss=loss, lr=3e-4 * min(1, step / 40), bits_per_byte=loss / 2.9, **figures)
            if step in (100, 300):
                run.log("sample", step=step, text="The sea was calm and the boats came home before the night.")
        run.result.update(tokens=52_428_800, loss=2.61)
    folder = workspace / "predictions"
    folder.mkdir()
    score = {
        "run": "a" * 64,
        "measured": 2.61,
        "relative_error": 0.0116,
        "within_interval": True,
        "made_before_run": True,
    }
    said = {"loss": 2.58, "interval": [2.47, 2.71], "created": "2026-11-01", "scores": [score]}
    (folder / "mai-small.json").write_text(json.dumps(said))


def seed_usage(store: Store, people: list[str]) -> None:
    """A month of questions, more on working days."""
    today, rows = now() // 86_400, []
    for back in range(29):
        weight = (1 if (today - back) % 7 in (2, 3) else 4) * (1 + math.sin(back) / 4)
        for index, person in enumerate(people):
            for _ in range(int(weight) + 1):
                tokens = {
                    "prompt_tokens": int(900 * weight / (index + 1)),
                    "completion_tokens": int(420 * weight / (index + 1)),
                }
                row = {"request_id": new_id("req"), "time": (today - back - 1) * 86_400 + 3600 * 9, "key_id": person}
                row |= {"route": "/api/chat", "model": "demo@2", "status": 200, "latency": 1.0, "cached_tokens": 0}
                rows.append(row | tokens)
    store.add(usage, rows)


def seed_trial(workspace: Path, store: Store, request: APIRequestContext, script: Script, tokenizer: Tokenizer) -> None:
    """A round that promoted a version, and a candidate on trial with votes."""
    request.post("/api/improve", data={"model": "demo"})
    while request.get("/api/improve").json()["status"] in ("starting", "running"):
        time.sleep(0.2)
    made = make_model(workspace, tokenizer, "d4", {"base": "f5" * 32})
    candidate = register(store, workspace, "demo", made, parents=["demo@3"], card={"summary": "Learnt from 212 votes."})
    start_canary(store, candidate.ref, CanaryConfig(share=0.2, max_per_user=100, min_people=1))
    script.answer = lambda prompt, seed: f"It is the Moon above all. {seed % 7}"
    for index in range(26):
        talk = request.post("/api/conversations", data={"title": "Votes"}).json()["id"]
        body = {"conversation": talk, "model": "demo", "content": "Why?", "drafts": 1 if index == 0 else 2}
        request.post("/api/chat", data=body)
        if index:
            tree = request.get(f"/api/conversations/{talk}").json()["messages"]
            names = {row.id: row.version for row in store.read(select(exposures))}
            better = next((i for i, one in enumerate(tree[1:]) if names[one["exposure"]["id"]] == 4), 0)
            side = "tie" if index % 9 == 0 else ("left", "right")[better if index % 3 else 1 - better]
            signal = {"kind": "choice", "id": new_id("sig"), "message": tree[1]["id"], "value": side}
            request.post("/api/feedback", data={"signal": signal})
        time.sleep(0.05)
        request.delete(f"/api/conversations/{talk}")


def shoot(browser: Browser, url: str, out: Path, name: str, act: Callable[[Page], None], **options: Any) -> None:
    """One picture after `act` did what leads to it."""
    size = options.pop("size", (1280, 860))
    locale = options.pop("locale", "en-GB")
    state = options.pop("state", None)
    context = browser.new_context(
        base_url=url, locale=locale, viewport={"width": size[0], "height": size[1]}, storage_state=state, **options
    )
    page = context.new_page()
    page.goto("/")
    page.wait_for_timeout(300)
    act(page)
    page.wait_for_timeout(700)
    page.screenshot(path=out / f"{name}.png")
    context.close()


def ask(page: Page, text: str) -> None:
    """Ask and wait for the answer."""
    page.locator("#question").fill(text)
    page.locator("#question").press("Enter")
    page.wait_for_timeout(200)
    page.locator("button.primary.round").wait_for()
    page.wait_for_timeout(700)


def pictures(
    browser: Browser,
    url: str,
    out: Path,
    script: Script,
    code: str,
    seed: Callable[[APIRequestContext, list[str]], None],
) -> None:
    """All of them, in the order of the names."""

    def set_up(page: Page) -> None:
        page.goto(f"/#/first/{code}")
        page.wait_for_timeout(300)

    shoot(browser, url, out, "01-first-admin", set_up)
    context = browser.new_context(base_url=url)
    context.request.post("/api/session/first", data={"code": code, "name": "Ada", "password": "correct horse"})
    state = context.storage_state()
    for name in ("Grace", "Alan"):
        context.request.post("/api/admin/accounts", data={"name": name, "password": "correct horse"})
    context.request.post("/api/admin/keys", data={"name": "notebook"})
    price = {"model": "*", "currency": "eur", "input": 0.4, "output": 1.2, "from": int(now() - 31 * 86_400)}
    context.request.post("/v1/organization/prices", data=price)
    shoot(browser, url, out, "02-sign-in", lambda page: None)
    shoot(browser, url, out, "03-empty", lambda page: None, state=state)
    script.answer = lambda prompt, seed: FRENCH if "marée" in prompt.rsplit("user", 1)[-1] else LONG

    def long(page: Page) -> None:
        ask(page, "How do tides work?")

    shoot(browser, url, out, "04-long", long, state=state, size=(1280, 1250))
    shoot(browser, url, out, "05-dark", long, state=state, size=(1280, 1250), color_scheme="dark")

    def french(page: Page) -> None:
        page.locator("input[type=file]").set_input_files(
            [{"name": "notes de marée.txt", "mimeType": "text/plain", "buffer": b"La Lune attire la mer."}]
        )
        page.wait_for_timeout(1500)
        ask(page, "Qu’est-ce que la marée ?")
        page.get_by_role("button", name="Bonne réponse").click()

    shoot(browser, url, out, "06-french", french, state=state, locale="fr-FR")
    shoot(browser, url, out, "07-phone", long, state=state, size=(390, 800), device_scale_factor=2)

    def drafts(page: Page) -> None:
        page.get_by_label("Two drafts").check()
        script.answer = lambda prompt, seed: (
            f"It is the **Moon** above all, and the Sun a little. ({seed % 7} of 7 agree.)"
        )
        ask(page, "What makes the tides?")

    shoot(browser, url, out, "08-drafts", drafts, state=state)

    def drawer(page: Page) -> None:
        page.get_by_role("button", name="Settings of this conversation").click()

    shoot(browser, url, out, "09-settings", drawer, state=state)

    def list_of(page: Page) -> None:
        page.get_by_role("searchbox").fill("maree")
        page.wait_for_timeout(600)

    shoot(browser, url, out, "10-search", list_of, state=state)
    seed(context.request, [one["id"] for one in context.request.get("/api/admin/accounts").json()["accounts"]])
    context.close()
    tall = {"state": state, "size": (1280, 1700)}
    for index, view in enumerate(("teach", "runs", "admin"), 11):
        shoot(browser, url, out, f"{index}-{view}", lambda page, view=view: page.goto(f"/#/{view}"), **tall)

    def run(page: Page) -> None:
        page.goto("/#/runs")
        page.get_by_role("link", name="pretrain").click()
        page.wait_for_timeout(800)

    def prices(page: Page) -> None:
        page.goto("/#/admin")
        page.get_by_role("button", name="Prices").click()

    def passages(page: Page) -> None:
        script.answer = lambda prompt, seed: "The keeper was called Aveline [1], and lived on Ouessant [2]."
        line = "The sea was calm, and nothing was seen of note that day, nor the next. "
        text = line * 500 + "The keeper of the lighthouse was called Aveline. " + line * 500
        file = {"name": "journal of the keeper.txt", "mimeType": "text/plain", "buffer": text.encode()}
        page.locator("input[type=file]").set_input_files([file])
        page.wait_for_timeout(2500)
        ask(page, "Who was the keeper of the lighthouse?")
        page.locator("summary").first.click()

    shoot(browser, url, out, "14-run", run, **tall)
    shoot(browser, url, out, "15-admin-dark", lambda page: page.goto("/#/admin"), color_scheme="dark", **tall)
    shoot(browser, url, out, "16-admin-phone", lambda page: page.goto("/#/admin"), state=state, size=(390, 1500))
    shoot(browser, url, out, "17-teach-french", lambda page: page.goto("/#/teach"), locale="fr-FR", **tall)
    shoot(browser, url, out, "18-teach-dark", lambda page: page.goto("/#/teach"), color_scheme="dark", **tall)
    shoot(browser, url, out, "19-teach-phone", lambda page: page.goto("/#/teach"), state=state, size=(390, 1500))
    shoot(browser, url, out, "20-prices", prices, state=state)
    shoot(browser, url, out, "21-passages", passages, state=state)


def main() -> None:
    """Serve, look, leave."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        workspace = Path(folder)
        seed_runs(workspace)
        with open_store(workspace) as store:
            tokenizer = train_bpe([TEXT, LONG * 20, FRENCH * 20], 1200)
            terms: dict[str, Any] = {"licence": "Apache-2.0", "card": {"summary": "A small model of the sea."}}
            register(store, workspace, "demo", make_model(workspace, tokenizer, "a1"), status="promoted", **terms)
            second = make_model(workspace, tokenizer, "b2", {"base": "a1" * 32})
            register(store, workspace, "demo", second, parents=["demo@1"], status="promoted", **terms)
            door, script = Door(Accounts(store)), Script()
            assert door.accounts is not None
            server, thread = start_server(workspace, store, script, (sys.executable, str(IMPROVE)), door=door)
            browser = playwright.chromium.launch(
                executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
            )

            def seed(request: APIRequestContext, people: list[str]) -> None:
                seed_usage(store, people)
                seed_trial(workspace, store, request, script, tokenizer)

            pictures(browser, server.url, out, script, door.accounts.code, seed)
            browser.close()
            server.stop()
            thread.join(20)


if __name__ == "__main__":
    main()
