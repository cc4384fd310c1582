"""The counting and layout commands: functions that take a configuration and return plain dictionaries."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from causerie.core import CauserieError, read_json
from causerie.model import NAMED_SHAPES, shape_from_depth, shape_from_hf
from causerie.plan.blueprint import BLUEPRINTS, Blueprint, blueprint, blueprint_of
from causerie.plan.config import CountConfig, LayoutConfig
from causerie.plan.count import count, memory
from causerie.plan.hardware import HARDWARE, Hardware, hardware
from causerie.plan.held import Held, held_bytes
from causerie.plan.layout import Layout, check_layout
from causerie.plan.run_cost import bill
from causerie.plan.search import HEADROOM, Found, search_layouts
from causerie.plan.step import Step, step_time


def plan_count(config: CountConfig) -> dict[str, Any]:
    """Parameters, FLOPs per token and memory of a model.

    Raises:
        CauserieError: CAU-4301 for an unknown name, or a context or batch that is not positive.
    """
    for name in ("seq_len", "batch_size"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise CauserieError("CAU-4301", f"{name} is {value}", where=name, fix="give an integer of at least 1")
    if config.model is None:
        plan = blueprint_of(shape_from_depth(config.depth, config.vocab_size))
    else:
        plan = find_model(config.model)
    sizes = memory(plan, batch_size=config.batch_size, seq_len=config.seq_len, recompute=config.recompute)
    result = {"model": plan.name, "shape": asdict(plan.shape), **count(plan, seq_len=config.seq_len)}
    if plan.experts:
        result["experts"] = asdict(plan.experts)
    return {**result, "memory_bytes": sizes, "note": plan.note}


def find_model(text: str) -> Blueprint:
    """A blueprint from a name, `depth:N` of our own series, a model folder, or its config.json.

    Raises:
        CauserieError: CAU-4301 when it is none of them.
    """
    head, _, number = text.partition(":")
    if not text:
        raise CauserieError("CAU-4301", "the model has no name", where="model", fix="see: causerie plan models")
    if head == "depth" and number.isdecimal():
        return blueprint_of(shape_from_depth(int(number), 8192), text)
    path = Path(text)
    if path.exists():
        file = path / "config.json" if path.is_dir() else path
        return blueprint_of(shape_from_hf(read_json(file), where=str(file)), path.name)
    return blueprint(text)


def plan_models() -> dict[str, Any]:
    """Every named model: parameters, those that a token meets, and where the figures are from."""
    rows = []
    for name in [*NAMED_SHAPES, *BLUEPRINTS]:
        plan = blueprint(name)
        figures = count(plan, seq_len=min(2048, plan.shape.max_seq_len))
        rows.append(
            {"name": name, "parameters": figures["parameters"], "matrix_parameters": figures["matrix_parameters"]}
            | {"experts": plan.experts.count if plan.experts else 0, "note": plan.note}
        )
    return {"models": rows, "hardware": [asdict(row) for row in HARDWARE.values()]}


def plan_layout(config: LayoutConfig) -> dict[str, Any]:
    """The memory, time and bill of a layout: the given one, or the best that is found.

    Raises:
        CauserieError: CAU-4306 when the given layout is impossible, CAU-4307 for unknown hardware, CAU-4308 when
            nothing fits, CAU-4301 for other bad settings.
    """
    plan, machine = find_model(config.model), hardware(config.hardware, dollars=config.dollars)
    result: dict[str, Any] = {"model": plan.name, "hardware": machine.name, "devices": config.devices}
    sizes = (config.data, config.tensor, config.pipeline, config.context, config.expert)
    if all(size is None for size in sizes):
        _refuse_ignored(config)
        search = search_layouts(
            plan, machine, config.devices, global_batch=config.global_batch, seq_len=config.seq_len,
            precision=config.precision,
        )  # fmt: skip
        best = search.best[0]
        result["search"] = {"tried": search.tried, "possible": search.possible, "fitting": search.fitting}
        result["next_best"] = [
            {"layout": row.layout.words(), "seconds": row.step.seconds, "mfu": row.step.mfu} for row in search.best[1:]
        ]
    else:
        best = _given(config, plan, machine)
    result |= describe_found(best, machine)
    if config.tokens is not None:
        result["run"] = asdict(bill(plan, best.layout, machine, best.step, config.tokens))
    if config.picture:
        from causerie.plan.pictures import layout_picture

        layout_picture(plan, best.layout, best.held, best.step, machine, config.picture)
        result["picture"] = str(config.picture)
    return result


def _refuse_ignored(config: LayoutConfig) -> None:
    """A search chooses these itself: a value that was given for one would do nothing."""
    for item in fields(LayoutConfig):
        if item.name in ("micro_batch", "interleave", "recompute", "shard"):
            value = getattr(config, item.name)
            if value != item.default:
                cause = f"{item.name} {value} goes with a given layout, and none of its sizes is given"
                fix = f"give --data, --tensor, …, or leave --{item.name.replace('_', '-')} out"
                raise CauserieError("CAU-4306", cause, where=item.name, fix=fix)


def _given(config: LayoutConfig, plan: Blueprint, machine: Hardware) -> Found:
    sizes = (config.tensor, config.pipeline, config.context, config.expert)
    tensor, pipeline, context, expert = (1 if size is None else size for size in sizes)
    data = max(1, config.devices // max(1, tensor * pipeline * context)) if config.data is None else config.data
    layout = Layout(
        config.global_batch, config.seq_len, data, tensor, pipeline, context, expert, config.micro_batch,
        config.interleave, config.recompute, shard=config.shard, precision=config.precision,
    )  # fmt: skip
    check_layout(plan, layout, machine)
    if layout.devices != config.devices:
        cause = f"data x tensor x pipeline x context is {layout.devices}, devices is {config.devices}"
        raise CauserieError("CAU-4306", cause, where="devices", fix="make the product equal to devices")
    return Found(layout, held_bytes(plan, layout), step_time(plan, layout, machine))


def describe_found(found: Found, machine: Hardware) -> dict[str, Any]:
    """A layout with its memory and time as plain values."""
    held, step = found.held, found.step
    return {
        "layout": asdict(found.layout),
        "words": found.layout.words(),
        "memory": {**asdict(held), "total": held.total, "of": machine.memory},
        "fits": held.total <= machine.memory * HEADROOM,
        "step": asdict(step),
        "shares": shares(step),
    }


def shares(step: Step) -> dict[str, float]:
    """Where an update's time goes, as shares."""
    names = (
        "matrices", "attention", "elementwise", "tensor_comm", "context_comm", "expert_comm", "pipeline_comm",
        "data_comm", "bubble", "optimizer",
    )  # fmt: skip
    return {name: getattr(step, name) / step.seconds for name in names}


def held_rows(held: Held) -> list[tuple[str, float]]:
    """The parts of a device's memory in drawing order."""
    return list(asdict(held).items())
