"""Scaling-law fits: known laws are found again, published data agree with an independent optimiser."""

from __future__ import annotations

import csv
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
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
    result = plan_fit(FitConfig(tmp_path / "runs.csv", drop_highest=2, min_tokens_per_param=1.5, bootstrap=0))
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
