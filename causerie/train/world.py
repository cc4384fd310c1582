"""The processes that train one model together: started by torchrun (or anything that sets its variables), or just one.

    torchrun --nproc-per-node 2 -m causerie train pretrain ...

Two ways to share the work. By default the model is sharded by PyTorch's FSDP2 (`shard_model`): memory falls with the
number of processes, and the sums' order depends on it. With `exact_parts` every process holds the model, gradients of
fixed parts of the batch are added in a fixed tree, and any number of processes gives the same bits (`fixed_tree`).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from causerie.core import CauserieError, say

LOST_PEER_STATUS = 76
"""Exit status of a process whose peers are gone: start the job again, it goes on from its checkpoint."""
LINGER_SECONDS = 0.3
"""The first process holds the meeting place and leaves last: a gloo process that finds it gone may abort."""
TIMEOUT_SECONDS = {"cpu": 120.0, "cuda": 600.0}


@dataclass(frozen=True)
class World:
    """This process among those that train together."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    tensor: int = 1
    """Processes that share each matrix product: neighbours, which compute the same rows."""

    @property
    def data_size(self) -> int:
        """Groups of processes that compute different rows."""
        return self.size // self.tensor

    @property
    def data_rank(self) -> int:
        """Number of this process's group."""
        return self.rank // self.tensor

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def agree(self, *values: float) -> list[float]:
        """The largest of each value over all processes."""
        if self.size == 1:
            return list(values)
        found = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return [float(value) for value in found.tolist()]

    def total(self, values: Sequence[float]) -> list[float]:
        """The sum of each value over all groups' rows, in the order of ranks on every process."""
        if self.size == 1:
            return list(values)
        rows = self.gather(torch.tensor(values, dtype=torch.float64, device=self.device))[:: self.tensor]
        return [sum(float(row[i]) for row in rows) for i in range(len(values))]

    def gather(self, value: Tensor) -> list[Tensor]:
        """The tensors of all processes, by rank; shapes are equal."""
        if self.size == 1:
            return [value]
        found = [torch.empty_like(value) for _ in range(self.size)]
        dist.all_gather(found, value.contiguous())
        return found

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def open_world(device: torch.device, tensor: int = 1) -> Iterator[World]:
    """Join the processes that torchrun started for the block; a world of one where there are none.

    Args:
        device: to train on; with several GPUs the one of this process's local rank is taken.
        tensor: processes that share each matrix product.

    A peer that is gone or hangs ends this process with status 76 after the timeout (CAUSERIE_COLLECTIVE_SECONDS).
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(device=device)
        return
    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    if device.type == "cuda":
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    seconds = float(os.environ.get("CAUSERIE_COLLECTIVE_SECONDS", TIMEOUT_SECONDS[device.type]))
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(seconds=seconds))
    try:
        yield World(rank, size, device, tensor)
        dist.barrier()
        if rank == 0:
            time.sleep(LINGER_SECONDS)
    except RuntimeError as error:  # what collectives raise; leaving in the usual way would abort in their destructors
        say(f"rank {rank}: a peer is gone or hangs, leaving ({str(error).splitlines()[0][:160]})")
        sys.stderr.flush()
        os._exit(LOST_PEER_STATUS)
    finally:
        dist.destroy_process_group()


def fixed_tree(parts: Sequence[Any], add: Any) -> Any:
    """Fold a power of two of parts pairwise, neighbours first: the same order however many processes hold them."""
    level = list(parts)
    while len(level) > 1:
        level = [add(level[i], level[i + 1]) for i in range(0, len(level), 2)]
    return level[0]


class TreeSum:
    """The sum of a stream of parts in the order of `fixed_tree`, holding one partial sum a level."""

    def __init__(self) -> None:
        self._held: list[tuple[int, list[Tensor]]] = []

    def add(self, part: list[Tensor]) -> None:
        """Take the next part; it is owned from now on."""
        level = 0
        while self._held and self._held[-1][0] == level:
            _, left = self._held.pop()
            torch._foreach_add_(left, part)
            part, level = left, level + 1
        self._held.append((level, part))

    def result(self) -> list[Tensor]:
        """The sum, after a power of two of parts."""
        ((_, total),) = self._held
        return total


def check_parts(world: World, parts: int, micro_batches: int) -> None:
    """Check that the work divides evenly.

    Raises:
        CauserieError: CAU-4006 when it does not.
    """
    if parts and world.tensor > 1:
        raise _uneven("tensor parallelism has no fixed order of sums", "exact_parts", "0, or --tensor-parallel 1")
    if parts and parts % world.size:
        raise _uneven(f"{parts} parts for {world.size} processes", "exact_parts", "a multiple of the processes")
    if not parts and micro_batches % world.data_size:
        cause = f"{micro_batches} micro-batches for {world.data_size} processes"
        raise _uneven(cause, "micro_batch, batch_size", "rows that divide evenly among the processes")


def _uneven(cause: str, where: str, fix: str) -> CauserieError:
    return CauserieError("CAU-4006", f"the batch does not divide: {cause}", where=where, fix=f"give {fix}")
