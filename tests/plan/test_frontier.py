"""The frontier, over-training, inference paid, task curves, gaps: closed forms and searches by brute force."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import curve_fit, minimize_scalar

from causerie.core import CauserieError, write_artifact, write_json
from causerie.plan import (
    Fit,
    FitConfig,
    FrontierConfig,
    GapConfig,
    Law,
    TaskConfig,
    fit_law,
    fit_task,
    flops_for,
    frontier,
    gap,
    optimum,
    overtrained,
    plan_fit,
    plan_frontier,
    plan_gap,
    plan_task,
    tokens_for,
    with_inference,
)
from causerie.plan.tasks import task_from_dict

from .test_law import TRUE, runs

laws = st.builds(
    Law, E=st.floats(0.5, 3.0), A=st.floats(50, 5000), B=st.floats(50, 20_000), alpha=st.floats(0.2, 0.6),
    beta=st.floats(0.2, 0.6),
)  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(law=laws, power=st.floats(17, 26))
def test_the_optimum_is_scipys(law: Law, power: float) -> None:
    flops = 10**power
    best = optimum(law, flops)
    found = minimize_scalar(lambda x: law.loss(math.exp(x), flops / 6 / math.exp(x)), bounds=(0, 60), method="bounded")
    assert best.loss <= found.fun * (1 + 1e-9)
    assert 6 * best.params * best.tokens == pytest.approx(flops)


@settings(max_examples=50, deadline=None)
@given(law=laws, power=st.floats(17, 26))
def test_the_law_is_inverted(law: Law, power: float) -> None:
    best = optimum(law, 10**power)
    assert flops_for(law, best.loss) == pytest.approx(10**power, rel=1e-4)
    assert tokens_for(law, best.params, best.loss) == pytest.approx(best.tokens, rel=1e-4)
    assert math.isinf(flops_for(law, law.E))
    assert math.isinf(tokens_for(law, 1e3, law.E + 0.99 * law.A * 1e3**-law.alpha))


@settings(max_examples=30, deadline=None)
@given(law=laws, power=st.floats(19, 24), served=st.floats(9, 15))
def test_inference_makes_the_best_model_smaller(law: Law, power: float, served: float) -> None:
    plain = optimum(law, 10**power)
    none = with_inference(law, plain.loss, 0.0)
    assert none.params == pytest.approx(plain.params, rel=1e-3)
    assert none.flops == pytest.approx(plain.train_flops, rel=1e-6)
    paid = with_inference(law, plain.loss, 10**served)
    assert paid.params <= none.params * (1 + 1e-6)
    assert paid.tokens >= none.tokens * (1 - 1e-6)
    assert paid.flops <= (plain.train_flops + 2 * plain.params * 10**served) * (1 + 1e-9)
    assert law.loss(paid.params, paid.tokens) == pytest.approx(plain.loss, rel=1e-9)
    for factor in (0.7, 1.4):
        n = paid.params * factor
        d = tokens_for(law, n, plain.loss)
        assert 6 * n * d + 2 * n * 10**served >= paid.flops * (1 - 1e-9)


def test_sardana_and_frankles_direction_with_chinchillas_law() -> None:
    """Their figure 1, with the law they use: a Chinchilla-13B's quality served 2T tokens wants a smaller model."""
    law = Law(E=1.69, A=406.4, B=410.7, alpha=0.336, beta=0.283)
    quality = law.loss(13e9, 20 * 13e9)
    best = with_inference(law, quality, 2e12)
    assert best.params < 13e9 * 0.75
    assert best.tokens > 20 * 13e9


def test_overtraining_costs_loss() -> None:
    best = optimum(TRUE, 1e21)
    ratio = best.tokens / best.params
    assert overtrained(TRUE, 1e21, ratio).loss == pytest.approx(best.loss)
    assert overtrained(TRUE, 1e21, 20 * ratio).loss > overtrained(TRUE, 1e21, 4 * ratio).loss > best.loss


def test_the_frontiers_intervals_hold_the_truth() -> None:
    fit = fit_law(*runs(noise=0.003), bootstrap=40)
    for row in frontier(fit, (1e19, 1e21), level=0.99):
        true = optimum(TRUE, row["flops"])
        assert row["loss_interval"][0] <= row["loss"] <= row["loss_interval"][1]
        assert row["params_interval"][0] <= true.params <= row["params_interval"][1]


@pytest.mark.parametrize("flops", [0.0, -1.0, float("nan"), float("inf")])
def test_budgets_must_be_positive(flops: float) -> None:
    for call in (
        lambda: optimum(TRUE, flops),
        lambda: overtrained(TRUE, flops, 20),
        lambda: overtrained(TRUE, 1e20, flops),
    ):
        with pytest.raises(CauserieError) as caught:
            call()
        assert caught.value.code == "CAU-4301"
    with pytest.raises(CauserieError, match="loss"):
        with_inference(TRUE, TRUE.E, 1e9)


def law_file(tmp_path: Path) -> Path:
    n, d, loss = runs(noise=0.002)
    lines = ["N,D,loss", *(f"{a},{b},{c}" for a, b, c in zip(n, d, loss, strict=True))]
    (tmp_path / "runs.csv").write_text("\n".join(lines))
    plan_fit(FitConfig(tmp_path / "runs.csv", out=tmp_path / "law.json", bootstrap=30))
    return tmp_path / "law.json"


def test_the_frontier_command(tmp_path: Path) -> None:
    found = plan_frontier(FrontierConfig(law_file(tmp_path), (1e20, 1e22), tokens_per_param=100, inference_tokens=1e12))
    for row in found["frontier"]:
        assert row["overtrained"]["loss"] >= row["loss"]
        assert 0 <= row["with_inference"]["saves"] < 1


def test_a_gap_is_a_factor_of_compute(tmp_path: Path) -> None:
    """Losses of two budgets of the true law: the gap is the budgets' ratio."""
    here, there = optimum(TRUE, 1e20).loss, optimum(TRUE, 4e20).loss
    found = plan_gap(GapConfig(str(here), str(there), law_file(tmp_path), a_flops=2e20))
    assert found["behind"] == pytest.approx(4, rel=0.1)
    assert found["behind_interval"][0] < 4.0 < found["behind_interval"][1] * 1.05
    assert found["efficiency_a"] == pytest.approx(0.5, rel=0.1)
    assert "times its compute to reach B" in found["words"]
    back = plan_gap(GapConfig(str(there), str(here), law_file(tmp_path)))
    assert back["behind"] == pytest.approx(1 / found["behind"], rel=1e-6)
    assert "ahead" in back["words"]


def test_a_gap_between_two_model_folders(tmp_path: Path) -> None:
    """Losses and FLOPs come from the manifests; models measured on other shards are not compared."""
    law = law_file(tmp_path)
    for name, flops, shards in (("a", 1e20, "x"), ("b", 3e20, "x"), ("c", 3e20, "y")):
        with write_artifact(tmp_path / name, "model", name, "0" * 64, inputs={"shards": shards}, exact=True) as draft:
            loss = optimum(TRUE, flops).loss
            draft.metrics.update({"val_loss_after": loss, "flops_per_token": flops / 1e9, "tokens": 1_000_000_000})
    found = plan_gap(GapConfig(str(tmp_path / "a"), str(tmp_path / "b"), law))
    assert found["behind"] == pytest.approx(3, rel=0.1)
    assert found["efficiency_a"] == pytest.approx(1, rel=0.1)
    with pytest.raises(CauserieError, match="different texts"):
        plan_gap(GapConfig(str(tmp_path / "a"), str(tmp_path / "c"), law))
    with pytest.raises(CauserieError, match="no metric") as caught:
        plan_gap(GapConfig(str(tmp_path / "a"), "2.2", law, metric="other"))
    assert caught.value.where == "a"
    with pytest.raises(CauserieError):
        plan_gap(GapConfig(str(tmp_path / "nowhere"), "2.2", law))


def test_gaps_out_of_reach_are_counted_or_refused() -> None:
    law = Law(2.0, 400, 400, 0.3, 0.3)
    fit = Fit(law, 0.0, 9, 1e-3, {"n": 1, "d": 1, "nd": 1}, (law, Law(2.5, 400, 400, 0.3, 0.3)))
    found = gap(fit, 2.8, 2.3)
    assert found["out_of_reach"] == 1
    for a, b, field in ((1.9, 2.5, "a"), (2.5, 2.0, "b"), (float("nan"), 2.5, "a")):
        with pytest.raises(CauserieError) as caught:
            gap(fit, a, b)
        assert caught.value.where == field
    for wrong in ({"level": 1.0}, {"a_flops": -1.0}):
        with pytest.raises(CauserieError) as caught:
            gap(fit, 2.8, 2.3, **wrong)
        assert caught.value.where in wrong


def test_a_task_curve_is_found_again() -> None:
    loss = np.linspace(2.2, 4.2, 9)
    error = 0.75 - 2.1 * np.exp(-0.9 * loss)
    fit = fit_task(loss, error, bootstrap=0)
    assert (fit.eps, fit.k, fit.gamma) == pytest.approx((0.75, 2.1, 0.9), rel=1e-2)
    assert fit.error(3.0) == pytest.approx(0.75 - 2.1 * math.exp(-2.7), rel=1e-4)


def test_a_task_curve_is_as_good_as_scipys() -> None:
    draw = np.random.default_rng(1)
    loss = draw.uniform(2.3, 4, 30)
    error = np.clip(0.7 - 3 * np.exp(-1.1 * loss) + draw.normal(0, 0.005, 30), 0, 1)

    def curve(x: np.ndarray, eps: float, k: float, gamma: float) -> np.ndarray:
        return eps - k * np.exp(-gamma * x)

    theirs, _ = curve_fit(curve, loss, error, p0=(0.7, 2, 1), maxfev=20_000)
    fit = fit_task(loss, error, bootstrap=60)
    ours = np.array([fit.error(x) for x in loss])
    assert np.square(ours - error).sum() <= np.square(curve(loss, *theirs) - error).sum() * 1.001
    value, low, high = fit.predict(2.0)
    assert low <= value <= high
    assert task_from_dict(fit.as_dict(), "x") == fit


@pytest.mark.parametrize(
    ("loss", "error"),
    [([2.0, 3.0], [0.5, 0.6]), ([2.0] * 6, [0.5] * 6), ([1, 2, 3, -4.0], [0.1] * 4), ([1, 2, 3, 4.0], [0.1, 0.2, 0.3, 1.2])],
)  # fmt: skip
def test_task_tables_that_do_not_do(loss: list[float], error: list[float]) -> None:
    with pytest.raises(CauserieError) as caught:
        fit_task(np.array(loss, dtype=float), np.array(error, dtype=float))
    assert caught.value.code == "CAU-4302"
    assert caught.value.where in ("loss", "error")


def test_the_task_command_reads_a_table(tmp_path: Path) -> None:
    lines = ["loss,acc_a,acc_b"] + [f"{x},{0.3 + 0.1 * (4 - x)},{0.4}" for x in (2.0, 2.5, 3.0, 3.5, 4.0)]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    config = TaskConfig(tmp_path / "t.csv", ("acc_a", "acc_b"), out=tmp_path / "task.json", bootstrap=5)
    found = plan_task(config)
    assert found["rows"] == 5
    assert (tmp_path / "task.json").is_file()
    for columns in (("acc_c",), ("acc_a", "acc_c")):
        with pytest.raises(CauserieError, match="acc_c"):
            plan_task(TaskConfig(tmp_path / "t.csv", columns))
    (tmp_path / "t.csv").write_text("loss,acc_a\n2,x\n")
    with pytest.raises(CauserieError) as caught:
        plan_task(TaskConfig(tmp_path / "t.csv", ("acc_a",)))
    assert caught.value.code == "CAU-4302"
    write_json(tmp_path / "x.json", {"kind": "other"})
    with pytest.raises(CauserieError):
        task_from_dict({"kind": "other"}, "x.json")


def test_gadres_large_runs_from_five_small_ones(pack: Path) -> None:
    """RedPajama: 1.4B at ratio 640 and 6.9B at 20 within 0.75 % from five runs of at most 411M parameters."""
    with open(pack / "scaling" / "gadre2024_104_models.csv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["dataset"] == "rpj"]
    small = [
        row for row in rows
        if float(row["params"]) < 5e8
        and (float(row["chinchilla_multiplier"]) == 1
             or (float(row["chinchilla_multiplier"]) == 16 and row["arch"].startswith("d=96")))
    ]  # fmt: skip
    assert len(small) == 5
    columns = (np.array([float(row[k]) for row in small]) for k in ("params", "tokens", "loss_c4_val"))
    fit = fit_law(*columns, bootstrap=0, tied=True)
    assert fit.law.alpha == fit.law.beta
    for row in rows:
        if row["name"].endswith(("1b-32.0", "7b-1.0")):
            predicted = fit.law.loss(float(row["params"]), float(row["tokens"]))
            assert predicted == pytest.approx(float(row["loss_c4_val"]), rel=0.0075)
