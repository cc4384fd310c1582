"""Scaling-law fits: known laws are found again, published data agree with an independent optimiser."""

from __future__ import annotations

import csv
import json
import math
import os
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import huber, logsumexp

from causerie.core import CauserieError
from causerie.plan import FitConfig, Law, fit_law, plan_fit

TRUE = Law(E=1.8, A=480.0, B=2100.0, alpha=0.35, beta=0.37)


def runs(noise: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    n = 10 ** generator.uniform(7, 10, 60)
    d = n * 10 ** generator.uniform(0.3, 2.3, 60)
    loss = np.array([TRUE.loss(*pair) for pair in zip(n, d, strict=True)])
    return n, d, loss * np.exp(generator.normal(0, noise, 60))


def test_a_law_without_noise_is_found_again() -> None:
    fit = fit_law(*runs(), bootstrap=0)
    assert astuple(fit.law) == pytest.approx(astuple(TRUE), rel=1e-3)
    assert fit.objective < 1e-12


def test_intervals_cover_and_outliers_hardly_matter() -> None:
    n, d, loss = runs(noise=0.003)
    loss[5] *= 1.3
    fit = fit_law(n, d, loss, bootstrap=40)
    intervals = fit.intervals(0.95)
    for name in ("E", "alpha", "beta"):
        low, high = intervals[name]
        assert low < getattr(TRUE, name) < high
    value, low, high = fit.predict(3e10, 6e11)
    assert low < value < high
    assert value == pytest.approx(TRUE.loss(3e10, 6e11), rel=0.01)


def test_the_same_seed_gives_the_same_intervals() -> None:
    data = runs(noise=0.01)
    first, second, other = (fit_law(*data, bootstrap=5, seed=seed) for seed in (1, 1, 2))
    assert first.resampled == second.resampled != other.resampled


def test_the_best_split_is_best() -> None:
    n, d = TRUE.best_split(1e21)
    assert 6 * n * d == pytest.approx(1e21)
    assert all(TRUE.loss(n, d) <= TRUE.loss(n * factor, d / factor) for factor in (0.5, 0.9, 1.1, 2.0))


def test_published_runs_agree_with_scipy(pack: Path) -> None:
    """Digitised Chinchilla runs: no L-BFGS start of a small grid finds a lower objective."""
    with open(pack / "scaling" / "chinchilla_digitised.csv", encoding="utf-8") as file:
        table = np.array([[float(row[name]) for name in ("N", "D", "loss")] for row in csv.DictReader(file)])
    fit = fit_law(table[:, 0], table[:, 1], table[:, 2], bootstrap=0)
    log_n, log_d, log_loss = np.log(table).T

    def objective(theta: np.ndarray) -> float:
        e, a, b, alpha, beta = theta
        terms = np.stack([np.full_like(log_n, e), a - alpha * log_n, b - beta * log_d])
        return 1e3 * float(huber(1e-3, logsumexp(terms, axis=0) - log_loss).mean())

    starts = [(e, a, b, x, x) for e in (0.0, 0.7) for a in (5.0, 10.0) for b in (5.0, 10.0) for x in (0.3, 0.6)]
    found = [minimize(objective, start, method="L-BFGS-B", options={"maxiter": 2000}) for start in starts]
    best = min(found, key=lambda item: item.fun)
    assert 1e3 * fit.objective <= best.fun * (1 + 1e-6)
    assert fit.law.alpha == pytest.approx(best.x[3], rel=0.02)
    assert 0.3 < fit.law.alpha < 0.4
    assert 0.3 < fit.law.beta < 0.42


def test_large_runs_are_predicted_from_small_ones(pack: Path) -> None:
    """Gadre et al.: runs of 20 tokens a parameter or more and under 5e19 FLOPs foretell those above 1e20."""
    with open(pack / "scaling" / "gadre2024_104_models.csv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["dataset"] == "rpj"]
    table = np.array([[float(row[name]) for name in ("params", "tokens", "loss_c4_val")] for row in rows])
    table = table[table[:, 1] / table[:, 0] >= 19]
    flops = 6 * table[:, 0] * table[:, 1]
    small, large = table[flops < 5e19], table[flops > 1e20]
    assert len(small) >= 6
    assert len(large) >= 2
    fit = fit_law(small[:, 0], small[:, 1], small[:, 2], bootstrap=0)
    errors = [abs(fit.law.loss(n, d) / loss - 1) for n, d, loss in large]
    assert np.mean(errors) < 0.05


def test_rows_left_out_are_counted(tmp_path: Path) -> None:
    n, d, loss = runs(noise=0.001)
    lines = [
        "N,D,loss",
        *(f"{a},{b},{c}" for a, b, c in zip(n, d, loss, strict=True)),
        "1e8,oops,3",
        "-1,1,1",
        "1e8,1e8,4",
    ]
    (tmp_path / "runs.csv").write_text("\n".join(lines))
    result = plan_fit(
        FitConfig(tmp_path / "runs.csv", drop_highest=2, min_tokens_per_param=1.5, bootstrap=0, skip_bad=True)
    )
    assert result["dropped"] == {"unreadable": 2, "few_tokens": 1, "highest": 2}
    assert result["rows"] == 58


@pytest.mark.parametrize(
    "text", ["", "N,D\n1,2\n", "N,D,loss\n" + "1,2,3\n" * 3, "N,D,loss\n" + "1,2,3\n" * 9], ids=len
)
def test_tables_that_do_not_do_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "runs.csv").write_text(text)
    with pytest.raises(CauserieError) as caught:
        plan_fit(FitConfig(tmp_path / "runs.csv"))
    assert caught.value.code == "CAU-4302"


def test_rows_left_out_are_listed(tmp_path: Path) -> None:
    n, d, loss = runs(noise=0.001)
    lines = ["N,D,loss", *(f"{a},{b},{c}" for a, b, c in zip(n, d, loss, strict=True)), "1e8,1e9,nan", "1e8,1e8,4"]
    (tmp_path / "runs.csv").write_text("\n".join(lines))
    config = FitConfig(
        tmp_path / "runs.csv", drop_highest=1, min_tokens_per_param=1.5, bootstrap=0, skip_bad=True,
        out=tmp_path / "law.json",
    )  # fmt: skip
    listed = {row["reason"]: row for row in plan_fit(config)["dropped_rows"]}
    assert listed["unreadable"]["row"] == 61
    assert "loss is nan" in listed["unreadable"]["cause"]
    assert listed["few_tokens"] == {"row": 62, "reason": "few_tokens", "N": 1e8, "D": 1e8, "loss": 4.0}
    assert listed["highest"]["loss"] == pytest.approx(max(loss))
    assert json.loads((tmp_path / "law.json").read_text())["dropped_rows"]


@pytest.mark.parametrize("bad", ["1e8,1e9,nan", "1e8,1e9,-3", "-1e8,1e9,3", "1e8,0,3", "1e8,1e9,", "1e8,1e9,inf"])
def test_a_bad_row_is_refused_with_its_place(tmp_path: Path, bad: str) -> None:
    n, d, loss = runs()
    lines = ["N,D,loss", *(f"{a},{b},{c}" for a, b, c in zip(n, d, loss, strict=True)), bad]
    (tmp_path / "runs.csv").write_text("\n".join(lines))
    with pytest.raises(CauserieError) as caught:
        plan_fit(FitConfig(tmp_path / "runs.csv", bootstrap=0))
    assert caught.value.code == "CAU-4302"
    assert "row 61" in caught.value.where
    assert caught.value.cause.startswith(("N is", "D is", "loss is"))


def test_repeated_runs_are_refused_but_other_seeds_are_not(tmp_path: Path) -> None:
    n, d, loss = runs(noise=0.001)
    again = [np.append(values, values[3]) for values in (n, d, loss)]
    with pytest.raises(CauserieError, match="3 and 60") as caught:
        fit_law(*again, bootstrap=0)
    assert caught.value.code == "CAU-4302"
    again[2][-1] *= 1.001
    assert fit_law(*again, bootstrap=0).rows == 61


@pytest.mark.parametrize(("place", "name"), [(0, "N"), (1, "D"), (2, "loss")])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_the_fit_itself_refuses_what_is_no_number(place: int, name: str, value: float) -> None:
    data = list(runs())
    data[place][7] = value
    with pytest.raises(CauserieError) as caught:
        fit_law(*data, bootstrap=0)
    assert caught.value.where == name
    assert "run 7" in caught.value.cause


def test_fewer_runs_than_numbers_are_refused() -> None:
    n, d, loss = (values[:5] for values in runs())
    with pytest.raises(CauserieError, match="5 usable rows"):
        fit_law(n, d, loss, bootstrap=0)
    assert fit_law(n, d, loss, bootstrap=0, tied=True).rows == 5
    with pytest.raises(CauserieError, match="4 usable rows"):
        fit_law(n[:4], d[:4], loss[:4], bootstrap=0, tied=True)
    with pytest.raises(CauserieError, match="1 sizes"):
        fit_law(np.full(9, 1e8), np.geomspace(1e8, 1e9, 9), np.linspace(4, 3, 9), bootstrap=0)


@settings(max_examples=15, deadline=None)
@given(
    e=st.floats(1.2, 3.0), a=st.floats(100, 2000), b=st.floats(100, 5000), alpha=st.floats(0.25, 0.5),
    beta=st.floats(0.25, 0.5),
)  # fmt: skip
def test_any_reasonable_law_without_noise_predicts_ten_times_further(
    e: float, a: float, b: float, alpha: float, beta: float
) -> None:
    law = Law(e, a, b, alpha, beta)
    n, d, _ = runs()
    loss = np.array([law.loss(*pair) for pair in zip(n, d, strict=True)])
    fit = fit_law(n, d, loss, bootstrap=0)
    assert fit.law.loss(1e11, 2e12) == pytest.approx(law.loss(1e11, 2e12), rel=0.003)


def test_a_tied_law_without_noise_is_found_from_five_runs() -> None:
    law = Law(1.9, 300.0, 700.0, 0.3, 0.3)
    n, d = np.array([1e7, 1e8, 4e8, 1e7, 8e7]), np.array([2e8, 2e9, 8e9, 3e9, 1e10])
    loss = np.array([law.loss(*pair) for pair in zip(n, d, strict=True)])
    fit = fit_law(n, d, loss, bootstrap=0, tied=True)
    assert astuple(fit.law) == pytest.approx(astuple(law), rel=1e-3)
    assert fit.tied
    assert fit.as_dict()["tied"]


def test_intervals_hold_a_runs_own_scatter() -> None:
    """Of fresh runs of the true law with noise, about nine in ten are inside the 90 % interval."""
    fit = fit_law(*runs(noise=0.01), bootstrap=60)
    draw = np.random.default_rng(5)
    inside = 0
    for _ in range(200):
        n, d = 10 ** draw.uniform(8, 9.5), 10 ** draw.uniform(9, 11)
        measured = TRUE.loss(n, d) * math.exp(draw.normal(0, 0.01))
        _, low, high = fit.predict(n, d, 0.9)
        inside += low <= measured <= high
    assert 0.8 < inside / 200 < 0.99
    assert fit.scatter == pytest.approx(0.01, rel=0.3)


def test_the_replication_of_chinchilla() -> None:
    """With the replication's own points (CAUSERIE_CHINCHILLA; they have no licence): its coefficients, to rounding."""
    place = os.environ.get("CAUSERIE_CHINCHILLA")
    if not place:
        pytest.skip("name the replication's svg_extracted_data.csv in CAUSERIE_CHINCHILLA")
    with open(place, encoding="utf-8") as file:
        rows = [[float(row[k]) for k in ("Model Size", "Training FLOP", "loss")] for row in csv.DictReader(file)]
    table = np.array(sorted(rows, key=lambda row: row[2])[:-5])
    fit = fit_law(table[:, 0], table[:, 1] / 6 / table[:, 0], table[:, 2], bootstrap=0)
    assert astuple(fit.law) == pytest.approx((1.8172, 477.84, 2143.86, 0.3473, 0.3672), rel=5e-4)
