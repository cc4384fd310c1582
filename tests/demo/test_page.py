"""The loop closes in front of the user: the real server, a model that the demo made, and a browser that votes and
improves it. Nothing is scripted; only what the model says is left open."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from playwright.sync_api import Page, expect, sync_playwright
from sqlalchemy import select

from causerie.hub import AnswerTrace, get_version, resolve, trace_answer
from causerie.store import exposures, open_store, signals

from .conftest import LEARN, address_told, copied, imported_votes, with_choices

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
def serving(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """The command a newcomer types, on a free port; it must end in order when asked to.

    There are votes to learn from already; rounds take their settings from the environment, as any command does.
    """
    workspace = with_choices(copied(finished, tmp_path_factory))
    settings = {f"CAUSERIE_IMPROVE_{name.upper()}": value for name, value in {**LEARN, "canary": "0"}.items()}
    told = workspace.parent / "serve.log"
    command = [sys.executable, "-m", "causerie", "serve", "demo", "--port", "0", "--threads", "1"]
    with (
        told.open("wb") as log,
        subprocess.Popen(
            [*command, "--workspace", str(workspace)],
            stderr=log,
            env={**os.environ, **settings, "OMP_NUM_THREADS": "1"},
        ) as process,
    ):
        try:
            yield Serving(address_told(told, process), workspace)
        finally:
            process.terminate()
            status = process.wait(60)
    assert status == 0, told.read_text()


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
    states = page.evaluate("window.seen")  # a quiet machine may show a short answer at once
    assert states, "the answer never showed"
    assert len(states[0]) <= len(states[-1]), states
    expect(answer.locator(".markdown")).to_have_text(states[-1])
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

    # a round, and its verdict in words: the version changes in front of the reader
    page.get_by_role("link", name="Teach").click()
    page.get_by_role("button", name="Improve", exact=True).click()
    verdict = page.locator(".verdict")
    expect(page.get_by_role("button", name="Stop", exact=True)).to_be_visible(timeout=PATIENCE)
    expect(verdict).to_be_hidden()  # the demo's own verdict stood there until now
    expect(verdict).to_be_visible(timeout=ROUND)
    page.screenshot(path=tmp_path / "verdict.png")
    after = serving.answering
    assert after != before, verdict.inner_text()
    expect(verdict).to_contain_text(f"Promoted: {after} answers now.")
    expect(verdict).to_contain_text(re.compile(r"Preference for what people chose.*: improved \(\+0\."))
    expect(page.get_by_role("row", name=re.compile("Preference for what people chose.*passed"))).to_be_visible()
    expect(page.get_by_label("Model", exact=True)).to_contain_text(after, timeout=PATIENCE)

    # the registry, the server and the page agree on who answers now
    told = serving.get("/api/improve")["verdict"]
    assert (told["promoted"], told["version"]) == (True, after)
    assert serving.get("/api/state")["models"][0]["version"] == after
    assert serving.get("/api/versions?model=demo")["versions"][0]["parents"] == [before]
    page.get_by_role("link", name="Chat", exact=True).click()
    page.get_by_role("checkbox", name="Two drafts").uncheck()
    ask(page, "Bonjour !")
    expect(page.get_by_role("article", name=after)).to_be_visible(timeout=PATIENCE)

    first, *drafts, last = answers(serving.workspace)
    assert [traced.model for traced in (first, *drafts, last)] == [before, before, before, after]
    leads_to_parents_and_votes(first, last, serving.workspace)


def answers(workspace: Path) -> list[AnswerTrace]:
    """What is known of every answer that the page showed, oldest first."""
    with open_store(workspace) as store:
        rows = store.read(select(exposures.c.id).where(exposures.c.user == "local").order_by(exposures.c.created))
        return [trace_answer(store, workspace, row.id) for row in rows]


def leads_to_parents_and_votes(first: AnswerTrace, last: AnswerTrace, workspace: Path) -> None:
    """From an answer to its weights, from those to the version before, the pages, and every vote that was used."""
    assert first.lineage is not None
    assert last.lineage is not None
    with open_store(workspace) as store:
        assert [get_version(store, traced.model).key for traced in (first, last)] == [
            first.version_key,
            last.version_key,
        ]
        said = {row.id for row in store.read(select(signals.c.id).where(signals.c.user == "local"))}
    nodes = list(last.lineage.walk())
    assert nodes[0].key == last.version_key
    assert (first.version_key, "model") in {(node.key, node.role) for node in nodes}
    assert {"model", "preferences", "shards", "tokenizer", "corpus"} <= {node.kind for node in nodes}
    votes = set(last.lineage.signal_ids())
    assert len(said) == 2
    assert said <= votes
    assert imported_votes(workspace, last.model) <= votes
    assert not votes & set(first.lineage.signal_ids())


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
