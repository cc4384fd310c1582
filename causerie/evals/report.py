"""The report of an evaluation: figures with intervals, differences to another model, a table for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from causerie.core import CauserieError
from causerie.evals.results import Compared, Item, Metric, SuiteResult, estimate
from causerie.evals.statistics import Difference, Interval


@dataclass(frozen=True)
class Figure:
    """One metric of one model with its interval."""

    suite: str
    metric: str
    better: str
    interval: Interval
    about: str


@dataclass(frozen=True)
class EvalReport:
    """What an evaluation found; every item's values are in `items.jsonl` beside it."""

    path: Path
    """Folder of the evaluation's artifact."""
    model: str
    against: str | None
    figures: tuple[Figure, ...]
    against_figures: tuple[Figure, ...]
    compared: tuple[Compared, ...]
    """Paired differences model − against."""
    counts: dict[str, dict[str, int]]
    """Suite → what was cut or left out."""

    def value(self, suite: str, metric: str) -> float:
        """A figure of the model.

        Raises:
            KeyError: when it was not measured.
        """
        return _find(self.figures, suite, metric).interval.value

    def against_value(self, suite: str, metric: str) -> float:
        """The same figure of the other model.

        Raises:
            KeyError: when it was not measured.
        """
        return _find(self.against_figures, suite, metric).interval.value

    def as_dict(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return {**asdict(self), "path": str(self.path)}

    def table(self) -> str:
        """The report as an aligned text table."""
        head = ["suite", "metric", "value", "interval", "items"]
        rows = [
            [f.suite, f.metric, f"{f.interval.value:.4g}", _ends(f.interval), str(f.interval.n)] for f in self.figures
        ]
        if self.compared:
            head += ["against", "difference", "interval", "p (Holm)"]
            differences = {(row.suite, row.metric): row for row in self.compared}
            for row, figure in zip(rows, self.figures, strict=True):
                row += self._difference(figure, differences.get((figure.suite, figure.metric)))
        lines = _aligned([head, *rows])
        notes = [f"{s}: {name} {count}" for s, found in self.counts.items() for name, count in found.items() if count]
        return "\n".join([*lines, *notes])

    def _difference(self, figure: Figure, found: Compared | None) -> list[str]:
        if found is None:
            return ["-", "-", "-", "-"]
        other = self.against_value(figure.suite, figure.metric)
        return [f"{other:.4g}", f"{found.difference.value:+.4g}", _ends(found.difference), f"{found.holm_p:.3g}"]


def figures_of(results: Iterable[SuiteResult], *, seed: int, confidence: float) -> tuple[Figure, ...]:
    """Every metric of every suite with its interval; metrics that no item carries are left out."""
    return tuple(
        Figure(
            result.suite,
            metric.name,
            metric.better,
            estimate(result, metric.name, seed=seed, confidence=confidence),
            metric.about,
        )
        for result in results
        for metric in result.metrics
        if any(metric.name in item.values for item in result.items)
    )


def item_rows(results: Iterable[SuiteResult]) -> Iterable[dict[str, Any]]:
    """Rows of `items.jsonl`."""
    return ({"suite": result.suite, **asdict(item)} for result in results for item in result.items)


def suite_to_dict(result: SuiteResult) -> dict[str, Any]:
    """A suite's result as plain JSON values."""
    return asdict(result)


def suite_from_dict(value: Mapping[str, Any]) -> SuiteResult:
    """The inverse of `suite_to_dict`."""
    metrics = tuple(Metric(**metric) for metric in value["metrics"])
    return SuiteResult(value["suite"], metrics, tuple(Item(**item) for item in value["items"]), value["counts"])


def report_from_dict(value: Mapping[str, Any], path: Path) -> EvalReport:
    """A report read back from `report.json`.

    Raises:
        CauserieError: CAU-1003 when it is not one.
    """
    try:
        compared = tuple(
            Compared(**{**row, "difference": Difference(**row["difference"])}) for row in value["compared"]
        )
        figures, others = (
            tuple(Figure(**{**row, "interval": Interval(**row["interval"])}) for row in value[name])
            for name in ("figures", "against_figures")
        )
        return EvalReport(path, value["model"], value["against"], figures, others, compared, value["counts"])
    except (KeyError, TypeError) as error:
        raise CauserieError("CAU-1003", f"not a report: {error}", where=str(path), fix="delete the folder") from error


def _find(figures: Iterable[Figure], suite: str, metric: str) -> Figure:
    found = next((f for f in figures if (f.suite, f.metric) == (suite, metric)), None)
    if found is None:
        raise KeyError(f"{suite}.{metric} was not measured")
    return found


def _ends(interval: Interval | Difference) -> str:
    if interval.low is None or interval.high is None:
        return "-"
    sign = "+" if isinstance(interval, Difference) else ""
    return f"{interval.low:{sign}.4g} to {interval.high:{sign}.4g}"


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
