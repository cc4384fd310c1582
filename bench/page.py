"""How smoothly the page draws: a chat of 100 turns in which an answer of 2,000 tokens grows.

`python bench/page.py [--quick]` serves the page over the tests' scripted engine, opens the long chat in Chromium, asks one
more question and prints the tasks of the page's thread over 50 ms (the browser's own `longtask` entries) and the frames.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from playwright.sync_api import sync_playwright

from causerie.chat.conversations import Book
from causerie.hub import register
from causerie.store import open_store
from causerie.text import train_bpe
from tests.chat.conftest import IMPROVE, TEXT, Script, make_model, start_server

TURN = "## A heading\n\nSome **bold** text, a list:\n\n- one\n- two\n\n```python\ndef f(x):\n    return x\n```\n\n| a | b |\n|---|---|\n| 1 | $5 |\n"
OBSERVE = """() => { window.long = []; window.frames_ = 0;
    new PerformanceObserver((list) => list.getEntries().forEach((one) => window.long.push(one.duration))).observe({ type: 'longtask' });
    const tick = () => { window.frames_ += 1; requestAnimationFrame(tick); }; tick(); }"""


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    turns, tokens = (10, 300) if quick else (100, 2000)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright, open_store(Path(folder)) as store:
        workspace = Path(folder)
        tokenizer = train_bpe([TEXT, TURN * 50], 600)
        register(store, workspace, "demo", make_model(workspace, tokenizer, "a1"), status="promoted")
        book, parent = Book(store, "local"), None
        conversation = book.create("Long")["id"]
        for turn in range(turns):
            parent = book.add(conversation, "user", f"Question {turn}", parent=parent)
            parent = book.add(conversation, "assistant", TURN, parent=parent)
        script = Script(answer=lambda _prompt, _seed: TURN * 200, pause=0.004)
        server, thread = start_server(workspace, store, script, (sys.executable, str(IMPROVE)))
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(base_url=server.url)
        page.goto(f"/#/c/{conversation}")
        page.locator("article").nth(2 * turns - 1).wait_for(state="attached")
        settings = {"system": "", "params": {"max_tokens": tokens}}
        page.request.patch(f"/api/conversations/{conversation}", data={"settings": settings})
        page.reload()
        page.locator("article").nth(2 * turns - 1).wait_for(state="attached")
        page.wait_for_timeout(2500)
        page.evaluate(OBSERVE)
        page.locator("#question").fill("One more")
        page.locator("#question").press("Enter")
        page.get_by_text("Cut at the length limit").wait_for(timeout=180_000)
        found = page.evaluate("[window.long, window.frames_, performance.now()]")
        browser.close()
        server.stop()
        thread.join(20)
    figures = {"turns": turns, "tokens": tokens, "long_tasks": len(found[0]), "longest_ms": max(found[0], default=0)}
    figures["over_100_ms"] = sum(one > 100 for one in found[0])
    print(json.dumps({**figures, "frames": found[1]}))


if __name__ == "__main__":
    main()
