"""Tables of runs: read, checked row by row, what is left out listed."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causerie.core import CauserieError
from causerie.plan.config import FitConfig


@dataclass(frozen=True)
class RunTable:
    """N, D and loss of the rows that are used, (R, 3), and the rows that are not, each with its reason."""

    values: NDArray[np.float64]
    dropped: tuple[dict[str, Any], ...]

    def counts(self) -> dict[str, int]:
        """Dropped rows by reason."""
        reasons = [row["reason"] for row in self.dropped]
        return {reason: reasons.count(reason) for reason in ("unreadable", "few_tokens", "highest")}


def read_rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, Any]]:
    """The rows of a CSV with a header, or of JSONL, that has the columns.

    Raises:
        CauserieError: CAU-4302 when the file cannot be read or a column is missing.
    """
    fix = "give a CSV or JSONL of runs, and name its columns"
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = csv.DictReader(file) if path.suffix == ".csv" else map(json.loads, filter(str.strip, file))
            rows = list(lines)
    except (OSError, ValueError, csv.Error) as error:
        raise CauserieError("CAU-4302", str(error), where=str(path), fix=fix) from error
    if rows and isinstance(rows[0], dict) and (missing := [name for name in columns if name not in rows[0]]):
        raise CauserieError("CAU-4302", f"there is no column {missing[0]!r}", where=str(path), fix=fix)
    return rows


def read_runs(config: FitConfig) -> RunTable:
    """The table that a fit is made from, with what was left out and why.

    Raises:
        CauserieError: CAU-4301 for settings, CAU-4302 naming file, row and field when a row cannot be used and
            `skip_bad` is off.
    """
    columns = (config.n_column, config.d_column, config.loss_column)
    if len(set(columns)) < len(columns):
        fix = "name three different columns"
        raise CauserieError(
            "CAU-4301", f"one column is asked for twice: {', '.join(columns)}", where="columns", fix=fix
        )
    for name in ("drop_highest", "min_tokens_per_param"):
        if not 0 <= getattr(config, name) < math.inf:
            raise CauserieError("CAU-4301", f"{name} is {getattr(config, name)}", where=name, fix="give 0 or more")
    kept: list[tuple[int, list[float]]] = []
    dropped: list[dict[str, Any]] = []
    for place, row in enumerate(read_rows(config.runs, columns), 1):
        values, wrong = _numbers(row, columns)
        if wrong:
            if not config.skip_bad:
                fix = "mend the row, or leave such rows out with skip_bad (they are listed with the fit)"
                raise CauserieError("CAU-4302", wrong, where=f"{config.runs}, row {place}", fix=fix)
            dropped.append({"row": place, "reason": "unreadable", "cause": wrong})
        elif values[1] / values[0] < config.min_tokens_per_param:
            dropped.append(_left_out(place, values, "few_tokens"))
        else:
            kept.append((place, values))
    kept.sort(key=lambda item: item[1][2])
    cut = max(0, len(kept) - config.drop_highest)
    dropped += [_left_out(place, values, "highest") for place, values in kept[cut:]]
    return RunTable(np.array([values for _, values in kept[:cut]], dtype=float).reshape(-1, 3), tuple(dropped))


def _left_out(place: int, values: list[float], reason: str) -> dict[str, Any]:
    return {"row": place, "reason": reason, "N": values[0], "D": values[1], "loss": values[2]}


def _numbers(row: Any, columns: tuple[str, ...]) -> tuple[list[float], str]:
    """The row's numbers, or what is wrong with them."""
    if isinstance(row, dict) and None in row:  # where `csv` puts what has no column
        return [], "it has more values than there are columns (write decimals with a point)"
    values = []
    for name in columns:
        try:
            value = float(row[name])
        except (KeyError, TypeError, ValueError):
            return [], f"{name} is {row.get(name) if isinstance(row, dict) else row!r}, not a number"
        if not (math.isfinite(value) and value > 0):
            return [], f"{name} is {value}, not a positive number"
        values.append(value)
    return values, ""
