"""Checkpoints of a run: whole or absent, digest-verified, enough to go on bit for bit.

`<run>/checkpoints/step-00000100/` is an artifact (manifest with digests, written last): `tensors.safetensors` holds the
trained parameters, the optimisers' state and the random state; `state.json` the counters and the machine's description.
Frozen parameters are not saved. The newest checkpoint whose digests hold is the one that counts.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from causerie.core import (
    CauserieError,
    artifact_key,
    crashpoint,
    open_artifact,
    read_json,
    say,
    write_artifact,
    write_json,
)
from causerie.train.optim import Optimizers

FOLDER = "checkpoints"
TENSORS = "tensors.safetensors"
STATE = "state.json"


@dataclass
class Progress:
    """Where a run stands: everything beside weights, optimiser and random state."""

    step: int = 0
    """Updates done."""
    tokens: int = 0
    """Tokens trained on."""
    seconds: float = 0.0
    """Wall-clock seconds so far, over all sittings."""
    bad_steps: int = 0
    """Updates that were not applied."""
    bad_in_a_row: int = 0
    """Those of them at the very end."""
    compiled: bool = False
    """Whether the model runs compiled: decided once for a run, since it changes the last bits."""
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    """What the callbacks returned so far."""


def save_checkpoint(
    run: Path, progress: Progress, model: nn.Module, optimizers: Optimizers, fingerprint: str, keep: int
) -> None:
    """Save the state of a run, then delete all but the newest `keep` checkpoints.

    Raises:
        CauserieError: CAU-1007 when it cannot be written; the earlier checkpoints stay.
    """
    crashpoint("train.before_checkpoint")
    tensors = {f"model.{name}": p.detach() for name, p in model.named_parameters() if p.requires_grad}
    tensors |= _optimizer_tensors(optimizers)
    tensors["random.cpu"] = torch.get_rng_state()
    key = artifact_key("checkpoint", {"step": progress.step}, {"data": fingerprint})
    folder = run / FOLDER / f"step-{progress.step:08d}"
    with write_artifact(folder, "checkpoint", run.name, key, inputs={"data": fingerprint}, exact=True) as draft:
        save_file({name: t.contiguous().cpu() for name, t in tensors.items()}, draft.path / TENSORS)
        crashpoint("train.tensors_written")
        state = {"progress": asdict(progress), "fingerprint": fingerprint, "machine": machine(model)}
        write_json(draft.path / STATE, state)
    crashpoint("train.checkpoint_written")
    for old in _folders(run)[keep:]:
        shutil.rmtree(old, ignore_errors=True)
        crashpoint("train.checkpoint_deleted")


def load_checkpoint(run: Path, model: nn.Module, optimizers: Optimizers, fingerprint: str) -> Progress | None:
    """Load the newest valid checkpoint into the model and the optimisers; None when there is none.

    Raises:
        CauserieError: CAU-4004 when it was made with other data, or for another model or optimiser.
    """
    _sweep(run)
    for folder in _folders(run):
        try:
            open_artifact(folder, verify="digest")
            state = read_json(folder / STATE)
        except CauserieError as error:
            say(f"checkpoint {folder.name} is damaged ({error.cause}); trying the one before")
            continue
        if state["fingerprint"] != fingerprint:
            raise _foreign(folder, "it was made with other data, or in another order")
        _warn_if_elsewhere(state["machine"], machine(model))
        with safe_open(folder / TENSORS, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        _load_parameters(folder, model, tensors)
        _load_optimizers(folder, optimizers, tensors)
        torch.set_rng_state(tensors["random.cpu"])
        known = {f.name for f in fields(Progress)}
        return Progress(**{name: value for name, value in state["progress"].items() if name in known})
    return None


def delete_checkpoints(run: Path) -> None:
    """Delete a run's checkpoints: its artifact is there, nothing needs them."""
    shutil.rmtree(run / FOLDER, ignore_errors=True)


def machine(model: nn.Module) -> dict[str, str | int]:
    """What the last bits of a run depend on: torch version, threads, instruction set, device."""
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "device": next(model.parameters()).device.type,
    }


def _folders(run: Path) -> list[Path]:
    return sorted((run / FOLDER).glob("step-*"), reverse=True)


def _sweep(run: Path) -> None:
    for leftover in [*(run / FOLDER).glob(".*.part"), *(run / FOLDER).glob(".*.old")]:
        shutil.rmtree(leftover, ignore_errors=True)


def _optimizer_tensors(optimizers: Optimizers) -> dict[str, Tensor]:
    return {
        f"optimizer.{number}.{index}.{name}": value
        for number, part in enumerate(optimizers.parts)
        for index, entry in part.state_dict()["state"].items()
        for name, value in entry.items()
    }


def _load_parameters(folder: Path, model: nn.Module, tensors: dict[str, Tensor]) -> None:
    wanted = {f"model.{name}": p for name, p in model.named_parameters() if p.requires_grad}
    found = {name for name in tensors if name.startswith("model.")}
    if set(wanted) != found:
        raise _foreign(folder, f"its parameters differ: {sorted(set(wanted) ^ found)[0]}")
    with torch.no_grad():
        for name, parameter in wanted.items():
            if parameter.shape != tensors[name].shape:
                raise _foreign(folder, f"{name} has shape {tuple(tensors[name].shape)}")
            parameter.copy_(tensors[name])


def _load_optimizers(folder: Path, optimizers: Optimizers, tensors: dict[str, Tensor]) -> None:
    states: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimizers.parts]
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, number, index, entry = name.split(".", 3)
            if int(number) >= len(states):
                raise _foreign(folder, "it has another optimiser")
            states[int(number)].setdefault(int(index), {})[entry] = value
    for part, state in zip(optimizers.parts, states, strict=True):
        part.load_state_dict({"state": state, "param_groups": part.state_dict()["param_groups"]})


def _warn_if_elsewhere(before: dict[str, Any], now: dict[str, str | int]) -> None:
    differing = [f"{name} {before.get(name)} → {value}" for name, value in now.items() if before.get(name) != value]
    if differing:
        say(f"the checkpoint comes from another set-up ({', '.join(differing)}): equal to rounding, not bit for bit")


def _foreign(folder: Path, cause: str) -> CauserieError:
    fix = "delete the run's folder to start anew"
    return CauserieError("CAU-4004", f"the checkpoint does not fit: {cause}", where=str(folder), fix=fix)
