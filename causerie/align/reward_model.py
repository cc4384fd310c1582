"""A reward model: a transformer whose last hidden state of an answer is turned into one number.

On disk it is a Hugging Face folder for sequence classification with one label (`AutoModelForSequenceClassification`,
`num_labels=1`): the trunk's tensors and `score.weight` (1, D). The reward is read at the answer's last token, which is
its end-of-turn token; transformers reads it at the last token that is not padding, so the two agree.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from causerie.align.shared_rows import group_hidden
from causerie.core import CauserieError, read_json, write_json
from causerie.model import FAMILIES, Transformer, load_model, lora_parameters, merge_lora, save_model, save_tensors
from causerie.text import load_tokenizer

WEIGHTS: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
SCORE: Final = "score.weight"


def add_score(model: Transformer, weight: Tensor | None = None) -> None:
    """Give the model a trained scoring head, `model.score`; zero (every reward 0) unless `weight` (D,) is given."""
    head = nn.Linear(model.shape.n_embd, 1, bias=False, device=model.embed_tokens.weight.device)
    with torch.no_grad():
        if weight is None:
            head.weight.zero_()
        else:
            head.weight.copy_(weight[None])
    model.score = head


def keep_layers(model: Transformer, count: int) -> None:
    """Drop all but the first `count` blocks in place; the final norm then follows the last one kept.

    Raises:
        CauserieError: CAU-4103 when the model has fewer.
    """
    shape = model.shape
    if not 0 < count <= shape.n_layer:
        raise CauserieError(
            "CAU-4103", f"{count} blocks of {shape.n_layer} were asked for", where="layers", fix="give fewer, or none"
        )
    model.layers = model.layers[:count]
    model.shape = replace(shape, n_layer=count, local_layers=shape.local_layers[:count])


def score_weight(model: Transformer) -> Tensor:
    """The scoring head's weight, (D,).

    Raises:
        CauserieError: CAU-4104 when the model has none.
    """
    head = getattr(model, "score", None)
    if not isinstance(head, nn.Linear):
        raise not_a_reward_model("the model has no scoring head", "")
    return head.weight[0]


def read_states(model: Transformer, batch: Mapping[str, Tensor]) -> Tensor:
    """What the reward is read from: the hidden state of each completion's last token, (G, D) float32."""
    return group_hidden(model, batch)[batch["ends"]].float()


def rewards(model: Transformer, batch: Mapping[str, Tensor]) -> Tensor:
    """Reward of every completion of a batch made by `layout`, (G,) float32, differentiable."""
    return (read_states(model, batch) * score_weight(model).float()).sum(-1)


def save_reward(model: Transformer, folder: Path, tokenizer_from: Path, *, dtype: torch.dtype | None = None) -> None:
    """Write the folder described above; an adapter is merged first, so the model given is a plain one afterwards.

    Args:
        model: with a scoring head.
        folder: an existing folder, such as an artifact's draft.
        tokenizer_from: folder whose tokenizer and notices are copied.
        dtype: of the stored trunk; None keeps the model's.
    """
    weight = score_weight(model).detach().clone()
    del model.score
    if lora_parameters(model):
        merge_lora(model)
    save_model(model, folder, tokenizer_from, dtype=dtype)
    tensors = _read_all(folder)
    tensors.pop("lm_head.weight", None)
    for shard in (*folder.glob("model-*.safetensors"), folder / INDEX):
        shard.unlink(missing_ok=True)
    save_tensors(
        {**tensors, SCORE: weight[None].float().cpu().contiguous()}, folder / WEIGHTS, metadata={"format": "pt"}
    )
    config = read_json(folder / "config.json")
    architecture = str(config["architectures"][0]).replace("ForCausalLM", "ForSequenceClassification")
    architecture = architecture.replace("LMHeadModel", "ForSequenceClassification")
    labels: dict[str, Any] = {"id2label": {"0": "reward"}, "label2id": {"reward": 0}, "num_labels": 1}
    labels |= {"architectures": [architecture], "tie_word_embeddings": True, "pad_token_id": _padding(folder, config)}
    write_json(folder / "config.json", {**config, **labels})
    (folder / "generation_config.json").unlink(missing_ok=True)
    add_score(model, weight)


def load_reward(folder: Path, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Transformer:
    """Load a reward model folder, ours or one that transformers or TRL wrote with one label and no bias.

    Raises:
        CauserieError: CAU-4104 when the folder is not such a model; CAU-300x as `load_model`.
    """
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    tensors = _read_all(folder) if config else {}
    weight = tensors.pop(SCORE, None)
    family = next((row for row in FAMILIES.values() if row.model_type == config.get("model_type")), None)
    if weight is None or family is None or weight.shape[0] != 1:
        raise not_a_reward_model("no model with a score of one label is here", str(folder))
    with tempfile.TemporaryDirectory() as place:
        trunk = Path(place)
        save_tensors(tensors, trunk / WEIGHTS, metadata={"format": "pt"})
        changed = {"architectures": [family.architecture], "tie_word_embeddings": True}
        (trunk / "config.json").write_text(json.dumps({**config, **changed}), encoding="utf-8")
        model = load_model(trunk, dtype=dtype, device=device)
    add_score(model, weight[0].float().to(device))
    return model


def is_reward_model(folder: Path) -> bool:
    """Whether a folder holds a model for sequence classification."""
    if not (folder / "config.json").is_file():
        return False
    named: Sequence[str] = read_json(folder / "config.json").get("architectures") or ()
    return any(str(name).endswith("ForSequenceClassification") for name in named)


def not_a_reward_model(cause: str, where: str) -> CauserieError:
    """CAU-4104."""
    return CauserieError("CAU-4104", cause, where=where, fix="train one with causerie train reward")


def _read_all(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a folder's one or several safetensors files."""
    found: dict[str, Tensor] = {}
    for path in sorted(folder.glob("model*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                found.update({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 - not a dict
        except (SafetensorError, OSError) as error:
            raise not_a_reward_model(f"not a readable safetensors file: {error}", str(path)) from error
    return found


def _padding(folder: Path, config: Mapping[str, Any]) -> int | None:
    """A padding id for transformers that is no end-of-turn: it looks for the last token that is not padding."""
    ends = config.get("eos_token_id") or []
    ends = [ends] if isinstance(ends, int) else ends
    if (given := config.get("pad_token_id")) is not None and given not in ends:
        return int(given)
    special = load_tokenizer(folder).special.values()
    return next((id for id in special if id not in ends), None)
