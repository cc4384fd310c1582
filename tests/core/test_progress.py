"""Progress goes to stderr, in plain lines when it is no terminal."""

from __future__ import annotations

import pytest

from causerie.core import progress, say, track


def test_plain_lines_carry_rate_and_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_SECONDS", 0.0)
    with track("reading", 4, "pages") as tracker:
        tracker.advance(2, loss=1.23456, name="x")
    out, err = capsys.readouterr()
    assert out == ""
    assert "reading: 2/4 pages" in err
    assert "loss 1.235" in err
    assert "name x" in err


def test_say_prints_markup_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    say("[bold]not markup[/bold] 5 %")
    assert "[bold]not markup[/bold] 5 %" in capsys.readouterr().err


def test_work_that_goes_on_shows_what_was_done_before(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_SECONDS", 0.0)
    with track("training", 100, "%", begun=60) as tracker:
        tracker._started -= 10
        tracker.advance(10)
    err = capsys.readouterr().err
    assert "training: 70/100 %" in err
    assert "30 s left" in err
