"""Screenshots of every view of the page, over the tests' scripted engine: `python scripts/screenshots.py --out FOLDER`.

Look at them after a change to the page; those that the README and the guides show are written to `docs/images` by hand.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from playwright.sync_api import Browser, Page, sync_playwright

from causerie.chat.accounts import Accounts
from causerie.chat.signin import Door
from causerie.core import open_run
from causerie.hub import register
from causerie.store import open_store
from causerie.text import train_bpe
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
    """One pretraining run with curves, samples and a prediction."""
    with open_run(workspace, "pretrain", "mai-small", "a" * 64, {}) as run:
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
    (folder / "mai-small.json").write_text(
        '{"loss": 2.58, "interval": [2.47, 2.71], "created": "2026-11-01", "scores": []}'
    )


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


def pictures(browser: Browser, url: str, out: Path, script: Script, code: str) -> None:
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
    context.close()
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
    for index, view in enumerate(("teach", "runs", "admin"), 11):
        shoot(
            browser,
            url,
            out,
            f"{index}-{view}",
            lambda page, view=view: page.goto(f"/#/{view}"),
            state=state,
            size=(1280, 1250),
        )

    def run(page: Page) -> None:
        page.goto("/#/runs")
        page.get_by_role("link", name="pretrain").click()
        page.wait_for_timeout(800)

    shoot(browser, url, out, "14-run", run, state=state, size=(1280, 1250))
    shoot(
        browser,
        url,
        out,
        "15-admin-dark",
        lambda page: page.goto("/#/admin"),
        state=state,
        color_scheme="dark",
        size=(1280, 1250),
    )
    shoot(browser, url, out, "16-admin-phone", lambda page: page.goto("/#/admin"), state=state, size=(390, 800))


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
            pictures(browser, server.url, out, script, door.accounts.code)
            browser.close()
            server.stop()
            thread.join(20)


if __name__ == "__main__":
    main()
