"""Dry run of one rank among many: the real program with fake tensors and a fake process group, all counted.

FSDP2 shards the state over data, `parallelize_module` spreads matrices over tensor, and one stage of a 1F1B pipeline
sends and receives. Nothing is computed and nothing is sent, so 512 ranks fit on one core; what is counted is asserted
against the closed forms of `expected_messages` and `expected_state`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Final

from causerie.core import CauserieError
from causerie.plan.blueprint import Blueprint
from causerie.plan.commands import find_model
from causerie.plan.config import DryrunConfig
from causerie.plan.layout import Layout, check_layout

HALF, WHOLE = 2, 4
"""Bytes of bf16 and float32."""
DENSE_FAMILIES: Final = ("llama", "qwen3")
"""Families whose modules the tensor plan names."""


@dataclass(frozen=True)
class Messages:
    """How many collectives of a kind, and the bytes that go into them (all-gather: that come out)."""

    count: int
    bytes: int


def plan_dryrun(config: DryrunConfig) -> dict[str, Any]:
    """Run one update of one rank with fake tensors and compare what it held and sent with the closed forms.

    Returns:
        `state_bytes`, `messages` (kind → count, bytes), `peak_bytes`, `ranks`, `parameters`, all as counted, and
        `expected` with the closed forms; they are equal, or an error is raised.

    Raises:
        CauserieError: CAU-4306 for an impossible layout or a family that has no tensor plan, CAU-4309 when the count
            and the closed forms differ, CAU-1008 without torch.
    """
    plan = find_model(config.model)
    layers = _check(plan, config)
    from causerie.plan.fake import count_rank

    counted = count_rank(plan.shape, config, layers)
    state, messages = expected_state(plan, config, layers), expected_messages(plan, config, layers)
    differences = [
        f"{name}: counted {found}, closed form {wanted}"
        for name, found, wanted in (
            ("state bytes", counted["state_bytes"], state),
            *((kind, counted["messages"].get(kind), asdict(row)) for kind, row in messages.items()),
            *((kind, row, None) for kind, row in counted["messages"].items() if kind not in messages),
        )
        if found != wanted
    ]
    if differences:
        fix = "this is a fault of the planner: please report the command"
        raise CauserieError("CAU-4309", "; ".join(differences), where="plan dryrun", fix=fix)
    expected = {"state_bytes": state, "messages": {kind: asdict(row) for kind, row in messages.items()}}
    return {"model": plan.name, "ranks": config.data * config.tensor * config.pipeline, **counted, "expected": expected}


def _check(plan: Blueprint, config: DryrunConfig) -> int:
    """Layers of the stage that are run."""
    shape = plan.shape
    layout = Layout(
        config.data * config.micro_batch * config.micro_batches, config.seq_len, config.data, config.tensor,
        config.pipeline, micro_batch=config.micro_batch, shard="full",
    )  # fmt: skip
    check_layout(plan, layout)
    if plan.experts or shape.family not in DENSE_FAMILIES:
        fix = f"dry runs are made for dense models of the families {', '.join(DENSE_FAMILIES)}"
        raise CauserieError("CAU-4306", f"{plan.name} has no tensor plan", where="model", fix=fix)
    if shape.n_layer % config.pipeline:
        fix = f"pipeline must divide the {shape.n_layer} layers in a dry run"
        raise CauserieError("CAU-4306", f"pipeline is {config.pipeline}", where="pipeline", fix=fix)
    if shape.n_kv_head % config.tensor:
        fix = f"tensor must divide the {shape.n_kv_head} key heads in a dry run"
        raise CauserieError("CAU-4306", f"tensor is {config.tensor}", where="tensor", fix=fix)
    if not 0 <= config.stage < config.pipeline:
        fix = f"give 0 to {config.pipeline - 1}"
        raise CauserieError("CAU-4306", f"stage is {config.stage}", where="stage", fix=fix)
    most = shape.n_layer // config.pipeline
    if config.layers is not None and not 1 <= config.layers <= most:
        raise CauserieError("CAU-4306", f"layers is {config.layers}", where="layers", fix=f"give 1 to {most}")
    return config.layers or most


def sharded_sizes(plan: Blueprint, config: DryrunConfig, layers: int) -> tuple[list[list[tuple[int, int]]], int]:
    """Per FSDP group its parameters as (rows, columns) on one tensor rank: the blocks', then the root's."""
    shape, t = plan.shape, config.tensor
    d, q, kv = shape.n_embd, shape.n_head * shape.head_dim // t, shape.n_kv_head * shape.head_dim // t
    f = shape.ffn_dim // t
    block = [(q, d), (kv, d), (kv, d), (d, q), (f, d), (f, d), (d, f), (d, 1), (d, 1)]
    if shape.row.qk_norm:
        block += [(shape.head_dim, 1)] * 2
    root = []
    if config.stage == 0:
        root.append((math.ceil(shape.vocab_size / t), d))
    if config.stage == config.pipeline - 1:
        root += [(math.ceil(shape.vocab_size / t), d), (d, 1)]
    return [block] * layers + ([root] if root else []), len(root)


def expected_state(plan: Blueprint, config: DryrunConfig, layers: int) -> int:
    """Bytes of float32 weights, gradients and Adam's two moments that a rank holds: 16 a sharded parameter.

    FSDP2 cuts along rows; the first rank holds ceil(rows / data) of them.
    """
    groups, _ = sharded_sizes(plan, config, layers)
    held = sum(math.ceil(rows / config.data) * columns for group in groups for rows, columns in group)
    return 4 * WHOLE * held


def expected_messages(plan: Blueprint, config: DryrunConfig, layers: int) -> dict[str, Messages]:
    """Messages of one update by kind.

    A micro-batch gathers each block's weights (bf16) twice, for the forward and the backward pass, or in a pipeline
    once, since they stay between the passes; the root's once; and scatters each group's gradients once (float32). A
    block reduces the residual stream over tensor twice in each pass and once more in recomputation, which stops at
    the last tensor that is needed; the embedding reduces it once, the head once in the backward pass. A stage sends
    its output on and its gradient back. A middle stage, whose FSDP root holds nothing, fetches one block too many at
    the end (torch 2.13's backward prefetch; seen, not derived).
    """
    groups, has_root = sharded_sizes(plan, config, layers)
    padded = [sum(math.ceil(r / config.data) * config.data * c for r, c in group) for group in groups]
    m = config.micro_batches
    first, last = config.stage == 0, config.stage == config.pipeline - 1
    stream = config.micro_batch * config.seq_len * plan.shape.n_embd * HALF
    found: dict[str, Messages] = {}
    if config.data > 1:
        blocks = sum(padded[:layers])
        root = padded[layers] if has_root else 0
        groups_count = layers + bool(has_root)
        passes = 2 if config.pipeline == 1 else 1
        gathers = m * (passes * layers + bool(has_root))
        size = m * HALF * (passes * blocks + root)
        if not has_root and layers > 1 and m > 1:
            gathers, size = gathers + 1, size + HALF * padded[0]
        found["all_gather data"] = Messages(gathers, size)
        found["reduce_scatter data"] = Messages(m * groups_count, m * WHOLE * (blocks + root))
    if config.tensor > 1:
        count = m * (5 * layers + first + last)
        found["all_reduce tensor"] = Messages(count, count * stream)
    hops = {"send pipeline": (not last) + (not first), "receive pipeline": (not first) + (not last)}
    for kind, each in hops.items():
        if each:
            found[kind] = Messages(m * each, m * each * stream)
    return found
