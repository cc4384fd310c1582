"""Several processes: equal bits in the exact mode, equal losses when sharded, checkpoints of any number of processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from causerie.core import CauserieError
from causerie.train.sharding import tensor_plan
from causerie.train.world import LOST_PEER_STATUS, TreeSum, World, check_parts, fixed_tree
from tests.train.tiny import SHAPE

ROOT = Path(__file__).parents[2]


def launches(place: Path, *jobs: dict[str, Any], seconds: float = 120) -> list[dict[str, Any]]:
    """Launches one after the other; what the first process of each wrote, the statuses and the time."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    environment["CAUSERIE_COLLECTIVE_SECONDS"] = str(seconds)
    command = [sys.executable, str(Path(__file__).with_name("distributed.py")), str(place), json.dumps(jobs)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    found: list[dict[str, Any]] = json.loads(done.stdout)
    for job, row in zip(jobs, found, strict=True):
        assert "fault" in job or not any(row["statuses"]), done.stderr[-3000:]
    return found


@pytest.mark.slow
def test_exact_parts_give_the_same_bits_on_one_two_and_four_processes(tmp_path: Path) -> None:
    """Slow: six launches. Also 2 → 4 → 1 processes in one run, each going on from the last's checkpoint."""
    fixed = [{"name": f"n{n}", "processes": n, "steps": 6, "exact": 4} for n in (1, 2, 4)]
    moved = [{"name": "moved", "processes": n, "steps": s, "exact": 4} for n, s in ((2, 2), (4, 4), (1, 6))]
    one, two, four, *_, last = launches(tmp_path, *fixed, *moved)
    assert one["digest"] == two["digest"] == four["digest"] == last["digest"]
    assert one["losses"] == two["losses"] == four["losses"] == last["losses"]


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_sharded_checkpoints_go_on_with_any_number_of_processes(tmp_path: Path, optimizer: str) -> None:
    """Slow: five launches. FSDP2 on 1 → 2 → 4 → 1 processes: the losses are those of one process to rounding.

    Muon orthogonalises in bf16, where another order of sums shows in the fourth digit.
    """
    stages = ((1, 2), (2, 4), (4, 6), (1, 8))
    moved = [{"name": "moved", "processes": n, "steps": s, "optimizer": optimizer} for n, s in stages]
    whole, *_, last = launches(tmp_path, {"name": "whole", "processes": 1, "steps": 8, "optimizer": optimizer}, *moved)
    rounding = 1e-5 if optimizer == "adamw" else 2e-3
    assert last["losses"] == pytest.approx(whole["losses"], abs=rounding)


@pytest.mark.slow
def test_training_only_parts_are_shared_out_and_folded_alike(tmp_path: Path) -> None:
    """Slow: five launches. One process, FSDP2 over two (going on from one), tensor parallel, and the exact mode's bits."""
    job = {"extras": True, "steps": 6}
    moved = [{**job, "name": "moved", "processes": n, "steps": s} for n, s in ((1, 2), (2, 6))]
    split = {**job, "name": "split", "processes": 2, "tensor": 2}
    fixed = [{**job, "name": f"n{n}", "processes": n, "exact": 4} for n in (1, 2)]
    whole, _, sharded, halves, one, two = launches(
        tmp_path, {**job, "name": "whole", "processes": 1}, *moved, split, *fixed
    )
    for found in (sharded, halves):
        assert found["losses"] == pytest.approx(whole["losses"], abs=1e-5)
        assert found["weights"] == pytest.approx(whole["weights"], rel=2e-3, abs=2e-3)
    assert one["digest"] == two["digest"]
    plain = launches(tmp_path, {"steps": 6, "name": "plain", "processes": 1})[0]
    assert len(whole["weights"]) == len(plain["weights"]) + 1  # the output projection is no longer the embedding
    assert whole["losses"] != plain["losses"]


@pytest.mark.slow
def test_tensor_parallel_follows_one_process(tmp_path: Path) -> None:
    """Slow: two launches."""
    split = {"name": "split", "processes": 2, "steps": 4, "tensor": 2}
    whole, found = launches(tmp_path, {"name": "whole", "processes": 1, "steps": 4}, split)
    assert found["losses"] == pytest.approx(whole["losses"], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["kill", "freeze"])
def test_a_lost_process_ends_all_and_the_run_goes_on(tmp_path: Path, fault: str) -> None:
    """Slow: three launches. F12: SIGKILL or SIGSTOP of one rank in mid-run; nobody hangs beyond the timeout."""
    job = {"processes": 2, "steps": 6, "exact": 4}
    broken = {**job, "name": "lost", "fault": fault}
    (whole,) = launches(tmp_path, {**job, "name": "whole"})
    (lost,) = launches(tmp_path, broken, seconds=8)
    (again,) = launches(tmp_path, {**job, "name": "lost"})
    assert os.waitstatus_to_exitcode(lost["statuses"][0]) == LOST_PEER_STATUS
    assert again["digest"] == whole["digest"]


def test_a_tree_sum_of_a_stream_is_the_fixed_tree() -> None:
    values = [torch.tensor([x]) for x in (1e8, 1.0, -1e8, 1.0, 3e7, 0.1, 0.2, -3e7)]
    for count in (1, 2, 4, 8):
        stream = TreeSum()
        for value in values[:count]:
            stream.add([value.clone()])
        assert torch.equal(stream.result()[0], fixed_tree(values[:count], torch.add))
    halves = [fixed_tree(values[:4], torch.add), fixed_tree(values[4:], torch.add)]
    assert torch.equal(fixed_tree(halves, torch.add), fixed_tree(values, torch.add))
    uneven = [torch.tensor([1e8]), *([torch.tensor([3.0])] * 7)]
    assert not torch.equal(fixed_tree(uneven, torch.add), sum(uneven[1:], uneven[0]))


def test_work_that_does_not_divide_is_refused() -> None:
    for world, parts, micro in ((World(0, 4), 2, 2), (World(0, 2), 0, 3)):
        with pytest.raises(CauserieError) as caught:
            check_parts(world, parts, micro)
        assert caught.value.code == "CAU-4006"
        assert caught.value.fix
    check_parts(World(0, 2), 4, 4)


def test_tensor_plan_splits_columns_then_rows() -> None:
    from dataclasses import replace

    plan = tensor_plan(replace(SHAPE, n_kv_head=2), 2)
    kinds = {name.rpartition(".")[2]: type(style).__name__ for name, style in plan.items()}
    assert kinds["q_proj"] == kinds["gate_proj"] == "ColwiseParallel"
    assert kinds["o_proj"] == kinds["down_proj"] == "RowwiseParallel"
    with pytest.raises(CauserieError, match="n_kv_head 1"):
        tensor_plan(SHAPE, 2)
    assert LOST_PEER_STATUS == 76
