"""What must not change, or change in a known way, when the same runs are written otherwise; and who may write keys."""

from __future__ import annotations

import csv
import json
import math
import multiprocessing
import os
import random
import stat
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import optimize

from causerie.core import CauserieError
from causerie.plan import (
    FitConfig,
    Layout,
    PredictConfig,
    ScoreConfig,
    bill,
    blueprint,
    daly_interval,
    fit_law,
    fit_task,
    flops_for,
    frontier,
    gap,
    goodput,
    hardware,
    optimum,
    overtrained,
    plan_predict,
    plan_score,
    step_time,
    tokens_for,
    with_inference,
)
from causerie.plan.law import Law, fit_from_dict
from causerie.plan.sign import KEY_FILE, signed, signing_key, verified
from causerie.plan.table import read_rows, read_runs
from causerie.plan.tasks import task_from_dict
from tests.plan.test_law import runs

LAWS = st.builds(
    Law,
    E=st.floats(0.5, 2.5),
    A=st.floats(20, 2000),
    B=st.floats(20, 5000),
    alpha=st.floats(0.2, 0.6),
    beta=st.floats(0.2, 0.6),
)
BUDGETS = st.floats(17, 26).map(lambda power: 10**power)


def table(law: Law, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n, d = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e6, 1e9, 5), np.geomspace(1e8, 1e11, 5)))
    loss = np.array([law.loss(a, b) for a, b in zip(n, d, strict=True)])
    return n, d, loss * np.exp(np.random.default_rng(0).normal(0, noise, len(loss)))


@settings(max_examples=3, deadline=None)
@given(law=LAWS, seed=st.integers(0, 9))
def test_the_order_of_the_runs_does_not_matter(law: Law, seed: int) -> None:
    n, d, loss = table(law, 0.005)
    order = np.random.default_rng(seed).permutation(len(n))
    first, second = fit_law(n, d, loss, bootstrap=0), fit_law(n[order], d[order], loss[order], bootstrap=0)
    for params, tokens in ((1e8, 1e10), (1e10, 1e12)):
        assert second.law.loss(params, tokens) == pytest.approx(first.law.loss(params, tokens), rel=1e-5)


@settings(max_examples=3, deadline=None)
@given(law=LAWS, unit=st.sampled_from([1e-6, 1e3]), nats=st.sampled_from([1 / math.log(2), 0.25]))
def test_other_units_give_the_same_law_in_other_units(law: Law, unit: float, nats: float) -> None:
    """Tokens in millions, losses in bits: E, A and B change as they must, the exponents do not."""
    n, d, loss = table(law)
    first, second = fit_law(n, d, loss, bootstrap=0).law, fit_law(n, d * unit, loss * nats, bootstrap=0).law
    assert (second.alpha, second.beta) == pytest.approx((first.alpha, first.beta), rel=2e-3)
    assert math.isclose(second.E, first.E * nats, rel_tol=2e-3)
    assert second.loss(1e10, 1e12 * unit) == pytest.approx(first.loss(1e10, 1e12) * nats, rel=1e-4)


@settings(max_examples=40, deadline=None)
@given(law=LAWS, flops=BUDGETS)
def test_the_best_split_is_a_minimum_in_every_direction(law: Law, flops: float) -> None:
    best = optimum(law, flops)
    assert 6 * best.params * best.tokens == pytest.approx(flops, rel=1e-9)
    found = optimize.minimize_scalar(
        lambda log_n: law.loss(math.exp(log_n), flops / 6 / math.exp(log_n)),
        bracket=(math.log(best.params) - 1, math.log(best.params) + 1),
    )
    assert best.loss <= found.fun + 1e-9
    ratio = best.tokens / best.params
    same = overtrained(law, flops, ratio)
    assert (same.params, same.loss) == pytest.approx((best.params, best.loss), rel=1e-9)
    for factor in (0.2, 5.0):
        assert overtrained(law, flops, factor * ratio).loss > best.loss


@settings(max_examples=40, deadline=None)
@given(law=LAWS, flops=BUDGETS, served=st.floats(6, 15).map(lambda power: 10**power))
def test_the_law_and_its_inverses_agree(law: Law, flops: float, served: float) -> None:
    best = optimum(law, flops)
    assume(best.loss - law.E > 1e-6)
    assert flops_for(law, best.loss) == pytest.approx(flops, rel=1e-4)
    assert tokens_for(law, best.params, best.loss) == pytest.approx(best.tokens, rel=1e-4)
    assert tokens_for(law, best.params, law.E) == flops_for(law, law.E) == math.inf
    cheap = with_inference(law, best.loss, served)
    assert cheap.params <= best.params * 1.001
    assert cheap.flops <= best.flops + 2 * best.params * served + 1e-3 * flops
    assert law.loss(cheap.params, cheap.tokens) == pytest.approx(best.loss, rel=1e-6)
    nothing = with_inference(law, best.loss, 0)
    assert nothing.train_flops == pytest.approx(flops, rel=1e-3)


@pytest.fixture(scope="module")
def known() -> object:
    return fit_law(*runs(noise=0.003), bootstrap=24)


def test_gaps_multiply_and_turn_around(known) -> None:
    floor = known.law.E
    a, b, c = floor + 0.9, floor + 0.6, floor + 0.4
    behind = {pair: gap(known, *pair)["behind"] for pair in ((a, b), (b, c), (a, c), (b, a), (a, a))}
    assert behind[a, c] == pytest.approx(behind[a, b] * behind[b, c], rel=1e-9)
    assert behind[a, b] == pytest.approx(1 / behind[b, a], rel=1e-9)
    assert behind[a, a] == 1
    assert behind[a, b] > 1
    wide, narrow = (gap(known, a, b, level=level)["behind_interval"] for level in (0.95, 0.5))
    assert wide[0] <= narrow[0] <= narrow[1] <= wide[1]


def test_intervals_grow_with_their_level_and_with_the_distance(known) -> None:
    def width(n: float, d: float, level: float = 0.9) -> float:
        _, low, high = known.predict(n, d, level)
        return high - low

    assert width(1e9, 1e11, 0.5) < width(1e9, 1e11, 0.9) < width(1e9, 1e11, 0.99)
    rows = frontier(known, (1e20, 1e23, 1e26))
    ratios = [row["params_interval"][1] / row["params_interval"][0] for row in rows]
    assert ratios == sorted(ratios)
    assert all(row["loss_interval"][0] <= row["loss"] <= row["loss_interval"][1] for row in rows)


def test_a_fit_survives_its_file(known) -> None:
    again = fit_from_dict(json.loads(json.dumps(known.as_dict())), "law.json")
    assert again.law == known.law
    assert again.resampled == known.resampled
    assert again.predict(1e9, 1e11) == known.predict(1e9, 1e11)
    for damage in ({"kind": "x"}, {"law": {"E": 1}}, {"resampled": [[1, 2]]}, {"resampled": 3}, {"largest": None}):
        with pytest.raises(CauserieError) as caught:
            fit_from_dict({**known.as_dict(), **damage}, "law.json")
        assert (caught.value.code, caught.value.where) == ("CAU-4303", "law.json")


@settings(max_examples=25, deadline=None)
@given(eps=st.floats(0.5, 0.95), k=st.floats(0.5, 4), gamma=st.floats(0.4, 2.0), seed=st.integers(0, 9))
def test_a_task_curve_without_noise_is_found_whatever_the_order(eps: float, k: float, gamma: float, seed: int) -> None:
    loss = np.linspace(1.5, 4.0, 9)
    error = eps - k * np.exp(-gamma * loss)
    assume((error > 0).all())
    order = np.random.default_rng(seed).permutation(len(loss))
    found = fit_task(loss[order], error[order], bootstrap=0)
    for at in (1.8, 3.0, 3.9):
        assert found.error(at) == pytest.approx(float(eps - k * np.exp(-gamma * at)), abs=2e-3)
    assert task_from_dict(json.loads(json.dumps(found.as_dict())), "x") == found
    assert found.predict(2.0) == (found.error(2.0),) * 3


MACHINES = st.sampled_from(["a100-80gb", "h100-80gb", "h200-141gb", "b200-192gb"])


@settings(max_examples=30, deadline=None)
@given(machine=MACHINES, tokens=st.floats(1e9, 1e13), dollars=st.floats(0.1, 20))
def test_a_bill_is_proportional_to_what_is_bought(machine: str, tokens: float, dollars: float) -> None:
    plan, layout = blueprint("llama3-8b"), Layout(256, 4096, data=8, tensor=2)
    here = hardware(machine, dollars=dollars)
    step = step_time(plan, layout, here)
    once, twice = (bill(plan, layout, here, step, times * tokens) for times in (1, 2))
    assert twice.flops == pytest.approx(2 * once.flops)
    assert abs(twice.steps - 2 * once.steps) <= 1
    assert twice.device_hours == pytest.approx(2 * once.device_hours, rel=1e-2)
    assert once.dollars == pytest.approx(once.device_hours * dollars)
    assert once.device_hours == pytest.approx(once.days * 24 * layout.devices)
    assert once.megawatt_hours == pytest.approx(once.device_hours * here.watts / 1e6)
    dear = bill(plan, layout, hardware(machine, dollars=2 * dollars), step, tokens)
    assert dear.dollars == pytest.approx(2 * once.dollars)
    assert dear.days == once.days


@settings(max_examples=60)
@given(checkpoint=st.floats(0.1, 1e3), mtbf=st.floats(10, 1e7), factor=st.floats(1.01, 50))
def test_rarer_failures_want_rarer_checkpoints_and_leave_more(checkpoint: float, mtbf: float, factor: float) -> None:
    assert daly_interval(checkpoint, mtbf * factor) >= daly_interval(checkpoint, mtbf) * 0.999 or checkpoint > mtbf
    here = hardware("h100-80gb")
    few, many = (goodput(devices, here, checkpoint) for devices in (64, 64 * 8))
    assert few.share >= many.share
    assert 0 < many.share < 1
    lasting = goodput(512, replace(here, mtbf_hours=here.mtbf_hours * factor), checkpoint)
    assert lasting.share >= many.share


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_table_from_a_spreadsheet_is_read(tmp_path: Path, mark: str) -> None:
    """Spreadsheets write a byte order mark, CRLF and quotes."""
    path = tmp_path / "runs.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.write(mark)
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerows([["N", "D", "loss", "note"], ["1e6", "2e7", "4.5", "a, b"], ["2e6", "2e7", "4.25", "é"]])
    assert [row["note"] for row in read_rows(path, ("N", "D", "loss"))] == ["a, b", "é"]
    assert read_runs(FitConfig(path)).values.tolist() == [[2e6, 2e7, 4.25], [1e6, 2e7, 4.5]]


@settings(max_examples=30)
@given(rows=st.integers(1, 12), drop=st.integers(0, 14), least=st.floats(0, 40), seed=st.integers(0, 99))
def test_every_row_is_kept_or_listed_and_the_worst_go_first(
    tmp_path_factory: pytest.TempPathFactory, rows: int, drop: int, least: float, seed: int
) -> None:
    chance = random.Random(seed)
    made = [(1e6 * chance.randint(1, 9), 1e7 * chance.randint(1, 20), 2 + chance.random()) for _ in range(rows)]
    path = tmp_path_factory.mktemp("t") / "runs.jsonl"
    path.write_text("".join(json.dumps(dict(zip(("N", "D", "loss"), row, strict=True))) + "\n" for row in made))
    found = read_runs(FitConfig(path, drop_highest=drop, min_tokens_per_param=least))
    assert len(found.values) + len(found.dropped) == rows
    enough = sorted((row for row in made if row[1] / row[0] >= least), key=lambda row: row[2])
    assert sorted(row[2] for row in found.values.tolist()) == pytest.approx(
        [row[2] for row in enough[: max(0, len(enough) - drop)]]
    )
    assert sum(found.counts().values()) == len(found.dropped)


def _digest(workspace: str) -> str:
    return str(signed({"kind": "x"}, Path(workspace))["public_key"])


def test_many_processes_share_the_one_key_that_is_made(tmp_path: Path) -> None:
    for number in range(4):
        workspace = tmp_path / str(number)
        with multiprocessing.get_context("fork").Pool(6) as pool:
            keys = pool.map(_digest, [str(workspace)] * 12)
        assert len(set(keys)) == 1
        path = workspace / KEY_FILE
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert os.listdir(path.parent) == [path.name]
        assert signing_key(workspace).public_key().public_bytes_raw().hex() == keys[0]


CONTENT = st.dictionaries(
    st.text(max_size=6),
    st.recursive(st.none() | st.floats(allow_nan=False) | st.text(max_size=5), st.lists, max_leaves=4),
    max_size=4,
)


@settings(max_examples=40, deadline=None)
@given(content=CONTENT, place=st.integers(0, 10**6), change=st.integers(1, 255))
def test_a_seal_breaks_with_any_byte(
    tmp_path_factory: pytest.TempPathFactory, content: dict, place: int, change: int
) -> None:
    workspace = tmp_path_factory.getbasetemp() / "signing"
    content = {
        name: value for name, value in content.items() if name not in ("digest", "public_key", "signature", "scores")
    }
    whole = signed({**content, "kind": "prediction"}, workspace)
    assert verified(json.loads(json.dumps(whole)), "f", kind="prediction") == {**content, "kind": "prediction"}
    with pytest.raises(CauserieError):
        verified(whole, "f", kind="score")
    for name in ("signature", "public_key", "digest"):
        value = bytearray(bytes.fromhex(whole[name]))
        value[place % len(value)] ^= change
        with pytest.raises(CauserieError) as caught:
            verified({**whole, name: value.hex()}, "f", kind="prediction")
        assert caught.value.code == "CAU-4303"
    with pytest.raises(CauserieError):
        verified({**whole, "added": 1}, "f", kind="prediction")


STEPS = st.builds(
    Layout, global_batch=st.just(256), seq_len=st.sampled_from([2048, 4096]), data=st.sampled_from([1, 4, 16]),
    tensor=st.sampled_from([1, 2, 8]), pipeline=st.sampled_from([1, 2, 4]), micro_batch=st.sampled_from([1, 2]),
    recompute=st.sampled_from(["none", "selective", "full"]),
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(layout=STEPS, factor=st.floats(1.1, 8))
def test_a_machine_that_is_faster_in_everything_is_faster_by_as_much(layout: Layout, factor: float) -> None:
    """Peak, memory and links times f, starts and latencies by f: seconds are divided by f, but for a ring's own hops."""
    plan, here = blueprint("llama3-8b"), hardware("h100-80gb")
    speeds = {name: getattr(here, name) * factor for name in ("peak", "bandwidth", "link", "network")}
    waits = {name: getattr(here, name) / factor for name in ("launch", "latency")}
    slow, fast = step_time(plan, layout, here), step_time(plan, layout, replace(here, **speeds, **waits))
    assert slow.seconds / factor <= fast.seconds * (1 + 1e-9)
    assert fast.seconds == pytest.approx(slow.seconds / factor, rel=0.03)
    for name in ("matrices", "attention", "elementwise", "bubble", "optimizer"):
        assert getattr(fast, name) == pytest.approx(getattr(slow, name) / factor, rel=0.03)
    assert fast.tokens_per_second_per_device / slow.tokens_per_second_per_device == pytest.approx(
        slow.seconds / fast.seconds
    )


@settings(max_examples=40, deadline=None)
@given(layout=STEPS)
def test_parts_of_a_step_are_there_when_their_cause_is(layout: Layout) -> None:
    plan, here = blueprint("llama3-8b"), hardware("h100-80gb")
    step = step_time(plan, layout, here)
    assert (step.tensor_comm > 0) == (layout.tensor > 1)
    assert (step.bubble > 0) == (step.pipeline_comm > 0) == (layout.pipeline > 1)
    assert step.expert_comm == step.context_comm == 0
    assert 0 < step.mfu < here.efficiency
    nothing = replace(here, link=1e30, network=1e30, latency=0.0)
    free = step_time(plan, layout, nothing)
    assert free.tensor_comm < 1e-9
    assert free.seconds <= step.seconds
    words = layout.words()
    sizes = (("data", layout.data), ("tensor", layout.tensor), ("pipeline", layout.pipeline))
    assert all((f"{name} {size}" in words) == (size > 1) for name, size in sizes)


def test_the_five_numbers_stand_in_their_order() -> None:
    law = Law(1.69, 406.4, 410.7, 0.34, 0.28)  # Hoffmann et al. 2022, equation 10
    assert [*asdict(law)] == ["E", "A", "B", "alpha", "beta"]
    assert law.loss(70e9, 1.4e12) == pytest.approx(1.69 + 406.4 / 70e9**0.34 + 410.7 / 1.4e12**0.28)
    assert 1.9 < law.loss(70e9, 1.4e12) < 1.95  # Chinchilla: 1.936 by their own law


def test_an_error_never_tends_to_more_than_everything() -> None:
    """A nearly straight line would be fitted best by a curve that ends far above 1."""
    loss = np.linspace(1.0, 4.5, 8)
    found = fit_task(loss, 0.2 * loss, bootstrap=0)
    assert found.eps == 1
    assert found.k > 0
    assert all(0 <= found.error(value) <= 1 for value in (1.0, 3.0, 9.0, 90.0))


@pytest.mark.parametrize(("seconds", "before"), [(0, True), (-5, True), (5, False)])
def test_a_prediction_counts_when_it_is_no_younger_than_the_run(
    known, tmp_path: Path, seconds: int, before: bool
) -> None:
    """Manifests tell whole seconds: the same second is in time; a run that began earlier is not."""
    (tmp_path / "law.json").write_text(json.dumps(known.as_dict()))
    asked = PredictConfig(tmp_path / "law.json", params=1e9, tokens=1e11, out=tmp_path / "p.json")
    made = datetime.fromisoformat(plan_predict(asked, tmp_path)["created"])
    manifest = {
        "kind": "model",
        "name": "m",
        "key": "a" * 64,
        "created": (made - timedelta(seconds=seconds)).isoformat(),
    }
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "manifest.json").write_text(json.dumps({**manifest, "metrics": {"loss": 2.0}}))
    score = plan_score(ScoreConfig(tmp_path / "p.json", model=tmp_path / "m", metric="loss"), tmp_path)
    assert score["made_before_run"] is before
