"""Offline generation: a list of prompts in, their completions out. Used by evaluations and rollouts."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence

from causerie.infer.engine import Engine
from causerie.infer.request import Completion, Event, Sampling, join_events


def generate_batch(
    engine: Engine,
    prompts: Sequence[list[int]],
    sampling: Sampling | Sequence[Sampling],
    *,
    on_finish: Callable[[int, Completion], None] | None = None,
) -> list[Completion]:
    """Complete all prompts, as many at once as the engine holds.

    Args:
        engine: an engine without other work.
        prompts: token ids of each.
        sampling: one for all, or one each. With one seeded `Sampling` for all, equal prompts get equal completions:
            give each its own seed to sample a prompt several times.
        on_finish: called with a prompt's index and completion as each ends.

    Returns:
        Completions in the order of the prompts.

    Raises:
        CauserieError: CAU-3101 when a prompt cannot be served; nothing is generated then.
    """
    settings = [sampling] * len(prompts) if isinstance(sampling, Sampling) else list(sampling)
    call = uuid.uuid4().hex  # an earlier call that was broken off may have left events behind
    names = [f"{call}-{index}" for index in range(len(prompts))]
    added: list[str] = []
    try:
        for name, prompt, setting in zip(names, prompts, settings, strict=True):
            engine.add(name, prompt, setting)
            added.append(name)
        return _collect(engine, names, on_finish)
    except BaseException:
        for name in added:
            engine.cancel(name)
        raise


def _collect(engine: Engine, names: list[str], on_finish: Callable[[int, Completion], None] | None) -> list[Completion]:
    parts: dict[str, list[Event]] = {name: [] for name in names}
    done: dict[str, Completion] = {}
    places = {name: index for index, name in enumerate(names)}
    while len(done) < len(names):
        for event in engine.step():
            if event.request_id not in parts:
                continue
            parts[event.request_id].append(event)
            if event.finish:
                completion = join_events(parts[event.request_id])
                done[event.request_id] = completion
                if on_finish:
                    on_finish(places[event.request_id], completion)
    return [done[name] for name in names]
