"""The loop closes in front of the user: the real server, a model that the demo made, and a browser that votes and
improves it. Nothing is scripted; only what the model says is left open."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from playwright.sync_api import Page, expect, sync_playwright
from sqlalchemy import select

from causerie.hub import get_version, resolve, trace_answer
from causerie.store import exposures, open_store

from .conftest import Taught, copied

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-quic",
]  # fmt: skip
PATIENCE = 60_000
"""Milliseconds that a busy machine may take for what is instant on a quiet one."""
ROUND = 420_000
"""Milliseconds that a whole round of improvement may take there."""
QUESTION = "De quel pays Lima est-elle la capitale ?"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
"""Slow: the demo runs once for this folder, and the round of improvement is a real one."""

needs_chromium = pytest.mark.skipif(not CHROMIUM.exists(), reason="no Chromium at /usr/bin/chromium")


@dataclass(frozen=True)
class Serving:
    """A `causerie serve` that runs: its address, and the workspace behind it."""

    url: str
    workspace: Path

    def get(self, path: str) -> Any:
        response = httpx.get(self.url + path, timeout=60)
        assert response.status_code == 200, response.text
        return response.json()

    @property
    def answering(self) -> str:
        """The version that the registry has answer."""
        with open_store(self.workspace) as store:
            return resolve(store, self.workspace, "demo").name


@pytest.fixture(scope="module")
def serving(taught: Taught, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """The command a newcomer types, on a free port; it must end in order when asked to."""
    workspace = copied(taught.workspace, tmp_path_factory)
    told = workspace.parent / "serve.log"
    command = [sys.executable, "-m", "causerie", "serve", "demo", "--port", "0", "--threads", "1"]
    with (
        told.open("wb") as log,
        subprocess.Popen(
            [*command, "--workspace", str(workspace)], stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}
        ) as process,
    ):
        try:
            yield Serving(_address(told, process), workspace)
        finally:
            process.terminate()
            status = process.wait(60)
    assert status == 0, told.read_text()


def _address(told: Path, process: subprocess.Popen[bytes]) -> str:
    """The page's address, once the server has printed it."""
    for _ in range(1200):
        found = re.search(r"page: (http://\S+)/", told.read_text())
        if found:
            return found[1]
        assert process.poll() is None, told.read_text()
        time.sleep(0.1)
    raise AssertionError("no address within two minutes: " + told.read_text())


@pytest.fixture
def page(serving: Serving) -> Iterator[Page]:
    """A reader; a complaint of the browser, or a request to elsewhere, fails the test."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS, timeout=3 * PATIENCE)
        found = browser.new_page(base_url=serving.url, locale="en-GB", viewport={"width": 1180, "height": 800})
        found.set_default_timeout(PATIENCE)
        complaints: list[str] = []
        found.on("pageerror", lambda error: complaints.append(str(error)))
        found.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        found.on("request", lambda sent: None if sent.url.startswith(serving.url) else complaints.append(sent.url))
        found.goto("/")
        yield found
        browser.close()
    assert complaints == []


WATCH = """() => {
    window.seen = [];
    new MutationObserver(() => {
        const text = [...document.querySelectorAll('article.answer .markdown')].at(-1)?.textContent ?? '';
        if (text && text !== window.seen.at(-1)) window.seen.push(text);
    }).observe(document.body, { childList: true, subtree: true, characterData: true });
}"""
"""Keeps every state of the last answer's text on the page."""


def ask(page: Page, text: str) -> None:
    page.get_by_label("Your message").fill(text)
    page.keyboard.press("Enter")
    expect(page.get_by_text("Answer finished.")).to_be_attached(timeout=PATIENCE)


def shown(page: Page, text: str | re.Pattern[str], timeout: int = PATIENCE) -> None:
    expect(page.get_by_text(text)).to_be_visible(timeout=timeout)


@needs_chromium
def test_a_reader_asks_votes_improves_and_sees_the_verdict(page: Page, serving: Serving, tmp_path: Path) -> None:
    before = serving.answering

    # an answer comes word by word and says who gave it
    page.evaluate(WATCH)
    ask(page, QUESTION)
    answer = page.get_by_role("article", name=before)
    expect(answer.get_by_role("button", name=f"Where {before} comes from")).to_be_visible(timeout=PATIENCE)
    states = page.evaluate("window.seen")
    assert len(states) > 1, states
    assert len(states[0]) < len(states[-1])
    page.screenshot(path=tmp_path / "answer.png")
    answer.get_by_role("button", name="Good answer").click()
    shown(page, "Recorded: a good answer.")

    # two drafts, one chosen
    page.get_by_label("Two drafts").check()
    page.get_by_label("Your message").fill("Hello!")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="A is better").click()
    shown(page, "Recorded: A is better.")
    page.screenshot(path=tmp_path / "drafts.png")
    collected = serving.get("/api/teach?model=demo")["counts"]
    assert (collected["up"], collected["choice"]) == (1, 1)

    # a round, and its verdict in words
    page.get_by_role("link", name="Teach").click()
    page.get_by_role("button", name="Improve", exact=True).click()
    verdict = page.locator(".verdict")
    expect(verdict).to_be_visible(timeout=ROUND)
    page.screenshot(path=tmp_path / "verdict.png", full_page=True)
    after = serving.answering
    promoted = after != before
    told = verdict.inner_text()
    assert f"Promoted: {after} answers now." in told if promoted else f"Refused: {after} goes on answering." in told
    assert re.search(r"improved|got worse|not enough to tell|not shown to stay", told), told
    assert page.get_by_role("row", name=re.compile("Preference for what people chose")).is_visible()
    expect(page.get_by_label("Model", exact=True)).to_contain_text(after, timeout=PATIENCE)

    # the registry, the server and the page agree on who answers now
    round_ = serving.get("/api/improve")
    assert (round_["verdict"]["promoted"], round_["verdict"]["version"]) == (promoted, after)
    assert serving.get("/api/state")["models"][0]["version"] == after
    newest = serving.get("/api/versions?model=demo")["versions"][0]
    assert newest["parents"] == [before]
    assert newest["status"] == ("promoted" if promoted else "refused")
    page.get_by_role("link", name="Chat", exact=True).click()
    page.get_by_role("checkbox", name="Two drafts").uncheck()
    ask(page, "Bonjour !")
    expect(page.get_by_role("article", name=after).last).to_be_visible(timeout=PATIENCE)


def test_an_answer_leads_to_its_weights_parents_and_votes(serving: Serving, taught: Taught) -> None:
    conversation = httpx.post(f"{serving.url}/api/conversations", json={"title": "Trace"}, timeout=60).json()["id"]
    asked = {"conversation": conversation, "model": "demo", "content": QUESTION, "params": {"max_tokens": 12}}
    assert httpx.post(f"{serving.url}/api/chat", json=asked, timeout=60).status_code == 200
    messages = serving.get(f"/api/conversations/{conversation}")["messages"]
    with open_store(serving.workspace) as store:
        row = store.first(select(exposures).where(exposures.c.conversation == conversation))
        assert (row.text, list(row.prompt)) == (messages[1]["content"], [{"role": "user", "content": QUESTION}])
        traced = trace_answer(store, serving.workspace, row.id)
        version = get_version(store, traced.model)
    assert traced.version_key == version.key == row.version_key
    assert traced.model == serving.answering
    assert traced.lineage is not None
    nodes = list(traced.lineage.walk())
    assert {"demo@1"} <= {ref for node in nodes for ref in node.refs}
    assert {"model", "preferences", "shards", "tokenizer", "corpus"} <= {node.kind for node in nodes}
    assert taught.votes <= set(traced.lineage.signal_ids())


CLIENTS: dict[str, Callable[[str], openai.OpenAI]] = {
    "openai": lambda url: openai.OpenAI(base_url=f"{url}/v1", api_key="none", timeout=120),
    "azure": lambda url: openai.AzureOpenAI(
        azure_endpoint=url, api_version="2024-10-21", api_key="none", azure_deployment="demo", timeout=120
    ),
}


@pytest.mark.parametrize("kind", CLIENTS)
def test_the_official_clients_stream_from_the_same_server(kind: str, serving: Serving) -> None:
    messages: Any = [{"role": "user", "content": QUESTION}]
    options: Any = {"model": "demo", "messages": messages, "temperature": 0.0, "max_tokens": 24}
    with CLIENTS[kind](serving.url) as client:
        chunks = list(client.chat.completions.create(**options, stream=True, stream_options={"include_usage": True}))
        whole = client.chat.completions.create(**options)
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert len(pieces) > 1
    assert "".join(pieces) == whole.choices[0].message.content
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert {chunk.model for chunk in chunks} == {whole.model} == {serving.answering}
