"""How smoothly the page draws beside Gradio's chat: 100 turns, and an answer of 2,000 tokens that grows.

`python bench/page.py [--turns 100] [--tokens 2000] [--quick] [--peer-python PYTHON]` serves both over the same text at
the same pace, opens them in Chromium, asks one more question and prints the tasks of the page's thread over 50 ms (the
browser's own `longtask` entries) until a second after the answer's end, and the frames drawn meanwhile. `--peer-python` (or CAUSERIE_PEER_GRADIO)
is the python of an environment with gradio; without it only our page is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from playwright.sync_api import Page, TimeoutError, sync_playwright

from causerie.chat.conversations import Book
from causerie.hub import register
from causerie.store import open_store
from causerie.text import Tokenizer, train_bpe
from tests.chat.conftest import ARGUMENTS, CHROMIUM, IMPROVE, TEXT, Script, make_model, start_server

TURN = "## A heading\n\nSome **bold** text, a list:\n\n- one\n- two\n\n```python\ndef f(x):\n    return x\n```\n\n| a | b |\n|---|---|\n| 1 | $5 |\n\n"
END = "The very end."
PATIENCE = 75_000
"""Milliseconds after which an answer that still grows is left, and said to be."""
OBSERVE = """() => { window.long = []; window.frames_ = 0; window.began = performance.now();
    new PerformanceObserver((list) => list.getEntries().forEach((one) => window.long.push(one.duration))).observe({ type: 'longtask' });
    const tick = () => { window.frames_ += 1; requestAnimationFrame(tick); }; tick(); }"""


def measure(page: Page, box: str, pace: float) -> dict[str, Any]:
    """Ask one more question in the open page and watch until a second after the answer's end."""
    page.wait_for_timeout(2500)
    page.evaluate(OBSERVE)
    page.locator(box).fill("One more")
    page.locator(box).press("Enter")
    ended = True
    try:
        page.get_by_text(END).wait_for(timeout=PATIENCE)
    except TimeoutError:
        ended = False
    page.wait_for_timeout(1000)
    long, frames, passed = page.evaluate("[window.long, window.frames_, performance.now() - window.began]")
    figures = {
        "longest_ms": max(long, default=0),
        "over_50_ms": len(long),
        "over_100_ms": sum(one > 100 for one in long),
    }
    figures["blocked_ms"] = round(sum(one - 50 for one in long))
    return {
        **figures,
        "frames_per_second": round(frames / passed * 1000, 1),
        "seconds": round(passed / 1000, 1),
        "paced_seconds": pace,
        "ended": ended,
    }


@contextmanager
def ours(workspace: Path, tokenizer: Tokenizer, turns: int, answer: str, pause: float) -> Iterator[tuple[str, str]]:
    """Our page with the long chat: its address, and the chat's."""
    with open_store(workspace) as store:
        register(store, workspace, "demo", make_model(workspace, tokenizer, "a1"), status="promoted")
        book, parent = Book(store, "local"), None
        conversation = book.create("Long")["id"]
        for turn in range(turns):
            parent = book.add(conversation, "user", f"Question {turn}", parent=parent)
            parent = book.add(conversation, "assistant", TURN, parent=parent)
        book.change(conversation, settings={"system": "", "params": {"max_tokens": 8000}})
        script = Script(answer=lambda _prompt, _seed: answer, pause=pause, length=1 << 20)
        server, thread = start_server(workspace, store, script, (sys.executable, str(IMPROVE)))
        yield server.url, f"/#/c/{conversation}"
        server.stop()
        thread.join(20)


@contextmanager
def gradio(python: str, folder: Path, turns: int, pieces: list[str], pause: float) -> Iterator[str]:
    """Gradio's chat with the same: its address."""
    history = [
        {"role": role, "content": content}
        for turn in range(turns)
        for role, content in (("user", f"Question {turn}"), ("assistant", TURN))
    ]
    said = folder / "said.json"
    said.write_text(json.dumps({"history": history, "pieces": pieces, "pause": pause}), encoding="utf-8")
    command = [python, str(Path(__file__).with_name("page_peer.py")), str(said)]
    environment = {**os.environ, "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            yield next((line.strip() for line in process.stdout if line.startswith("http")), "")
        finally:
            process.terminate()


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--peer-python", default=os.environ.get("CAUSERIE_PEER_GRADIO", ""))
    parser.add_argument("--turns", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=2000, help="at the full size Gradio does not end within minutes")
    asked = parser.parse_args()
    turns, tokens, pause = (10, 300, 0.004) if asked.quick else (asked.turns, asked.tokens, 0.004)
    found: dict[str, Any] = {"turns": turns, "tokens": tokens}
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        tokenizer = train_bpe([TEXT, TURN * 50], 600)
        ids = tokenizer.encode(TURN * 200)[: tokens - 10]
        answer = tokenizer.decode(ids) + f"\n\n```\n```\n\n{END}"
        pieces = [tokenizer.decode([id]) for id in tokenizer.encode(answer)]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        pace = len(pieces) * pause
        with ours(folder / "ours", tokenizer, turns, answer, pause) as (url, chat):
            page = browser.new_page(base_url=url)
            page.goto(chat)
            page.locator("article").nth(2 * turns - 1).wait_for(state="attached")
            found["causerie"] = measure(page, "#question", pace)
            print(json.dumps(found), file=sys.stderr)
            page.close()
        if asked.peer_python:
            with gradio(asked.peer_python, folder, turns, pieces, pause) as url:
                page = browser.new_page()
                page.goto(url)
                page.get_by_text(f"Question {turns - 1}", exact=True).wait_for(timeout=120_000)
                found["gradio"] = measure(page, "textarea", pace)
                page.close()
            mine, theirs = found["causerie"], found["gradio"]
            ratios = {key: round(theirs[key] / max(mine[key], 1), 2) for key in ("longest_ms", "blocked_ms", "seconds")}
            found["gradio_over_causerie"] = ratios
        else:
            print("no --peer-python: Gradio's side was not measured", file=sys.stderr)
        browser.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
