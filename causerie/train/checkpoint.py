"""Checkpoints of a run: whole or absent, digest-verified, enough to go on bit for bit.

`<run>/checkpoints/step-00000100/` is an artifact (manifest with digests, written last): `tensors.safetensors` holds the
trained parameters, the optimisers' state and the random state; `state.json` the counters and the machine's description.
Frozen parameters are not saved. The newest checkpoint whose digests hold is the one that counts. Tensors are saved in
full however many processes share them, so that a run may go on with another number of processes.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

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
from causerie.model import save_tensors
from causerie.train.identity import differences
from causerie.train.optim import Optimizers
from causerie.train.sharding import placed_like, whole
from causerie.train.world import World

FOLDER = "checkpoints"
TENSORS = "tensors.safetensors"
STATE = "state.json"


@dataclass
class Progress:
    """Where a run stands: everything beside weights, optimiser and random state."""

    step: int = 0
    """Updates done; also the position in the data, which are a function of it."""
    tokens: int = 0
    """Tokens trained on."""
    seconds: float = 0.0
    """Wall-clock seconds so far, over all sittings."""
    bad_steps: int = 0
    """Updates that were not applied."""
    bad_in_a_row: int = 0
    """Those of them at the very end."""
    spikes: int = 0
    """Updates that the spike rule skipped."""
    compiled: bool = False
    """Whether the model runs compiled: decided once for a run, since it changes the last bits."""
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    """What the callbacks returned so far."""
    spike_losses: list[float] = field(default_factory=list)
    """The spike rule's window of losses."""
    spike_norms: list[float] = field(default_factory=list)
    """The spike rule's window of gradient norms."""
    best_step: int = -1
    """Update after which the evaluation was the best."""
    best_value: float | None = None
    """Its figure."""


@dataclass
class Checkpoints:
    """The checkpoints of one run: saved in the background, the newest few and the best kept."""

    run: Path
    model: nn.Module
    optimizers: Optimizers
    fingerprint: str
    identity: Mapping[str, Any] = field(default_factory=dict)
    """What the run is made from: settings, inputs, versions; see `identity.differences`."""
    keep: int = 2
    world: World = field(default_factory=World)
    blocked: float = 0.0
    """Seconds that the last save kept the training waiting."""
    _writer: threading.Thread | None = None
    _error: BaseException | None = None

    def save(self, progress: Progress) -> None:
        """Copy the state and write it in the background; waits for the one before.

        Raises:
            CauserieError: CAU-1007 when the one before could not be written; the earlier checkpoints stay.
        """
        began = time.monotonic()
        self.wait()
        crashpoint("train.before_checkpoint")
        tensors = self._tensors()
        state = {
            "progress": asdict(progress),
            "fingerprint": self.fingerprint,
            "identity": dict(self.identity),
            "machine": machine(self.model, self.world),
        }
        if self.world.leads:
            self._writer = threading.Thread(target=self._write, args=(tensors, state), name="checkpoint")
            self._writer.start()
        self.blocked = time.monotonic() - began

    def wait(self) -> None:
        """Until the last save is on the disk.

        Raises:
            CauserieError: CAU-1007 when it could not be written.
        """
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _tensors(self) -> dict[str, Tensor]:
        """Copies of everything, in full, on the CPU."""
        tensors = {f"model.{name}": p.detach() for name, p in self.model.named_parameters() if p.requires_grad}
        tensors |= _optimizer_tensors(self.optimizers)
        tensors["random.cpu"] = torch.get_rng_state()
        if self.world.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.world.device)
        return {name: whole(t).to("cpu", copy=True).contiguous() for name, t in tensors.items()}

    def _write(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        try:
            step, data = state["progress"]["step"], {"data": self.fingerprint}
            key = artifact_key("checkpoint", {"step": step}, data)
            folder = self.run / FOLDER / f"step-{step:08d}"
            if folder.is_dir() and not _is_readable(folder):
                shutil.rmtree(folder)
            with write_artifact(folder, "checkpoint", self.run.name, key, inputs=data, exact=True) as draft:
                save_tensors(tensors, draft.path / TENSORS)
                crashpoint("train.tensors_written")
                write_json(draft.path / STATE, state)
            crashpoint("train.checkpoint_written")
            best = f"step-{state['progress']['best_step']:08d}"
            for old in folders(self.run)[self.keep :]:
                if old.name != best:
                    shutil.rmtree(old, ignore_errors=True)
                    crashpoint("train.checkpoint_deleted")
        except BaseException as error:  # handed to the training thread by `wait`
            self._error = error

    def load(self, other: Path | None = None, allow_changed: bool = False) -> Progress | None:
        """Load the newest valid checkpoint into the model and the optimisers; None when there is none.

        Args:
            other: another run's folder whose checkpoint is taken where this run has none yet.
            allow_changed: take that one although it was made from other data or settings.

        Raises:
            CauserieError: CAU-4004 when it was made with other data or settings, or for another model or optimiser;
                CAU-4007 when `other` has no valid checkpoint.
        """
        if self.world.leads:
            _sweep(self.run)
        self.world.wait()
        found = self._load_newest(self.run, allow_changed=False)
        if found is None and other is not None:
            found = self._load_newest(other, allow_changed)
            if found is None:
                fix = "give the folder of a run that was stopped (a finished run's checkpoints are deleted)"
                raise CauserieError("CAU-4007", "the run has no valid checkpoint", where=str(other), fix=fix)
        return found

    def load_weights(self, step: int) -> bool:
        """Load the parameters as they were after `step` updates; False when that checkpoint is not there."""
        folder = self.run / FOLDER / f"step-{step:08d}"
        if not (folder / "manifest.json").exists():
            return False
        open_artifact(folder, verify="digest")
        if isinstance(self.model, FSDPModule):
            self.model.reshard()
        _load_parameters(folder, self.model, _read_tensors(folder))
        return True

    def _load_newest(self, run: Path, allow_changed: bool) -> Progress | None:
        for folder in folders(run):
            try:
                open_artifact(folder, verify="digest")
                state = read_json(folder / STATE)
            except CauserieError as error:
                say(f"checkpoint {folder.name} is damaged ({error.cause}: {error.where}); trying the one before")
                continue
            self._check_same(folder, state, own=run == self.run, allow_changed=allow_changed)
            _warn_if_elsewhere(state["machine"], machine(self.model, self.world))
            tensors = _read_tensors(folder)
            _load_parameters(folder, self.model, tensors)
            _load_optimizers(folder, self.optimizers, tensors)
            torch.set_rng_state(tensors["random.cpu"])
            if "random.cuda" in tensors and self.world.device.type == "cuda":
                torch.cuda.set_rng_state(tensors["random.cuda"], self.world.device)
            known = {f.name for f in fields(Progress)}
            return Progress(**{name: value for name, value in state["progress"].items() if name in known})
        return None

    def _check_same(self, folder: Path, state: Mapping[str, Any], own: bool, allow_changed: bool) -> None:
        changed = [] if own else differences(state.get("identity", {}), self.identity)
        if state["fingerprint"] != self.fingerprint:
            changed.append("data (or their order)")
        if not changed:
            return
        if not allow_changed:
            raise _foreign(folder, f"it was made with other data or settings: {', '.join(changed)}", own)
        say(f"going on from {folder} although these differ: {', '.join(changed)}")


def delete_checkpoints(run: Path) -> None:
    """Delete a run's checkpoints: its artifact is there, nothing needs them."""
    shutil.rmtree(run / FOLDER, ignore_errors=True)


def machine(model: nn.Module, world: World) -> dict[str, str | int]:
    """What the last bits of a run depend on: torch version, threads, instruction set, device, processes."""
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "device": next(model.parameters()).device.type,
        "processes": world.size,
    }


def folders(run: Path) -> list[Path]:
    """The checkpoints of a run, newest first, damaged ones too."""
    return sorted((run / FOLDER).glob("step-*"), reverse=True)


def _sweep(run: Path) -> None:
    for leftover in [*(run / FOLDER).glob(".*.part"), *(run / FOLDER).glob(".*.old")]:
        shutil.rmtree(leftover, ignore_errors=True)


def _is_readable(folder: Path) -> bool:
    try:
        open_artifact(folder)
    except CauserieError:
        return False
    return True


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    with safe_open(folder / TENSORS, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict


def _optimizer_tensors(optimizers: Optimizers) -> dict[str, Tensor]:
    return {
        f"optimizer.{number}.{index}.{name}": value
        for number, part in enumerate(optimizers.parts)
        for index, entry in part.state_dict()["state"].items()
        for name, value in entry.items()
        if isinstance(value, Tensor)
    }


@torch.no_grad()
def _load_parameters(folder: Path, model: nn.Module, tensors: dict[str, Tensor]) -> None:
    wanted = {f"model.{name}": p for name, p in model.named_parameters() if p.requires_grad}
    found = {name for name in tensors if name.startswith("model.")}
    if found != set(wanted):
        raise _foreign(folder, f"{len(found ^ set(wanted))} parameters have other names", own=True)
    for name, parameter in wanted.items():
        if parameter.shape != tensors[name].shape:
            raise _foreign(folder, f"{name} has shape {tuple(tensors[name].shape)}", own=True)
        parameter.copy_(placed_like(tensors[name], parameter))


def _load_optimizers(folder: Path, optimizers: Optimizers, tensors: dict[str, Tensor]) -> None:
    states: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimizers.parts]
    by_index = [[p for group in part.param_groups for p in group["params"]] for part in optimizers.parts]
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, number, index, entry = name.split(".", 3)
            if int(number) >= len(states) or int(index) >= len(by_index[int(number)]):
                raise _foreign(folder, "it has another optimiser", own=True)
            parameter = by_index[int(number)][int(index)]
            like = placed_like(value, parameter) if value.shape == parameter.shape else value
            states[int(number)].setdefault(int(index), {})[entry] = like
    for part, state in zip(optimizers.parts, states, strict=True):
        part.load_state_dict({"state": state, "param_groups": part.state_dict()["param_groups"]})


def _warn_if_elsewhere(before: dict[str, Any], now: dict[str, str | int]) -> None:
    differing = [f"{name} {before.get(name)} → {value}" for name, value in now.items() if before.get(name) != value]
    if differing:
        say(f"the checkpoint comes from another set-up ({', '.join(differing)}): equal to rounding, not bit for bit")


def _foreign(folder: Path, cause: str, own: bool) -> CauserieError:
    fix = "delete the run's folder to start anew" if own else "give --allow-changed to go on all the same"
    return CauserieError("CAU-4004", f"the checkpoint does not fit: {cause}", where=str(folder), fix=fix)
