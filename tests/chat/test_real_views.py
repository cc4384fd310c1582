"""Teach, Runs and Admin, and the door, in Chromium with real engines behind the page."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import select

from causerie.chat import accounts as accounts_module
from causerie.chat.accounts import Accounts
from causerie.chat.oidc import Provider
from causerie.chat.signin import Door
from causerie.core import open_run, write_artifact
from causerie.hub import promote, register
from causerie.infer import EngineConfig
from causerie.loop import CanaryConfig, running_canary, start_canary
from causerie.serve import EnginePool
from causerie.store import open_store, usage
from tests.waiting import wait_for

from .conftest import IMPROVE, RealServed, ask, needs_chromium, real_server, start_server
from .test_real_chat import short, shown
from .test_signin import FakeProvider, provider

__all__ = ["provider"]

pytestmark = needs_chromium

ENGINE = 200_000
"""Milliseconds that another engine may take to start where much else runs: its process loads torch."""


def metered(page: Page, served: RealServed, rows: int) -> None:
    """Wait for so many rows of usage: they are written in groups, a moment after the answer."""
    wait_for(lambda: page.wait_for_timeout(50) or len(served.store.read(select(usage))) >= rows)


@pytest.fixture(autouse=True)
def _as_before(request: pytest.FixtureRequest) -> Iterator[None]:
    """demo@2 answers again, whatever a test promoted."""
    real: RealServed | None = request.getfixturevalue("real") if "real" in request.fixturenames else None
    yield
    if real is not None:
        (real.workspace / "improve-verdict").unlink(missing_ok=True)
        real.send("POST", "/api/rollback", {"version": "demo@2"})


def test_a_round_shows_its_progress_its_gate_and_the_way_back(live: Page, real: RealServed) -> None:
    short(live)
    ask(live, "Hello")
    live.get_by_role("button", name="Good answer").click()
    expect(live.get_by_text("Recorded: a good answer.")).to_be_visible()
    live.get_by_role("link", name="Teach").click()
    expect(live.get_by_role("row", name="Thumbs up 1 1")).to_be_visible()
    expect(live.get_by_text(re.compile(r"more before the next round can say much"))).to_be_visible()
    live.get_by_role("button", name="Improve").click()
    expect(live.get_by_text("Training a candidate")).to_be_visible()
    verdict = live.locator(".verdict")
    expect(verdict).to_contain_text(re.compile(r"Promoted: demo@\d+ answers now."), timeout=ENGINE)
    promoted = re.findall(r"demo@\d+", verdict.inner_text())[0]
    expect(live.get_by_role("img", name=re.compile("Training loss from"))).to_be_visible()
    gate = live.get_by_role("region", name="The gate").first
    expect(
        gate.get_by_role("row", name=re.compile(r"Preference for what people chose.*\+0.012 … \+0.097"))
    ).to_be_visible()
    expect(live.get_by_label("Model", exact=True)).to_contain_text(promoted)
    live.get_by_role("link", name="Chat", exact=True).click()
    ask(live, "And now?")
    expect(live.get_by_role("article", name=promoted)).to_be_visible()
    live.get_by_role("link", name="Teach").click()
    live.get_by_role("button", name="Go back to demo@2").click()
    expect(live.get_by_text("demo@2 answers now.")).to_be_visible(timeout=ENGINE)
    live.get_by_role("button", name=f"Where {promoted} comes from").click()
    expect(live.get_by_role("dialog").get_by_role("button", name="demo@2")).to_be_visible()


def test_a_round_can_be_stopped(live: Page, real: RealServed) -> None:
    (real.workspace / "improve-verdict").write_text("waits")
    live.get_by_role("link", name="Teach").click()
    live.get_by_role("button", name="Improve").click()
    expect(live.get_by_text("Training a candidate")).to_be_visible()
    expect(live.get_by_text(re.compile(r"step 30 · [\d.]+ (steps a second|seconds a step) · about"))).to_be_visible()
    live.get_by_role("button", name="Stop", exact=True).click()
    expect(live.get_by_text("Stopped; press Improve to go on")).to_be_visible()


def test_while_a_candidate_is_on_trial_answers_are_judged_blind(
    live: Page, real: RealServed, weights: list[Path]
) -> None:
    with write_artifact(
        real.workspace, "model", "demo", f"{time.time_ns():x}".ljust(64, "0"), inputs={"base": "b2" * 32}
    ) as draft:
        for file in weights[0].iterdir():
            (draft.path / file.name).write_bytes(file.read_bytes())
    assert draft.artifact is not None
    candidate = register(real.store, real.workspace, "demo", draft.artifact, parents=["demo@2"]).ref
    start_canary(real.store, candidate, CanaryConfig(share=0.5))
    short(live)
    ask(live, "Hello")  # the server looks at the trials
    wait_for(lambda: candidate in [row["id"] for row in real.get("/v1/models")["data"]])
    live.keyboard.press("Alt+n")
    ask(live, "Hello")
    answer = live.locator("article.answer")
    expect(answer.get_by_text("version hidden until judged")).to_be_visible()
    assert shown(real)[1]["exposure"]["version"] is None
    answer.get_by_role("button", name="Good answer").click()
    expect(answer.get_by_role("button", name=re.compile(r"Where demo@\d+ comes from"))).to_be_visible()
    live.get_by_role("link", name="Teach").click()
    trial = live.get_by_role("region", name="Trial")
    expect(trial).to_contain_text(
        f"{candidate} passed the gate and answers 50 % of the conversations, demo@2 the others."
    )
    expect(trial.get_by_role("img", name=f"50 % of the conversations are answered by {candidate}")).to_be_visible()
    trial.get_by_role("button", name="End the trial").click()
    expect(live.get_by_text(f"The trial of {candidate} was ended.")).to_be_visible()
    expect(trial).to_be_hidden()
    assert running_canary(real.store, "demo") is None
    assert candidate not in [row["id"] for row in real.get("/v1/models")["data"]]


def test_a_run_shows_curves_samples_its_prediction_and_the_data(live: Page, real: RealServed) -> None:
    with write_artifact(real.workspace, "corpus", "sea", "c0" * 32) as corpus:
        corpus.metrics.update(documents_in=9, documents_kept=7)
        (corpus.path / "report.html").write_text(
            "<title>Corpus</title><style>h1{color:red}</style><h1>Seven pages</h1><script>alert(1)</script>"
        )
    assert corpus.artifact is not None
    with open_run(real.workspace, "pretrain", "small", "d4" * 32, {"corpus": str(corpus.artifact.path)}) as run:
        for step in range(40):
            run.log("step", step=step, loss=3 - step / 40, bits_per_byte=1.5, peak_share=0.4)
        run.log("sample", step=20, text="The sea & <b>the sky</b>")
    score = {
        "run": "d4" * 32,
        "measured": 2.02,
        "relative_error": -0.0098,
        "within_interval": True,
        "made_before_run": True,
    }
    said = {"loss": 2.04, "interval": [1.9, 2.1], "created": "2026-11-01", "scores": [score]}
    (real.workspace / "predictions").mkdir(exist_ok=True)
    (real.workspace / "predictions" / "p.json").write_text(json.dumps(said))
    live.get_by_role("link", name="Runs").click()
    card = live.get_by_role("article", name="pretrain-small-d4d4d4d4")
    expect(card).to_contain_text("Predicted before the run: 2.040 (1.900 to 2.100). Measured: 2.020 (−0.98\u00a0%).")
    expect(card).to_contain_text("within the interval")
    card.get_by_role("link").click()
    for name in ("Loss (nats per token)", "Bits per byte", "Share of the measured peak (MFU)"):
        expect(live.get_by_role("img", name=re.compile(re.escape(name)))).to_be_visible()
    expect(live.get_by_text("The sea & <b>the sky</b>")).to_be_visible()
    expect(live.get_by_text("7 of 9 documents kept")).to_be_visible()
    report = httpx.get(real.url + "/api/reports/" + corpus.artifact.path.name)
    assert report.headers["content-security-policy"].startswith("default-src 'none'")
    assert "sandbox" in report.headers["content-security-policy"]
    with live.expect_popup() as popup:
        live.get_by_role("link", name="Report of sea").click()
    expect(popup.value.get_by_role("heading", name="Seven pages")).to_have_css("color", "rgb(255, 0, 0)")


def test_usage_and_costs_are_charted_by_the_price_that_was_set(live: Page, real: RealServed) -> None:
    live.get_by_role("link", name="Admin").click()
    live.get_by_role("button", name="Prices").click()
    live.get_by_label("Model", exact=True).last.select_option("other")
    live.get_by_label("Read, per million").fill("2000")
    live.get_by_label("Written, per million").fill("500000")
    live.get_by_role("button", name="Set this price").click()
    expect(live.get_by_role("dialog")).to_contain_text("€2,000.00 read, €500,000.00 written")
    live.keyboard.press("Escape")
    live.wait_for_timeout(1200)  # a price holds from the next second on
    live.get_by_role("link", name="Chat", exact=True).click()
    live.get_by_label("Model", exact=True).select_option("other")
    short(live, 10)
    known = len(real.store.read(select(usage)))
    ask(live, "Hello")
    metered(live, real, known + 1)
    live.get_by_role("link", name="Admin").click()
    row = live.get_by_role("region", name="By model").get_by_role("row", name="other@1")
    expect(row).to_contain_text(re.compile(r"€\d"))
    expect(live.get_by_role("img", name=re.compile("Cost by day: €"))).to_be_visible()
    expect(live.get_by_role("region", name="By whom").get_by_role("row", name="this computer")).to_be_visible()
    bill = real.get("/v1/organization/invoice?start_time=0")["totals"]["eur"]
    assert row.get_by_role("cell").last.inner_text() == f"€{bill:,.2f}"
    expect(live.get_by_role("region", name="Audit log").first).to_contain_text("price.created")


@pytest.fixture(scope="module")
def signed(weights: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServed]:
    """A server that people sign in to."""
    with real_server(tmp_path_factory.mktemp("signed"), weights, signed=True) as found:
        yield found


def test_people_sign_in_ask_and_are_counted(
    browser: Browser, signed: RealServed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts_module, "DAY", 1e12)  # a day that does not end while this test asks
    assert signed.accounts is not None
    context = browser.new_context(base_url=signed.url, locale="en-GB")
    page = context.new_page()
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto(f"/#/first/{signed.accounts.code}")
    page.get_by_label("Name").fill("Ada")
    page.get_by_label("Password").fill("correct horse")
    page.get_by_role("button", name="Create the account").click()
    short(page)
    ask(page, "Hello")
    metered(page, signed, 1)
    page.get_by_role("link", name="Admin").click()
    expect(page.get_by_role("region", name="By whom").get_by_role("row", name="Ada")).to_be_visible()
    page.get_by_role("button", name="Add an account").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("Grace")
    dialog.get_by_label("Password").fill("correct horse")
    dialog.get_by_role("button", name="Add an account").click()
    page.get_by_label("Tokens a day for Grace").fill("1")
    page.get_by_label("Tokens a day for Grace").press("Enter")
    page.get_by_role("button", name="Sign out (Ada)").click()
    page.get_by_label("Name").fill("Grace")
    page.get_by_label("Password").fill("correct horse")
    page.keyboard.press("Enter")
    short(page)
    expect(page.get_by_role("link", name="Admin")).to_have_count(0)
    ask(page, "Hello")
    metered(page, signed, 2)
    page.get_by_label("Your message").fill("Again")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("today's 1 tokens are used up")
    refused = context.request.get("/v1/organization/costs?start_time=0", headers={"sec-fetch-site": "same-origin"})
    assert refused.status == 401, "a member's cookie opens nothing of the API"
    context.close()


def test_an_identity_provider_brings_somebody_in(
    browser: Browser, provider: FakeProvider, weights: list[Path], tmp_path: Path
) -> None:
    workspace = tmp_path / "oidc"
    with open_store(workspace) as store:
        with write_artifact(workspace, "model", "demo", "a1" * 32) as draft:
            for file in weights[0].iterdir():
                (draft.path / file.name).write_bytes(file.read_bytes())
        assert draft.artifact is not None
        promote(store, register(store, workspace, "demo", draft.artifact).ref)
        Accounts(store).create("Ada", "correct horse", "admin")
        door = Door(Accounts(store), Provider(provider.url, "causerie", "secret"))
        pool = EnginePool(config=EngineConfig(threads=1, cache_mb=16))
        server, thread = start_server(workspace, store, None, (sys.executable, str(IMPROVE)), door, pool=pool)
        page = browser.new_page(base_url=server.url, locale="en-GB")
        page.goto("/")
        page.get_by_role("link", name="Sign in with your organisation").click()
        expect(page.get_by_text("What shall we talk about?")).to_be_visible()
        expect(page.get_by_role("button", name="Sign out (grace)")).to_be_visible()
        page.close()
        server.stop()
        thread.join(30)
