"""Complete plans on paper: one model, one machine, everything a budget meeting asks, as Markdown, JSON and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from causerie.core import CauserieError, write_atomic, write_json
from causerie.plan.blueprint import Blueprint
from causerie.plan.commands import describe_found, find_model, shares
from causerie.plan.config import PlanConfig
from causerie.plan.count import CONVENTION, count, memory
from causerie.plan.frontier import optimum
from causerie.plan.hardware import GIB, HARDWARE, Hardware, hardware
from causerie.plan.law import Law
from causerie.plan.pictures import TIMES, layout_picture
from causerie.plan.run_cost import Bill, bill
from causerie.plan.search import Found, Search, search_layouts

CHINCHILLA: Final = Law(E=1.8172, A=477.8, B=2143.4, alpha=0.3473, beta=0.3672)
"""The corrected Chinchilla law (arXiv:2404.10102), re-fitted by `bench/plan_accuracy.py`."""


def plan_write(config: PlanConfig) -> dict[str, Any]:
    """Write a model's plan: counts, the best layout, its memory and time, the bill on each machine, the expected loss.

    The same settings write the same text.

    Raises:
        CauserieError: CAU-4301 for an unknown model, CAU-4307 for unknown hardware, CAU-4308 when nothing fits.
    """
    if config.out.suffix in ("", ".json", ".svg"):
        cause = f"{str(config.out)!r} is no name for the text: the figures and the picture go beside it"
        raise CauserieError("CAU-4301", cause, where="out", fix="end the name in .md")
    plan, machine = find_model(config.model), hardware(config.hardware)
    search = search_layouts(plan, machine, config.devices, global_batch=config.global_batch, seq_len=config.seq_len)
    best = search.best[0]
    costs = bill(plan, best.layout, machine, best.step, config.tokens)
    figures = {
        "model": plan.name,
        "count": count(plan, seq_len=config.seq_len),
        "serving": memory(plan, batch_size=1, seq_len=config.seq_len),
        "hardware": machine.name,
        **describe_found(best, machine),
        "run": asdict(costs),
        "elsewhere": elsewhere(plan, config),
        "expected_loss": expected_loss(plan, config.tokens),
    }
    picture = config.out.with_suffix(".svg")
    layout_picture(plan, best.layout, best.held, best.step, machine, picture)
    write_atomic(config.out, page(plan, machine, config, search, costs, figures))
    write_json(config.out.with_suffix(".json"), figures)
    return {"plan": str(config.out), "picture": str(picture), "days": costs.days, "dollars": costs.dollars}


def expected_loss(plan: Blueprint, tokens: float) -> dict[str, float]:
    """What the Chinchilla law says, and what the same FLOPs would reach at its optimum; dense parameters that a token
    meets stand for N, which for experts is a lower bound on quality."""
    n = float(plan.active_matrix_params)
    best = optimum(CHINCHILLA, 6 * n * tokens)
    return {
        "loss": CHINCHILLA.loss(n, tokens), "tokens_per_parameter": tokens / n, "optimal_loss": best.loss,
        "optimal_parameters": best.params, "optimal_tokens": best.tokens,
    }  # fmt: skip


def elsewhere(plan: Blueprint, config: PlanConfig) -> list[dict[str, Any]]:
    """The same run on as many devices of every other accelerator of the table, where it fits."""
    rows: list[dict[str, Any]] = []
    for name in HARDWARE:
        if HARDWARE[name].node < 8:
            continue
        machine = hardware(name)
        try:
            best = search_layouts(
                plan, machine, config.devices, global_batch=config.global_batch, seq_len=config.seq_len, keep=1
            ).best[0]
        except CauserieError as error:
            rows.append({"hardware": name, "why_not": error.cause})
            continue
        costs = bill(plan, best.layout, machine, best.step, config.tokens)
        rows.append(
            {"hardware": name, "words": best.layout.words(), "mfu": best.step.mfu, "days": costs.days}
            | {"dollars": costs.dollars, "megawatt_hours": costs.megawatt_hours}
        )
    return rows


def page(
    plan: Blueprint, machine: Hardware, config: PlanConfig, search: Search, costs: Bill, figures: dict[str, Any]
) -> str:
    """The plan as Markdown."""
    best = search.best[0]
    title = config.title or f"A plan for {plan.name}"
    command = (
        f"causerie plan write {config.model} --hardware {config.hardware} --devices {config.devices} --tokens "
        f"{config.tokens:g} --global-batch {config.global_batch} --seq-len {config.seq_len} --out {config.out.name}"
    )
    parts = [
        f"# {title}\n",
        f"Written by `{command}`; a test writes it again and compares. {plan.note}\n".replace("  ", " "),
        "## What it is\n",
        _table(("figure", "value"), _count_rows(plan, figures)),
        f"FLOPs: {CONVENTION}.\n",
        f"## Layout on {config.devices:,} {machine.name}\n",
        f"**{best.layout.words()}**: the fastest of {search.fitting:,} layouts that fit, of {search.possible:,} that "
        f"are possible, of {search.tried:,} looked at.\n",
        f"![The layout, a device's memory, an update's time]({config.out.with_suffix('.svg').name})\n",
        "Memory of the fullest device:\n",
        _table(("part", "GiB"), _memory_rows(best, machine)),
        "An update:\n",
        _table(("where the time goes", "seconds", "share"), _time_rows(best)),
        _next_best(search),
        "## The run\n",
        _table(("figure", "value"), _run_rows(best, costs, machine, config)),
        "## Elsewhere\n",
        f"The same run on {config.devices:,} devices of other kinds, each with its own best layout:\n",
        _table(("hardware", "layout", "MFU", "days", "GWh", "million dollars"), _elsewhere_rows(figures["elsewhere"])),
        "## What it should reach\n",
        _loss_words(figures["expected_loss"], config.tokens),
        "## How far to trust this\n",
        _trust(machine),
    ]
    return "\n".join(parts)


def _count_rows(plan: Blueprint, figures: dict[str, Any]) -> list[tuple[str, str]]:
    shape, counted, serving = plan.shape, figures["count"], figures["serving"]
    rows = [
        ("layers, width", f"{shape.n_layer}, {shape.n_embd:,}"),
        ("heads, key heads, their size", f"{shape.n_head}, {shape.n_kv_head}, {shape.head_dim}"),
        ("parameters", f"{counted['parameters'] / 1e9:,.1f} G"),
        ("parameters that a token meets", f"{counted['matrix_parameters'] / 1e9:,.1f} G"),
    ]
    if plan.experts:
        e = plan.experts
        rows.append(("experts", f"{e.count} of inner width {e.dim:,}, {e.active} active, shared {e.shared_dim:,}"))
    rows += [
        ("FLOPs of a token in training", f"{counted['flops_per_token'] / 1e12:,.2f} T"),
        ("bf16 weights", f"{plan.n_params * 2 / GIB:,.0f} GiB"),
        ("key-value cache of one full context, bf16", f"{serving['cache'] / GIB:,.2f} GiB"),
    ]
    return rows


def _memory_rows(best: Found, machine: Hardware) -> list[tuple[str, str]]:
    rows = [(name, f"{value / GIB:,.1f}") for name, value in vars(best.held).items() if value]
    return [*rows, ("together", f"{best.held.total / GIB:,.1f} of {machine.memory / GIB:,.0f}")]


def _time_rows(best: Found) -> list[tuple[str, str, str]]:
    part = shares(best.step)
    rows = [(TIMES[k], f"{getattr(best.step, k):,.3f}", f"{100 * v:.1f} %") for k, v in part.items() if v > 5e-4]
    return [*rows, ("together", f"{best.step.seconds:,.3f}", "")]


def _next_best(search: Search) -> str:
    if len(search.best) < 2:
        return ""
    first = search.best[0].step.seconds
    rows = [
        (row.layout.words(), f"+{100 * (row.step.seconds / first - 1):.1f} %", f"{row.held.total / GIB:,.0f}")
        for row in search.best[1:]
    ]
    return "Next best:\n\n" + _table(("layout", "time", "GiB"), rows)


def _run_rows(best: Found, costs: Bill, machine: Hardware, config: PlanConfig) -> list[tuple[str, str]]:
    good = costs.goodput
    return [
        ("tokens", f"{config.tokens / 1e12:,.2f} T in {costs.steps:,} updates of {best.layout.tokens / 1e6:,.1f} M"),
        ("FLOPs", f"{costs.flops:.2e}"),
        ("MFU", f"{100 * best.step.mfu:.1f} %, {best.step.tokens_per_second_per_device:,.0f} tokens/s a device"),
        ("time between failures", f"{good.mtbf_seconds / 3600:,.1f} h; {costs.failures:,.0f} failures"),
        ("checkpoint", f"{good.checkpoint_seconds:,.0f} s every {good.interval_seconds / 60:,.0f} min (Daly)"),
        ("goodput", f"{100 * good.share:.1f} %"),
        ("days", f"{costs.days:,.1f}"),
        ("device hours", f"{costs.device_hours / 1e6:,.2f} M"),
        ("energy", f"{costs.megawatt_hours / 1e3:,.1f} GWh at {machine.watts:,.0f} W a device, host and losses in"),
        ("price", f"{costs.dollars / 1e6:,.1f} M$ at {machine.dollars:.2f} $ an hour"),
    ]


def _elsewhere_rows(rows: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for row in rows:
        if "why_not" in row:
            found.append((row["hardware"], row["why_not"], "", "", "", ""))
        else:
            energy, price = f"{row['megawatt_hours'] / 1e3:,.1f}", f"{row['dollars'] / 1e6:,.0f}"
            found.append(
                (row["hardware"], row["words"], f"{100 * row['mfu']:.0f} %", f"{row['days']:,.0f}", energy, price)
            )
    return found


def _loss_words(loss: dict[str, float], tokens: float) -> str:
    return (
        f"By the corrected Chinchilla law (E 1.8172, A 477.8, B 2143.4, alpha 0.3473, beta 0.3672; its own tokenizer "
        f"and text): {loss['loss']:.3f} nats a token after {tokens / 1e12:.1f} T tokens, "
        f"{loss['tokens_per_parameter']:.0f} for each parameter that a token meets. The same compute at the law's "
        f"optimum: {loss['optimal_loss']:.3f} with {loss['optimal_parameters'] / 1e9:,.0f} G parameters "
        f"and {loss['optimal_tokens'] / 1e12:,.1f} T tokens. This is far outside the runs the law was fitted to (the "
        "largest is 1e22 FLOPs): a direction, not a promise. A ladder of one's own comes first (`plan ladder`).\n"
    )


def _trust(machine: Hardware) -> str:
    fitted = {
        "a100": "fitted to eight Megatron runs on A100 (mean error 2.7 %, largest 6.4 %)",
        "h100": "fitted to one published run on H100 (Nemotron-4 340B)",
    }.get(machine.fitted_on, "assumed: no published run was fitted")
    return (
        f"One constant of the step model is {fitted}; on 350 measured rows it never saw it is too fast by a median of "
        "15 to 19 % (PyTorch's eager mode and early cluster work are slower than Megatron): `bench/plan_accuracy.py` "
        "prints all of it. Slow nodes and a crowded network are not modelled. Memory counts what a program must hold; "
        "allocator and communication buffers come on top, for which 8 % of each device is left free. Messages of "
        "experts are counted as not hidden. Prices are list prices.\n"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def plan_again(config: PlanConfig, out: Path) -> str:
    """The plan's text as `config` writes it, written to `out` instead; for the test that compares."""
    plan_write(replace(config, out=out))
    return out.read_text(encoding="utf-8")
