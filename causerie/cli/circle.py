"""`causerie demo`, `causerie serve`, `causerie improve`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from causerie.chat import ServeConfig, serve_page
from causerie.cli.flags import command_for
from causerie.demo import DemoConfig
from causerie.loop import ImproveConfig


def _demo(config: DemoConfig, workspace: Path) -> Any:
    from causerie.demo import run_demo

    return run_demo(config, workspace)


def _serve_demo(config: DemoConfig, workspace: Path, summary: dict[str, Any]) -> None:
    from causerie.demo import serve_demo

    if config.serve:
        serve_demo(config, workspace, summary["served"])


def _improve(config: ImproveConfig, workspace: Path) -> Any:
    from causerie.loop import improve as turn
    from causerie.loop import keep_improving

    return keep_improving(config, workspace) if config.schedule else turn(config, workspace)


def _verdict(result: Any) -> str:
    if result is None:
        return "no round was turned"
    return (
        f"{result.why}\n{result.model} is served by {result.version}; candidate: {result.candidate or 'not registered'}"
    )


demo = command_for(
    DemoConfig, _demo, "The whole circle, small and offline, then the page.", say=lambda _: "", then=_serve_demo
)
serve = command_for(
    ServeConfig, serve_page, "Serve the page and the OpenAI-shaped API.", positional=("models",), say=lambda _: ""
)
improve = command_for(
    ImproveConfig,
    _improve,
    "One turn of the loop: feedback, candidate, gate, verdict.",
    positional=("model",),
    say=_verdict,
    finding=lambda result: "" if result is None or result.promoted or result.canary else "the incumbent stays",
)
