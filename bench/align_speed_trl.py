"""TRL's side of `align_speed.py`; run by the interpreter of an environment that has trl, never by ours.

    PEER_PYTHON bench/align_speed_trl.py FOLDER TASK default|tuned

FOLDER holds `model` (causal), `reward` (one label), `rows.json` (token ids) and `settings.json`. Token ids are fed as
words of a word-level tokenizer, so that both sides train on the same ids. Prints one JSON object.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.utils.data import SequentialSampler
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
    TrainerCallback,
)


def main() -> None:
    """Train a few steps and print losses and seconds per step."""
    folder, task, mode = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    settings = json.loads((folder / "settings.json").read_text())
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(0)
    rows = json.loads((folder / "rows.json").read_text())[task]
    clock = Clock()
    trainer = make(task.partition("-")[0], mode, folder, rows, settings, clock)
    began = time.perf_counter()
    trainer.train()
    found = {
        "losses": [e["loss"] for e in trainer.state.log_history if "loss" in e],
        "grad_norms": [float(e["grad_norm"]) for e in trainer.state.log_history if "grad_norm" in e],
        "seconds": clock.seconds,
        "cpu_seconds": clock.cpu,
        "whole": time.perf_counter() - began,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    sys.stdout.write("\n" + json.dumps(found) + "\n")


class Clock(TrainerCallback):
    """Seconds of every step, from the end of the one before (collating and, in GRPO, generating are part of a step)."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.cpu: list[float] = []
        self.last = (0.0, 0.0)

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.last = (time.perf_counter(), time.process_time())

    def on_step_end(self, *_: Any, **__: Any) -> None:
        now = (time.perf_counter(), time.process_time())
        self.seconds.append(now[0] - self.last[0])
        self.cpu.append(now[1] - self.last[1])
        self.last = now


def tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """Word n is the text `tn`; words 0, 1 and 2 pad, end a text and stand for what is unknown."""
    inner = Tokenizer(models.WordLevel({word(n): n for n in range(vocabulary)}, unk_token=word(2)))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token=word(0), eos_token=word(1), unk_token=word(2))


def word(n: int) -> str:
    """How an id is written."""
    return ("<pad>", "</s>", "<unk>")[n] if n < 3 else f"t{n}"


def text(ids: list[int], lead: str = "") -> str:
    """Ids as words."""
    return lead + " ".join(map(word, ids))


def make(task: str, mode: str, folder: Path, rows: list[Any], settings: dict[str, Any], clock: Clock) -> Any:
    """The trainer of a task."""
    import trl

    words = tokenizer(settings["vocabulary"])
    tuned = mode == "tuned"
    common: dict[str, Any] = {
        "output_dir": str(folder / "trl"), "max_steps": settings["steps"], "learning_rate": settings["lr"],
        "per_device_train_batch_size": settings["batch"], "lr_scheduler_type": "constant", "warmup_steps": 0,
        "adam_beta2": 0.95, "adam_epsilon": 1e-10, "weight_decay": 0.0, "max_grad_norm": 1.0, "use_cpu": True,
        "bf16": settings["bf16"], "logging_steps": 1, "save_strategy": "no", "report_to": "none", "disable_tqdm": True,
        "gradient_checkpointing": not tuned, "dataloader_pin_memory": False, "seed": 0,
    }  # fmt: skip
    if task == "reward":
        model = AutoModelForSequenceClassification.from_pretrained(folder / "reward", dtype=torch.float32, num_labels=1)
        data = [{"chosen_ids": p + c, "rejected_ids": p + r} for p, c, r in rows]
        config = trl.RewardConfig(**common, max_length=None, center_rewards_coefficient=None)
        trainer = in_order(trl.RewardTrainer)
    else:
        model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32, attn_implementation="sdpa")
    if task == "dpo":
        data = [{"prompt": text(p), "chosen": text(c, " "), "rejected": text(r, " ")} for p, c, r in rows]
        config = trl.DPOConfig(**common, beta=0.1, max_length=None, precompute_ref_log_probs=tuned)
        trainer = in_order(trl.DPOTrainer)
    elif task == "kto":
        data = [{"prompt": text(p), "completion": text(c, " "), "label": bool(like)} for p, c, like in rows]
        config = trl.KTOConfig(**common, beta=0.1, max_length=None, precompute_ref_log_probs=tuned)
        trainer = in_order(trl.KTOTrainer)
    elif task == "sft":
        data = [{"prompt": text(p), "completion": text(c, " ")} for p, c in rows]
        config = trl.SFTConfig(**common, max_length=None, completion_only_loss=True, dataset_num_proc=None)
        if tuned and hasattr(config, "loss_type"):
            config.loss_type = settings.get("sft_loss", config.loss_type)
        trainer = in_order(trl.SFTTrainer)
    elif task == "grpo":
        return grpo(common, model, rows, settings, words, clock, tuned)
    extra = {"ref_model": AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)}
    more = extra if task in ("dpo", "kto") else {}
    return trainer(
        model=model,
        args=config,
        train_dataset=Dataset.from_list(data),
        processing_class=words,
        callbacks=[clock],
        **more,
    )


def grpo(common: dict[str, Any], model: Any, rows: Any, settings: Any, words: Any, clock: Clock, tuned: bool) -> Any:
    """GRPO with a reward that every answer can earn in part: the share of even ids."""
    import trl

    size = settings["group"]
    common["per_device_train_batch_size"] = settings["prompts"] * size

    def even(completions: list[str], **_: Any) -> list[float]:
        words = [answer.split() for answer in completions]
        ids = [[int(w[1:]) if w[1:].isdigit() else 1 for w in answer] for answer in words]
        return [sum(n % 2 == 0 for n in answer) / max(1, len(answer)) for answer in ids]

    config = trl.GRPOConfig(
        **common, num_generations=size, max_completion_length=settings["new_tokens"], temperature=1.0, beta=0.0,
        loss_type="dapo", epsilon_high=0.28, steps_per_generation=1, use_vllm=False,
    )  # fmt: skip
    data = Dataset.from_list([{"prompt": text(p)} for p in rows])
    return trl.GRPOTrainer(
        model=model, args=config, train_dataset=data, processing_class=words, reward_funcs=even, callbacks=[clock]
    )


def in_order(trainer: Any) -> Any:
    """The trainer with its rows in the order of the file."""

    class InOrder(trainer):  # type: ignore[misc]
        def _get_train_sampler(self, *_: Any) -> Any:
            return SequentialSampler(self.train_dataset)

    return InOrder


if __name__ == "__main__":
    main()
