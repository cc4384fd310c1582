"""What can be set about preference runs: `causerie train dpo` and `causerie train kto`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from causerie.core import CauserieError
from causerie.train import TrainSettings, bad_setting


@dataclass(frozen=True, kw_only=True)
class PreferenceSettings(TrainSettings):
    """What DPO and KTO share."""

    model: Path
    """Model folder; or adapter folder, whose adapter is trained further. The reference is the model as it is given."""
    preferences: Path
    """Folder of the preferences (`pairs.jsonl`, `unpaired.jsonl`, and the same with `heldout-`)."""
    epochs: float | None = None
    """Limit: passes over the rows. Without any limit, one."""
    lora_rank: int = 0
    """Rank of a LoRA adapter; 0 trains all weights. An adapter that is trained further keeps its own."""
    lora_alpha: float | None = None
    """Scale of the adapter; twice the rank unless given."""
    beta: float = 0.1
    """Strength of the pull towards the reference: larger stays closer. Losses per token want larger values (5)."""
    measure_rows: int = 256
    """Rows of each side (training, held-out) that are measured before and after, at most."""
    batch_size: int = 8
    """Rows per update."""
    seq_len: int = 1024
    """Longest prompt with one answer, in tokens; longer ones are cut and counted."""
    optimizer: Literal["muon", "adamw"] = "adamw"
    """AdamW for all weights, or Muon for the matrices (not for adapters)."""
    lr: float | None = None
    """Peak learning rate; without it, a rule by model size (`default_preference_lr`).
    Ten times more has emptied a real model's answers within 40 updates."""
    schedule: Literal["wsd", "cosine", "linear"] = "linear"
    """Shape of the learning rate after warm-up."""
    weight_decay: float = 0.0
    """Decoupled weight decay of the matrices."""
    compile: Literal["auto", "on", "off"] = "off"
    """Compile the model; rows of many lengths make it compile again and again, so it is off."""

    def check(self) -> None:
        """See `TrainSettings.check`; also the fields of this class.

        Raises:
            CauserieError: CAU-4001 naming the field.
        """
        super().check()
        for name in ("beta", "epochs", "lora_alpha", "measure_rows"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise bad_setting(name, value, "a finite number above 0")
        if self.lora_rank < 0:
            raise bad_setting("lora_rank", self.lora_rank, "0 or a rank such as 16")
        if self.seq_len < 2:
            raise bad_setting("seq_len", self.seq_len, "at least 2 tokens")


@dataclass(frozen=True, kw_only=True)
class DpoConfig(PreferenceSettings):
    """`causerie train dpo`: move a model towards the answers that people chose over others."""

    name: str = "dpo"
    """Name of the artifact that is made."""
    loss: Literal["sigmoid", "sigmoid_norm", "ipo", "robust"] = "sigmoid"
    """DPO, DPO per token, IPO, or DPO for labels of which a share (`noise`) is wrong."""
    noise: float = 0.1
    """Share of flipped labels that `robust` expects."""
    nll_weight: float = 0.5
    """Weight of the chosen answers' nats per token beside the loss: keeps them likely and the model talking."""

    def check(self) -> None:
        """See `PreferenceSettings.check`."""
        super().check()
        if not 0 <= self.noise < 0.5:
            raise bad_setting("noise", self.noise, "a share from 0 to below 0.5")
        if not (math.isfinite(self.nll_weight) and self.nll_weight >= 0):
            raise bad_setting("nll_weight", self.nll_weight, "a finite number of at least 0")


@dataclass(frozen=True, kw_only=True)
class KtoConfig(PreferenceSettings):
    """`causerie train kto`: move a model by thumbs, up or down, on single answers."""

    name: str = "kto"
    """Name of the artifact that is made."""
    use_pairs: bool = False
    """Also take each pair as a liked and a disliked answer."""
    liked_weight: float | None = None
    """Weight of liked answers. Without both weights, the rarer side is weighted up until both weigh the same."""
    disliked_weight: float | None = None
    """Weight of disliked answers."""
    nll_weight: float = 0.0
    """Weight of the liked answers' nats per token beside the loss."""

    def check(self) -> None:
        """See `PreferenceSettings.check`; a KL estimate needs two rows at once.

        Raises:
            CauserieError: CAU-4102 for batches or micro-batches of one row.
        """
        super().check()
        if self.batch_size < 2 or self.micro_batch == 1:
            raise CauserieError(
                "CAU-4102",
                "the KL term is estimated from answers under each other's prompts; one row has no other",
                where="batch_size, micro_batch",
                fix="give at least 2 rows",
            )
        for name in ("liked_weight", "disliked_weight", "nll_weight"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise bad_setting(name, value, "a finite number of at least 0")
