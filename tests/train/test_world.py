"""Several processes: equal bits in the exact mode, equal losses when sharded, checkpoints of any number of processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from causerie.core import CauserieError
from causerie.train.sharding import tensor_plan
from causerie.train.world import LOST_PEER_STATUS, TreeSum, World, check_parts, fixed_tree
from tests.train.tiny import SHAPE

ROOT = Path(__file__).parents[2]


def torchrun(
    place: Path, name: str, processes: int, steps: int, *, exact: int = 0, optimizer: str = "adamw", tensor: int = 1,
    parts: int = 4, fault: str = "", seconds: float = 30, check: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """A run on some processes; what its first process wrote."""
    script = str(Path(__file__).with_name("distributed.py"))
    arguments = [str(place), name, str(steps), str(exact), optimizer, str(tensor), str(parts), *([fault] if fault else [])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    environment["CAUSERIE_COLLECTIVE_SECONDS"] = str(seconds)
    if processes == 1:
        command = [sys.executable, script]
    else:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command = [*launcher, script]
    done = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, timeout=200)
    if check:
        assert done.returncode == 0, done.stderr[-3000:]
    written = place / f"{name}.{steps}.json"
    found = json.loads(written.read_text()) if written.exists() else {}
    return {**found, "status": done.returncode, "stderr": done.stderr}


@pytest.mark.slow
def test_exact_parts_give_the_same_bits_on_one_two_and_four_processes(tmp_path: Path) -> None:
    """Slow: three launches. Also 1 → 2 → 4 → 1 processes in one run, each going on from the last's checkpoint."""
    one, two, four = (torchrun(tmp_path, f"n{n}", n, 6, exact=4) for n in (1, 2, 4))
    assert one["digest"] == two["digest"] == four["digest"]
    assert one["losses"] == two["losses"] == four["losses"]
    for processes, steps in ((2, 2), (4, 4), (1, 6)):
        last = torchrun(tmp_path, "moved", processes, steps, exact=4)
    assert last["digest"] == one["digest"]
    assert last["losses"] == one["losses"]


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_sharded_checkpoints_go_on_with_any_number_of_processes(tmp_path: Path, optimizer: str) -> None:
    """Slow: five launches. FSDP2 on 1 → 2 → 4 → 1 processes: the losses are those of one process to rounding."""
    whole = torchrun(tmp_path, "whole", 1, 8, optimizer=optimizer)
    for processes, steps in ((1, 2), (2, 4), (4, 6), (1, 8)):
        moved = torchrun(tmp_path, "moved", processes, steps, optimizer=optimizer)
    assert moved["losses"] == pytest.approx(whole["losses"], abs=1e-5)
    assert moved["weights"] == pytest.approx(whole["weights"], abs=2e-3)


@pytest.mark.slow
def test_tensor_parallel_follows_one_process(tmp_path: Path) -> None:
    """Slow: two launches."""
    whole = torchrun(tmp_path, "whole", 1, 4)
    split = torchrun(tmp_path, "split", 2, 4, tensor=2)
    assert split["losses"] == pytest.approx(whole["losses"], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["kill", "freeze"])
def test_a_lost_process_ends_all_and_the_run_goes_on(tmp_path: Path, fault: str) -> None:
    """Slow: three launches. F12: SIGKILL or SIGSTOP of one rank in mid-run; nobody hangs beyond the timeout."""
    whole = torchrun(tmp_path, "whole", 2, 6, exact=4)
    began = time.monotonic()
    lost = torchrun(tmp_path, "lost", 2, 6, exact=4, fault=fault, seconds=4, check=False)
    assert lost["status"] != 0
    assert time.monotonic() - began < 60
    assert "a peer is gone or hangs" in lost["stderr"] or fault == "kill"
    alive = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True).stdout.split()
    assert alive == []
    assert torchrun(tmp_path, "lost", 2, 6, exact=4)["digest"] == whole["digest"]


def test_a_tree_sum_of_a_stream_is_the_fixed_tree() -> None:
    values = [torch.tensor([x]) for x in (1e8, 1.0, -1e8, 1.0, 3e7, 0.1, 0.2, -3e7)]
    for count in (1, 2, 4, 8):
        stream = TreeSum()
        for value in values[:count]:
            stream.add([value.clone()])
        assert torch.equal(stream.result()[0], fixed_tree(values[:count], torch.add))
    halves = [fixed_tree(values[:4], torch.add), fixed_tree(values[4:], torch.add)]
    assert torch.equal(fixed_tree(halves, torch.add), fixed_tree(values, torch.add))
    assert not torch.equal(fixed_tree(values, torch.add), sum(values[1:], values[0]))


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
