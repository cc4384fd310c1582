"""Log-probabilities of many completions without gradient: the reference's, and those of evaluations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from causerie.align.batches import length_batches
from causerie.align.shared_rows import Group, completion_log_probs, layout
from causerie.core import artifact_key, code_digest, find_artifact, sha256_json, track, write_artifact
from causerie.model import Transformer

BATCH_TOKENS = 2048
"""Tokens scored at once."""

Score = Callable[[Transformer, Mapping[str, Tensor]], Tensor]
"""One figure per completion, `(G,)`, of a batch made by `layout`."""


def log_prob_sums(model: Transformer, batch: Mapping[str, Tensor]) -> Tensor:
    """Summed log-probability of each completion, `(G,)`: the usual `Score`."""
    return completion_log_probs(model, batch).sums


def score_groups(
    model: Transformer, groups: Sequence[Group], *, label: str = "score", score: Score = log_prob_sums
) -> Tensor:
    """A figure of every completion, `(n, k) float32` on the CPU, for n groups of at most k completions each.

    Eval mode, no gradients; groups of similar length share a batch. Where a group has fewer completions, 0 stands.
    """
    found = torch.zeros((len(groups), max((len(group.completions) for group in groups), default=0)))
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), track(label, len(groups), "prompts") as tracker:
            for indices in length_batches([group.length for group in groups], BATCH_TOKENS):
                batch = {name: value.to(device) for name, value in layout([groups[i] for i in indices]).items()}
                values = score(model, batch).float().cpu().split([len(groups[i].completions) for i in indices])
                for index, value in zip(indices, values, strict=True):
                    found[index, : len(value)] = value
                tracker.advance(len(indices))
    finally:
        model.train(training)
    return found


def reference_log_probs(
    model: Transformer, groups: Sequence[Group], *, workspace: Path, model_key: str, precision: str, label: str
) -> Tensor:
    """The reference's log-probabilities, computed once: kept as an artifact named by the content they depend on.

    Args:
        model: the weights as they are before the first update.
        groups: n groups of k completions.
        workspace: where the artifact (kind "reference") is kept.
        model_key: key of the model folder.
        precision: what the numbers depend on beside weights and tokens: arithmetic, device.
        label: what the progress bar says.

    Returns:
        `(n, k) float32` on the CPU.
    """
    data = sha256_json([[list(group.prompt), [list(c) for c in group.completions]] for group in groups])
    inputs = {"model": model_key, "groups": data}
    key = artifact_key("reference", {"precision": precision}, inputs, code_digest("causerie.align", "causerie.model"))
    there = find_artifact(workspace, "reference", "log-probs", key)
    if there is not None:
        return load_file(there.file("log_probs.safetensors"))["log_probs"]
    values = score_groups(model, groups, label=label)
    config = {"precision": precision, "groups": len(groups)}
    with write_artifact(workspace, "reference", "log-probs", key, inputs=inputs, config=config) as draft:
        save_file({"log_probs": values.contiguous()}, draft.path / "log_probs.safetensors")
    return values
