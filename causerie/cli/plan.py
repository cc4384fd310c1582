"""`causerie plan ...`: count, lay out, fit, predict, train the ladder, score, draw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cyclopts import App

from causerie.cli.flags import command_for, show
from causerie.plan import (
    CountConfig,
    DryrunConfig,
    FitConfig,
    FrontierConfig,
    GapConfig,
    LadderConfig,
    LayoutConfig,
    PictureConfig,
    PlanConfig,
    PredictConfig,
    ScoreConfig,
    TaskConfig,
    plan_count,
    plan_dryrun,
    plan_fit,
    plan_frontier,
    plan_gap,
    plan_ladder,
    plan_layout,
    plan_models,
    plan_picture,
    plan_predict,
    plan_score,
    plan_task,
    plan_write,
)

app = App(name="plan", help="Count, lay out, fit, predict before paying.", result_action="return_value")


def _without_workspace(function: Any) -> Any:
    def run(config: Any, _workspace: Path) -> Any:
        return function(config)

    return run


def _fit_words(result: dict[str, Any]) -> str:
    """A fit for people: without the resampled laws."""
    law = ", ".join(f"{name} {value:.4g}" for name, value in result["law"].items())
    lines = [f"{result['form']}: {law}", f"  runs: {result['rows']}, scatter {100 * result['scatter']:.2f} %"]
    lines += [f"  {k}: {low:.4g} to {high:.4g} (90 %)" for k, (low, high) in result["intervals_90"].items()]
    lines += [f"  left out: {row}" for row in result["dropped_rows"]]
    return "\n".join(lines)


def _task_words(result: dict[str, Any]) -> str:
    return f"{result['form']}: eps {result['eps']:.4g}, k {result['k']:.4g}, gamma {result['gamma']:.4g}"


def _layout_words(result: dict[str, Any]) -> str:
    """A layout for people."""
    gib, step, held = 1024**3, result["step"], result["memory"]
    parts = ", ".join(f"{k} {100 * v:.1f} %" for k, v in result["shares"].items() if v > 0.001)
    lines = [
        f"{result['model']} on {result['devices']} {result['hardware']}: {result['words']}",
        f"  {step['seconds']:.3f} s an update, MFU {100 * step['mfu']:.1f} %, "
        f"{step['tokens_per_second_per_device']:,.0f} tokens/s a device",
        f"  time: {parts}",
        f"  memory: {held['total'] / gib:.1f} of {held['of'] / gib:.0f} GiB" + ("" if result["fits"] else ": too much"),
    ]
    if "search" in result:
        lines.append(f"  searched: {result['search']}")
    if run := result.get("run"):
        lines.append(
            f"  run: {run['days']:,.1f} days, {run['device_hours']:,.0f} device hours, {run['megawatt_hours']:,.1f} MWh"
            f", ${run['dollars']:,.0f}, {run['failures']:.0f} failures, goodput {100 * run['goodput']['share']:.1f} %"
        )
    return "\n".join(lines)


def _too_big(result: dict[str, Any]) -> str:
    return "" if result["fits"] else "the layout does not fit in the devices' memory"


def _frontier_words(result: dict[str, Any]) -> str:
    lines = ["      FLOPs   parameters       tokens     loss"]
    for row in result["frontier"]:
        lines.append(f"  {row['flops']:9.2e}  {row['params']:11.4g}  {row['tokens']:11.4g}  {row['loss']:7.4f}")
        if extra := row.get("with_inference"):
            lines.append(
                f"    inference paid: {extra['params']:.4g} parameters, {extra['tokens']:.4g} tokens, saves "
                f"{100 * extra['saves']:.1f} % of all FLOPs"
            )
        if extra := row.get("overtrained"):
            lines.append(f"    over-trained: {extra['params']:.4g} parameters, loss {extra['loss']:.4f}")
    return "\n".join(lines)


def _gap_words(result: dict[str, Any]) -> str:
    low, high = result.get("behind_interval", (result["behind"], result["behind"]))
    return f"{result['words']}; {100 * result['level']:.0f} % interval {low:.3g} to {high:.3g} times"


def _ladder_words(result: dict[str, Any]) -> str:
    lines = [f"  {row['run']}: N {row['N']:,}, D {row['D']:,}, loss {row['loss']:.4f}" for row in result["runs"]]
    prediction = result["prediction"]
    low, high = prediction["interval"]
    lines.append(f"predicted {prediction['loss']:.4f} ({low:.4f} to {high:.4f}) on {prediction['created']}")
    if score := result.get("score"):
        inside = "inside" if score["within_interval"] else "outside"
        lines.append(
            f"measured {score['measured']:.4f}: error {100 * score['relative_error']:+.2f} %, {inside} the interval"
        )
    return "\n".join(lines)


def _models_words(result: dict[str, Any]) -> str:
    lines = [
        f"  {row['name']:<18} {row['parameters'] / 1e9:10.3f} G, a token meets {row['matrix_parameters'] / 1e9:9.3f} G"
        for row in result["models"]
    ]
    kinds = ", ".join(row["name"] for row in result["hardware"])
    return "\n".join([*lines, f"hardware: {kinds}"])


_plain = _without_workspace
_COMMANDS: tuple[tuple[str, Any, Any, str, dict[str, Any]], ...] = (
    ("count", CountConfig, _plain(plan_count), "Parameters, FLOPs and memory of a model.", {"positional": ("model",)}),
    ("memory", CountConfig, _plain(plan_count), "The same as count.", {"positional": ("model",)}),
    (
        "layout", LayoutConfig, _plain(plan_layout), "Spread a model over devices: the given layout, or the best.",
        {"positional": ("model",), "say": _layout_words, "finding": _too_big},
    ),
    (
        "fit", FitConfig, _plain(plan_fit), "Fit L = E + A/N^α + B/D^β to a table of runs.",
        {"say": _fit_words, "positional": ("runs",)},
    ),
    ("task", TaskConfig, _plain(plan_task), "Fit a curve from loss to a task's error.", {"say": _task_words}),
    (
        "frontier", FrontierConfig, _plain(plan_frontier), "What budgets buy; over-training; inference paid.",
        {"say": _frontier_words, "positional": ("law",)},
    ),
    ("predict", PredictConfig, plan_predict, "Write a dated, signed prediction before a run.", {}),
    ("score", ScoreConfig, plan_score, "Score a prediction with the run's result.", {"positional": ("prediction",)}),
    (
        "ladder", LadderConfig, plan_ladder, "Train a small series, predict the large run, train it, score it.",
        {"say": _ladder_words},
    ),
    (
        "gap", GapConfig, _plain(plan_gap), "How much compute model A is behind model B, from their losses.",
        {"say": _gap_words, "positional": ("a", "b")},
    ),
    ("dryrun", DryrunConfig, _plain(plan_dryrun), "Run one rank with fake tensors; count bytes and messages.",
     {"positional": ("model",)}),
    ("picture", PictureConfig, _plain(plan_picture), "Draw loss against compute.", {}),
    ("write", PlanConfig, _plain(plan_write), "Write a model's complete plan.", {"positional": ("model",)}),
)  # fmt: skip

for _name, _config, _function, _doc, _more in _COMMANDS:
    app.command(command_for(_config, _function, _doc, **_more), name=_name)


@app.command(name="models")
def models(*, json: bool = False) -> None:
    """Named models and hardware.

    Args:
        json: print one JSON object as the last line of stdout.
    """
    show(plan_models(), json, _models_words)
