from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from causerie.core import CauserieError, Run, Stopped, open_run, read_events
from causerie.train import Batch, Callback, LossParts, fit
from causerie.train.machine import wants_compile
from causerie.train.optim import make_optimizers
from tests.train.tiny import SHAPE, RandomRows, objective, settings, tiny_model, weights_digest

GOLDEN = Path(__file__).with_name("golden_losses.json")


def losses(run: Run) -> list[float]:
    return [row["loss"] for row in read_events(run.path) if row["event"] == "step"]


def test_golden_losses(run: Run) -> None:
    """Twenty steps give the losses stored in git; a change must be wanted.

    `CAUSERIE_RECORD=1` writes them anew.
    """
    fit(tiny_model(), objective, RandomRows(), settings(steps=20), run)
    found = losses(run)
    if os.environ.get("CAUSERIE_RECORD"):
        GOLDEN.write_text(json.dumps({"torch": torch.__version__, "losses": found}, indent=1) + "\n")
    golden = json.loads(GOLDEN.read_text())
    assert found == pytest.approx(golden["losses"], abs=1e-4), f"recorded with torch {golden['torch']}"
    assert found[-1] < found[0]


def test_accumulation_does_not_change_loss_or_weights(tmp_path: Path) -> None:
    results = []
    for name, micro in (("whole", (6,)), ("split", (1, 3, 2))):
        with open_run(tmp_path, "train", name, "0" * 64, {}) as run:
            model = tiny_model()
            fit(model, objective, RandomRows(micro), settings(steps=4, optimizer="adamw"), run)
            results.append((losses(run), model.state_dict()))
    assert results[0][0] == pytest.approx(results[1][0], abs=1e-5)
    for name, value in results[0][1].items():
        torch.testing.assert_close(value, results[1][1][name], atol=2e-5, rtol=0)


def test_gradient_is_the_mean_over_unequal_micro_batches(run: Run) -> None:
    """Two micro-batches of 1 and 3 counted units: the gradient is that of the mean over all four."""
    model = tiny_model()
    (batch,) = RandomRows((4,)).micro_batches(0)

    def counted(model: Any, batch: Batch) -> LossParts:
        parts = objective(model, batch)
        return parts._replace(loss_sum=parts.loss_sum, n_tokens=batch["ids"].numel())

    counted(model, batch).loss_sum.div(batch["ids"].numel()).backward()
    wanted = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    optimizers = make_optimizers(model, settings())
    optimizers.zero_grad()
    for part in RandomRows((1, 3)).micro_batches(0):
        counted(model, part).loss_sum.backward()
    norm = optimizers.scale_and_clip(batch["ids"].numel(), 0)
    assert norm == pytest.approx(float(sum(g.square().sum() for g in wanted.values()) ** 0.5), rel=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name], atol=1e-6, rtol=1e-4)


def test_clipping_bounds_the_norm() -> None:
    model = tiny_model()
    (batch,) = RandomRows().micro_batches(0)
    objective(model, batch).loss_sum.backward()
    optimizers = make_optimizers(model, settings())
    before = optimizers.scale_and_clip(1, 0.5)
    after = float(torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None]))
    assert before > 0.5
    assert after == pytest.approx(0.5, rel=1e-4)


def test_overfits_a_tiny_corpus(run: Run) -> None:
    class OneBatch(RandomRows):
        def micro_batches(self, step: int) -> list[Batch]:
            return super().micro_batches(0)

    fit(tiny_model(), objective, OneBatch((2,)), settings(steps=120, schedule="cosine", lr=0.01, matrix_lr=0.03), run)
    assert losses(run)[0] > 3.5
    assert losses(run)[-1] < 0.2


def test_events_and_result(run: Run) -> None:
    seen: list[int] = []

    def call(model: Any, step: int) -> dict[str, float]:
        assert not model.training
        assert not torch.is_grad_enabled()
        seen.append(step)
        torch.rand(3)  # must not disturb the run's random state
        return {"figure": 1.0}

    result = fit(tiny_model(), objective, RandomRows(), settings(steps=5), run, callbacks=[Callback(call, "look", 2)])
    assert seen == [0, 2, 4, 5]
    assert [row["step"] for row in result.figures("look")] == seen
    assert (result.steps, result.tokens, result.bad_steps) == (5, 160, 0)
    steps = [row for row in read_events(run.path) if row["event"] == "step"]
    assert len(steps) == 5
    assert steps[2]["doubled"] == pytest.approx(2 * steps[2]["loss"], abs=1e-5)
    assert {"lr", "grad_norm", "tokens_per_second", "seconds_left", "gflops_per_second"} <= set(steps[0])


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_passing_nan_is_computed_again_and_nothing_is_lost(tmp_path: Path, where: str) -> None:
    digests = []
    for broken in (False, True):
        failures = [3] if broken else []

        def sometimes(model: Any, batch: Batch, failures: list[int] = failures, calls: list[int] = [0]) -> LossParts:  # noqa: B006
            calls[0] += 1
            parts = objective(model, batch)
            if calls[0] in failures:
                failures.clear()
                bad = parts.loss_sum * float("nan") if where == "loss" else _nan_gradient(parts.loss_sum)
                return parts._replace(loss_sum=bad)
            return parts

        with open_run(tmp_path, "train", str(broken), "0" * 64, {}) as run:
            model = tiny_model()
            result = fit(model, sometimes, RandomRows(), settings(steps=5), run)
            assert result.bad_steps == 0
            digests.append(weights_digest(model))
    assert digests[0] == digests[1]


class _NanGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        return grads[0] * float("nan")


def _nan_gradient(x: torch.Tensor) -> torch.Tensor:
    return _NanGradient.apply(x)


def test_lasting_nan_stops_with_an_error_and_leaves_the_weights(run: Run) -> None:
    model = tiny_model()

    def broken(model: Any, batch: Batch) -> LossParts:
        parts = objective(model, batch)
        return parts._replace(loss_sum=parts.loss_sum * float("inf"))

    before = weights_digest(model)
    with pytest.raises(CauserieError) as caught:
        fit(model, broken, RandomRows(), settings(max_bad_steps=2), run)
    assert caught.value.code == "CAU-4003"
    assert caught.value.fix
    assert "step 1" in caught.value.where
    assert weights_digest(model) == before
    assert [row["again"] for row in read_events(run.path) if row["event"] == "bad_step"] == [True, False] * 2


def test_a_stop_saves_and_resumes_without_a_trace(tmp_path: Path) -> None:
    with open_run(tmp_path, "train", "unbroken", "0" * 64, {}) as run:
        unbroken = tiny_model()
        fit(unbroken, objective, RandomRows(), settings(), run)

    def stop_at_five(model: Any, step: int) -> None:
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped), open_run(tmp_path, "train", "stopped", "0" * 64, {}) as run:
        fit(tiny_model(), objective, RandomRows(), settings(), run, callbacks=[Callback(stop_at_five, every=1)])
    with open_run(tmp_path, "train", "stopped", "0" * 64, {}) as run:
        resumed = tiny_model(seed=9)
        result = fit(resumed, objective, RandomRows(), settings(), run)
        rows = read_events(run.path)
    assert [row["step"] for row in rows if row["event"] == "resume"] == [5]
    assert [row["step"] for row in rows if row["event"] == "step"] == list(range(12))
    assert result.tokens == 12 * 32
    assert weights_digest(resumed) == weights_digest(unbroken)


def test_limits_in_tokens_and_minutes(tmp_path: Path) -> None:
    with open_run(tmp_path, "train", "tokens", "0" * 64, {}) as run:
        result = fit(tiny_model(), objective, RandomRows(), settings(steps=None, tokens=100), run)
    assert result.steps == 4
    with open_run(tmp_path, "train", "minutes", "0" * 64, {}) as run:
        result = fit(tiny_model(), objective, RandomRows(), settings(steps=None, minutes=0.005), run)
    assert result.steps >= 1
    assert 0.3 <= result.seconds < 60


def test_muon_takes_the_matrices_and_adamw_the_rest() -> None:
    model = tiny_model()
    muon, adam = make_optimizers(model, settings()).parts
    rows = {p.shape[0] for group in muon.param_groups for p in group["params"]}
    assert isinstance(muon, torch.optim.Muon)
    assert SHAPE.vocab_size not in rows
    assert len(muon.param_groups[0]["params"]) == 7 * SHAPE.n_layer
    counted = sum(p.numel() for part in (muon, adam) for group in part.param_groups for p in group["params"])
    assert counted == SHAPE.n_params


@pytest.mark.slow
@pytest.mark.timeout(900)  # a compiler runs, and how long that takes is not ours
def test_a_compiled_run_follows_the_plain_one(tmp_path: Path) -> None:
    """Slow: the compiler takes most of it.

    Losses agree to rounding, the parameters' names stay, and a new attention mask each step does not compile anew.
    """
    found = []
    for compile_ in ("off", "on"):
        with open_run(tmp_path, "train", compile_, "0" * 64, {}) as run:
            model = tiny_model()
            result = fit(model, objective, RandomRows(), replace(settings(steps=4), compile=compile_), run)
            assert result.compiled == (compile_ == "on")
            found.append((losses(run), sorted(model.state_dict())))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-3)
    assert found[0][1] == found[1][1]


def test_a_failing_compiler_is_given_up_with_a_line_that_says_why(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(graph: Any, inputs: Any) -> Any:
        raise OSError("no Python.h here")

    monkeypatch.setattr("causerie.train.loop.compile_model", lambda model: model.compile(backend=broken))
    monkeypatch.setattr("causerie.train.loop.wants_compile", lambda *_: (True, "compiled"))
    result = fit(tiny_model(), objective, RandomRows(), settings(steps=20), run)
    assert not result.compiled
    assert losses(run) == pytest.approx(json.loads(GOLDEN.read_text())["losses"], abs=1e-4)
    assert "compiling failed" in capsys.readouterr().err


def test_short_runs_and_machines_without_a_compiler_are_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert wants_compile(settings(steps=None, minutes=10, compile="auto"), cpu, 1e7)[0]
    short, why = wants_compile(settings(steps=None, minutes=0.5, compile="auto"), cpu, 1e7)
    assert not short
    assert "30 s" in why
    monkeypatch.setenv("PATH", "/nowhere")
    there, why = wants_compile(settings(steps=None, minutes=10, compile="on"), cpu, 1e7)
    assert not there
    assert "compiler" in why
