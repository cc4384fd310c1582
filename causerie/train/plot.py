"""The picture of a run: loss over tokens, validation points beside it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from causerie.core import need_package, read_events, write_atomic

INK, SOFT, ACCENT = "#1f2933", "#9fb3c8", "#d64545"


def loss_curve(run: Path) -> list[dict[str, Any]]:
    """The `step` events of a run, one per step: where a resumed run did a step again, the later one counts."""
    rows = {row["step"]: row for row in read_events(run) if row["event"] == "step"}
    return [rows[step] for step in sorted(rows)]


def smooth(values: Sequence[float], half_life: float) -> list[float]:
    """Straight lines fitted around every value, weights halving every `half_life` values to both sides.

    An average of what came before lags behind a falling curve, and a plain average around a value is cut off at the
    curve's ends, where losses fall the fastest; a fitted line does neither (Cleveland 1979, doi:10.2307/2286407).
    """
    decay = 0.5 ** (1 / max(half_life, 1e-9))
    before, after = _weighted_sums(values, decay), _weighted_sums(values[::-1], decay)[::-1]
    out = []
    for value, left, right in zip(values, before, after, strict=True):
        # the value itself is in both sums; distances to the left count as negative
        weight, square = left[0] + right[0] - 1, left[2] + right[2]
        first, level, slope = right[1] - left[1], left[3] + right[3] - value, right[4] - left[4]
        spread = weight * square - first * first
        out.append((square * level - first * slope) / spread if spread > 0 else value)
    return out


def _weighted_sums(values: Sequence[float], decay: float) -> list[tuple[float, float, float, float, float]]:
    """Up to each value: sums of w, w d, w d², w y and w d y with weights w = decay^d at distance d."""
    w = wd = wdd = wy = wdy = 0.0
    out = []
    for value in values:
        w, wd, wdd, wy, wdy = (
            1 + decay * w, decay * (wd + w), decay * (wdd + 2 * wd + w), value + decay * wy, decay * (wdy + wy),
        )  # fmt: skip
        out.append((w, wd, wdd, wy, wdy))
    return out


def plot_loss(
    run: Path, folder: Path, title: str, points: Sequence[tuple[int, float]], points_label: str, per_token: bool = True
) -> None:
    """Write `loss.svg` and `loss.png` into `folder`.

    Args:
        run: the run's folder, whose events are drawn: training loss per step, thin, and smoothed, thick.
        folder: where the pictures go.
        title: what was trained.
        points: (tokens trained on, value) of the evaluations, drawn on an axis of their own.
        points_label: that axis' label, with its unit.
        per_token: whether the loss is in nats per token (else per pair).

    Raises:
        CauserieError: CAU-1008 when matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise need_package("matplotlib", "train") from error
    rows = loss_curve(run)
    tokens, losses = [row["tokens"] for row in rows], [row["loss"] for row in rows]
    style: dict[Any, Any] = {
        "svg.hashsalt": "causerie",
        "svg.fonttype": "path",
        "font.family": "DejaVu Sans",
        "text.color": INK,
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.plot(tokens, losses, color=SOFT, linewidth=0.8, alpha=0.7, label="training loss, each step")
        axes.plot(
            tokens, smooth(losses, max(2.0, len(losses) / 120)), color=INK, linewidth=2, label="training loss, smoothed"
        )
        axes.set_ylabel("training loss (nats per token)" if per_token else "training loss (nats per pair)")
        axes.set_xlabel("tokens trained on")
        axes.xaxis.set_major_formatter(mpl.ticker.EngFormatter())
        axes.set_title(title, loc="left", color=INK, fontsize=12)
        axes.grid(axis="y", color="#e4e7eb")
        axes.spines[["top", "right"]].set_visible(False)
        _draw_points(axes, points, points_label)
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
        for name, extra in (("loss.svg", {"metadata": {"Date": None}}), ("loss.png", {"dpi": 120})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=name[5:], **extra)
            write_atomic(folder / name, buffer.getvalue())


def _draw_points(axes: Any, points: Sequence[tuple[int, float]], label: str) -> None:
    if not points:
        return
    other = axes.twinx()
    other.plot(*zip(*points, strict=True), color=ACCENT, marker="o", linewidth=1, linestyle=":", label=label)
    other.set_ylabel(label, color=ACCENT)
    other.tick_params(axis="y", colors=ACCENT)
    other.spines[["top", "left"]].set_visible(False)
    for tokens, value in (points[0], points[-1]):
        other.annotate(f"{value:.3f}", (tokens, value), (0, 7), textcoords="offset points", color=ACCENT, ha="center")
    other.margins(y=0.15)
