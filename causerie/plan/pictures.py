"""Pictures: loss against compute with frontier, intervals and runs; a layout with its memory and its time.

PNG or SVG by matplotlib, loaded when a picture is drawn; beside a picture of losses stands a JSON file of its points,
which the page's Runs view reads.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from causerie.core import CauserieError, need_package, read_json, write_atomic, write_json
from causerie.plan.blueprint import Blueprint
from causerie.plan.config import FitConfig, PictureConfig
from causerie.plan.frontier import frontier
from causerie.plan.hardware import Hardware
from causerie.plan.held import Held
from causerie.plan.law import Fit, fit_from_dict
from causerie.plan.layout import Layout
from causerie.plan.sign import verified
from causerie.plan.step import Step
from causerie.plan.table import read_runs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, ACCENT, GREEN = "#1f2933", "#9fb3c8", "#d64545", "#2f855a"
COLOURS: Final = ("#27496d", "#4f7cac", "#86a8cf", "#c0d6df", "#d64545", "#e8998d", "#f2c14e")
LINES: Final = ("#27496d", "#b7791f", "#2f855a", "#805ad5", "#c05621", "#4f7cac", "#97266d")
NAMES: Final = {
    "weights": "weights", "gradients": "gradients", "optimizer": "optimiser", "gathered": "gathered weights",
    "activations": "activations", "working": "recomputed layer", "logits": "logits",
}  # fmt: skip
TIMES: Final = {
    "matrices": "matrices", "attention": "attention", "elementwise": "memory traffic", "tensor_comm": "tensor messages",
    "context_comm": "context messages", "expert_comm": "expert messages", "pipeline_comm": "stage messages",
    "data_comm": "data messages", "bubble": "bubble", "optimizer": "optimiser",
}  # fmt: skip
TIME_COLOURS: Final = (
    "#27496d", "#4f7cac", "#86a8cf", "#d64545", "#e8998d", "#f2c14e", "#b7791f", "#805ad5", "#c9ced6", "#2f855a",
)  # fmt: skip


def plan_picture(config: PictureConfig) -> dict[str, Any]:
    """Draw loss against compute: the frontier with its interval, runs, predictions and their scores.

    Raises:
        CauserieError: CAU-4303 when a file is no fit or prediction, CAU-4302 for a bad table of runs, CAU-4301 for a
            file name that is neither .png nor .svg, CAU-1008 when matplotlib is not installed.
    """
    data = config.out.with_suffix(".json") if config.out.name else config.out
    for path in (config.law, config.runs, *config.predictions):
        if path is not None and path.absolute() == data.absolute():
            cause = f"the picture's points would take the place of {path}"
            raise CauserieError("CAU-4301", cause, where="out", fix="choose another name for the picture")
    fit = fit_from_dict(read_json(config.law), str(config.law))
    points = loss_points(fit, config)
    figure = _figure(9, 5.6)
    draw_losses(figure.add_subplot(), points)
    figure.subplots_adjust(left=0.08, right=0.985, top=0.97, bottom=0.1)
    save_figure(figure, config.out)
    write_json(data, points)
    drawn = {"runs": len(points["runs"]), "runs_left_out": points["left_out"]}
    return {"picture": str(config.out), "points": str(data), **drawn}


def loss_points(fit: Fit, config: PictureConfig) -> dict[str, Any]:
    """What the picture shows, as plain values: `frontier`, `runs` (and the rows `left_out`), `predictions`."""
    runs: list[dict[str, float]] = []
    left_out: list[dict[str, Any]] = []
    if config.runs:
        table = read_runs(FitConfig(config.runs, skip_bad=True))
        runs = [{"N": n, "D": d, "loss": loss, "flops": 6 * n * d} for n, d, loss in table.values.tolist()]
        left_out = list(table.dropped)
    predictions = [_prediction(path) for path in config.predictions]
    reached = [row["flops"] for row in (*runs, *predictions)] or [6 * fit.largest["nd"]]
    low, high = min(reached) / 2, max(*reached, 6 * fit.largest["nd"]) * 3
    budgets = tuple(np.geomspace(low, high, 60).tolist())
    floor = {"E": fit.law.E, "alpha": fit.law.alpha, "beta": fit.law.beta}
    lines = frontier(fit, budgets)
    return {"law": floor, "frontier": lines, "runs": runs, "left_out": left_out, "predictions": predictions}


def _prediction(path: Path) -> dict[str, Any]:
    stored = read_json(path)
    content = verified(stored, str(path), kind="prediction")
    scores = stored.get("scores", [])
    return {
        "flops": 6 * content["params"] * content["tokens"], "loss": content["loss"], "interval": content["interval"],
        "created": content["created"], "note": content["note"],
        "measured": scores[-1]["measured"] if scores else None,
    }  # fmt: skip


def draw_losses(axes: Axes, points: Mapping[str, Any]) -> None:
    """The picture on given axes."""
    rows = points["frontier"]
    flops = [row["flops"] for row in rows]
    if rows and "loss_interval" in rows[0]:
        band = list(zip(*(row["loss_interval"] for row in rows), strict=True))
        axes.fill_between(flops, band[0], band[1], color=SOFT, alpha=0.35, lw=0, label="90 % interval")
    axes.plot(flops, [row["loss"] for row in rows], color=INK, lw=1.8, label="compute-optimal frontier")
    for place, size in enumerate(sorted({run["N"] for run in points["runs"]})):
        mine = sorted((run["flops"], run["loss"]) for run in points["runs"] if run["N"] == size)
        colour, mark = LINES[place % len(LINES)], "os^vPX"[place % 6]
        axes.plot(*zip(*mine, strict=True), f"{mark}-", ms=5, lw=0.8, color=colour, label=f"{_si(size)} parameters")
    for row in points["predictions"]:
        low, high = row["interval"]
        error = [[row["loss"] - low], [high - row["loss"]]]
        axes.errorbar([row["flops"]], [row["loss"]], yerr=error, fmt="D", ms=6, color=ACCENT, capsize=4, zorder=5,
                      label="predicted before the run")  # fmt: skip
        if row["measured"] is not None:
            axes.plot([row["flops"]], [row["measured"]], "*", ms=14, color=GREEN, zorder=6, label="measured after")
    axes.set_xscale("log")
    axes.set_xlabel("training compute, FLOPs (6 N D)")
    axes.set_ylabel("loss, nats per token")
    axes.grid(True, which="major", color=SOFT, alpha=0.3, lw=0.6)
    axes.legend(frameon=False, fontsize=8.5)


def layout_picture(
    plan: Blueprint, layout: Layout, held: Held, step: Step, machine: Hardware, out: Path
) -> None:  # fmt: skip
    """Draw a layout: its stages and devices, the memory of one device, the time of one update.

    Raises:
        CauserieError: CAU-4301 for a file name that is neither .png nor .svg, CAU-1008 without matplotlib.
    """
    figure = _figure(11, 6.4)
    top, bottom = figure.subplots(2, 1, height_ratios=(1.25, 1))
    _grid(top, layout, machine)
    figure.suptitle(
        f"{plan.name} on {layout.devices:,} {machine.name}: {step.seconds:.2f} s an update, MFU {100 * step.mfu:.0f} %",
        color=INK, fontsize=12,
    )  # fmt: skip
    gib = 1024**3
    memory = [(NAMES[name], value / gib) for name, value in vars(held).items() if value]
    times = [(TIMES[name], getattr(step, name)) for name in TIMES if getattr(step, name) > 0.003 * step.seconds]
    _bars(bottom, memory, times, machine.memory / gib, step.seconds)
    figure.subplots_adjust(left=0.1, right=0.97, top=0.92, bottom=0.04, hspace=0.12)
    save_figure(figure, out)


def _grid(axes: Axes, layout: Layout, machine: Hardware) -> None:
    """Stages from left to right, replicas from top to bottom, tensor neighbours as cells."""
    columns, rows = min(layout.pipeline, 16), min(layout.data, 4)
    cells = layout.tensor * layout.context
    shown = min(cells, 8)
    for column in range(columns):
        for row in range(rows):
            left, low = column * 1.0, -row * 1.0
            for cell in range(shown):
                width = 0.86 / shown
                axes.add_patch(_box(left + 0.07 + cell * width, low + 0.12, width * 0.9, 0.7, COLOURS[column % 4]))
    for column in range(columns):
        number = column if column < columns - 1 or columns == layout.pipeline else layout.pipeline - 1
        axes.text(column + 0.5, 1.02, f"stage {number}", ha="center", color=INK, fontsize=8)
    for row in range(rows):
        number = row if row < rows - 1 or rows == layout.data else layout.data - 1
        axes.text(-0.08, -row + 0.45, f"replica {number}", ha="right", va="center", color=INK, fontsize=8)
    more = []
    if columns < layout.pipeline:
        more.append(f"{columns} of {layout.pipeline} stages")
    if rows < layout.data:
        more.append(f"{rows} of {layout.data} replicas")
    text = f"{layout.words()}; a cell is a device" + (f"; drawn: {', '.join(more)}" if more else "")
    margin = max(0.0, (8 - columns) / 2)
    axes.text(columns / 2, -rows + 0.62, text, ha="center", va="top", color=INK, fontsize=9)
    axes.set_xlim(-0.9 - margin, columns + 0.9 + margin)
    axes.set_ylim(-rows + 0.2, 1.35)
    axes.axis("off")


def _box(x: float, y: float, width: float, height: float, colour: str) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), width, height, facecolor=colour, edgecolor="white", lw=0.6)


def _bars(
    axes: Axes, memory: list[tuple[str, float]], times: list[tuple[str, float]], room: float, seconds: float
) -> None:
    """Two bars from 0 to 1: memory of the fullest device against what it has, time of an update; a key under each."""
    left = 0.0
    for name, size in memory:
        colour = COLOURS[list(NAMES.values()).index(name)]
        axes.barh(1, size / room, left=left / room, color=colour, height=0.3, edgecolor="white")
        left += size
    axes.plot([1, 1], [0.8, 1.2], color=INK, lw=2)
    axes.text(1.0, 1.22, f"{room:.0f} GiB", color=INK, fontsize=8, ha="right", va="bottom")
    _key(axes, 0.76, [(COLOURS[list(NAMES.values()).index(n)], f"{n} {size:.1f} GiB") for n, size in memory])
    start = 0.0
    for name, value in times:
        colour = TIME_COLOURS[list(TIMES.values()).index(name)]
        axes.barh(0, value / seconds, left=start / seconds, color=colour, height=0.3, edgecolor="white")
        start += value
    _key(axes, -0.24, [
        (TIME_COLOURS[list(TIMES.values()).index(n)], f"{n} {value:.2f} s ({100 * value / seconds:.0f} %)")
        for n, value in times
    ])  # fmt: skip
    axes.set_yticks([0, 1], ["time", "memory"])
    axes.tick_params(length=0, labelsize=9, labelcolor=INK)
    axes.set_xticks([])
    axes.set_xlim(0, max(1.02, left / room + 0.02))
    axes.set_ylim(-0.75, 1.5)
    for side in axes.spines.values():
        side.set_visible(False)


def _key(axes: Axes, y: float, entries: list[tuple[str, str]], across: int = 4) -> None:
    """Coloured squares with words, some a row, from a height downwards."""
    for place, (colour, text) in enumerate(entries):
        x, low = place % across / across, y - place // across * 0.17
        axes.plot([x + 0.006], [low], "s", ms=7, color=colour)
        axes.text(x + 0.018, low, text, ha="left", va="center", fontsize=8, color=INK)


def _si(value: float) -> str:
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def _figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise need_package("matplotlib", "train") from error
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, out: Path) -> None:
    """Write a figure to a .png or .svg file, whole or not at all; the same input gives the same bytes.

    Raises:
        CauserieError: CAU-4301 for another ending.
    """
    kind = out.suffix.lstrip(".")
    if kind not in ("png", "svg"):
        raise CauserieError("CAU-4301", f"{out.name} is no picture", where="out", fix="end the name in .png or .svg")
    import matplotlib as mpl

    buffer = io.BytesIO()
    style: dict[Any, Any] = {"svg.hashsalt": "causerie", "svg.fonttype": "path", "font.family": "DejaVu Sans"}
    with mpl.rc_context(style):
        figure.savefig(buffer, format=kind, dpi=130, metadata={"Date": None} if kind == "svg" else None)
    write_atomic(out, buffer.getvalue())
