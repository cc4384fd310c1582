"""What can be set about alignment runs: `causerie train reward`, `dpo`, `kto` and `grpo`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from causerie.core import CauserieError
from causerie.train import TrainSettings, bad_setting


@dataclass(frozen=True, kw_only=True)
class AlignSettings(TrainSettings):
    """What all alignment stages share."""

    model: Path
    """Model folder; or adapter folder, whose adapter is trained further. The reference is the model as it is given."""
    epochs: float | None = None
    """Limit: passes over the rows. Without any limit, one."""
    lora_rank: int = 0
    """Rank of a LoRA adapter; 0 trains all weights. An adapter that is trained further keeps its own."""
    lora_alpha: float | None = None
    """Scale of the adapter; twice the rank unless given."""
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

    def inputs(self) -> dict[str, Path]:
        """Files and folders that the result depends on beside the model, by name."""
        return {}

    def check(self) -> None:
        """See `TrainSettings.check`; also the fields of this class.

        Raises:
            CauserieError: CAU-4001 naming the field.
        """
        super().check()
        _positive(self, "epochs", "lora_alpha", "measure_rows")
        if self.lora_rank < 0:
            raise bad_setting("lora_rank", self.lora_rank, "0 or a rank such as 16")
        if self.seq_len < 2:
            raise bad_setting("seq_len", self.seq_len, "at least 2 tokens")


@dataclass(frozen=True, kw_only=True)
class PreferenceSettings(AlignSettings):
    """What DPO and KTO share."""

    preferences: Path
    """Folder of the preferences (`pairs.jsonl`, `unpaired.jsonl`, and the same with `heldout-`)."""
    beta: float = 0.1
    """Strength of the pull towards the reference: larger stays closer. Losses per token want larger values (5)."""
    snapshots: int = 0
    """Models kept from on the way, evenly spaced, beside the result: whole folders in the run's `snapshots/`."""

    def inputs(self) -> dict[str, Path]:
        """See `AlignSettings.inputs`."""
        return {"preferences": self.preferences}

    def check(self) -> None:
        """See `AlignSettings.check`."""
        super().check()
        _positive(self, "beta")
        if self.snapshots < 0:
            raise bad_setting("snapshots", self.snapshots, "0 or a number of models")


@dataclass(frozen=True, kw_only=True)
class RewardConfig(AlignSettings):
    """`causerie train reward`: a model that says how much people would like an answer."""

    name: str = "reward"
    """Name of the artifact that is made."""
    preferences: Path
    """Folder of the preferences (`pairs.jsonl`, `rankings.jsonl` for K ranked answers, the same with `heldout-`)."""
    centring: float = 0.01
    """Weight of (r₊ + r₋)², which holds the rewards around 0."""
    probe: bool = True
    """Start from the head that logistic regression finds on the untrained trunk's last states; else from zero."""
    probe_l2: float | None = None
    """Ridge of that regression, on features of deviation 1; without it, the best of a few in five folds by prompt."""
    layers: int | None = None
    """Keep only the first so many blocks: middle layers often know more of an answer's worth than the last ones, and
    the model becomes smaller. Without it, all."""
    head_only: bool = False
    """Train the head alone; the trunk stays as given."""
    measure_rows: int = 2048
    """Rows of each side (training, held-out) that are measured before and after, at most."""

    def inputs(self) -> dict[str, Path]:
        """See `AlignSettings.inputs`."""
        return {"preferences": self.preferences}

    def check(self) -> None:
        """See `AlignSettings.check`."""
        super().check()
        _positive(self, "probe_l2", "layers")
        if not (math.isfinite(self.centring) and self.centring >= 0):
            raise bad_setting("centring", self.centring, "a finite number of at least 0")
        if self.head_only and self.lora_rank:
            raise bad_setting("lora_rank", self.lora_rank, "0 with head_only: the trunk is not trained")


@dataclass(frozen=True, kw_only=True)
class GrpoConfig(AlignSettings):
    """`causerie train grpo`: learn from rewards of the model's own answers (GRPO, Dr. GRPO, DAPO)."""

    name: str = "grpo"
    """Name of the artifact that is made."""
    prompts: Path
    """JSONL file of `{"prompt": text or messages}` and what the rewards read, such as `"answer"`."""
    heldout: Path | None = None
    """JSONL file of prompts to measure on; without it, `heldout_fraction` of the prompts is kept apart."""
    heldout_fraction: float = 0.1
    """Share of the prompts kept apart, chosen by a hash of the prompt."""
    rewards: tuple[Literal["arithmetic", "format", "instructions", "learned", "graded"], ...] = ("arithmetic",)
    """Rewards that are added up: exact number, shape of the answer, IFEval's instructions, a reward model, a grader."""
    reward_weights: tuple[float, ...] = ()
    """Weight of each reward; 1 unless given."""
    reward_model: Path | None = None
    """Folder of the reward model, for `learned`."""
    grader: Path | None = None
    """JSON file of a grader as the API spells it (`string_check`, `text_similarity`, `multi`), for `graded`; templates
    read `{{item.…}}` from the prompt's row and `{{sample.output_text}}`."""
    variant: Literal["grpo", "dr_grpo", "dapo"] = "dapo"
    """How token losses become one (means as in the papers); `dr_grpo` also leaves the deviation out of the advantage,
    `dapo` leaves out groups whose rewards are all equal."""
    advantage: Literal["group", "rloo"] = "group"
    """Reward minus the group's mean (over its deviation except in `dr_grpo`), or minus the mean of the others."""
    group_size: int = 8
    """Answers sampled per prompt."""
    batch_size: int = 16
    """Prompts per rollout, and per update."""
    passes: int = 1
    """Updates on each rollout (μ of the paper)."""
    max_tokens: int = 64
    """Tokens of an answer, at most; Dr. GRPO's constant."""
    temperature: float = 1.0
    """Of the sampling; log-probabilities are those at the same temperature."""
    clip_low: float = 0.2
    """The ratio of new to old probability counts down to 1 minus this."""
    clip_high: float | None = None
    """The ratio counts up to 1 plus this; without it 0.28 for `dapo` (clip-higher), else as `clip_low`."""
    beta: float = 0.0
    """Weight of the KL estimate to the model as given; 0 spares its forward pass."""
    kl: Literal["k1", "k2", "k3"] = "k3"
    """Estimator of that KL."""
    mask_truncated: bool = False
    """Answers cut at `max_tokens` teach nothing (they still count in their group's mean)."""
    overlong_buffer: int = 0
    """DAPO's soft punishment: over the last so many tokens before `max_tokens` the reward falls by up to 1."""
    snapshots: int = 0
    """Models kept from on the way, evenly spaced, beside the result: whole folders in the run's `snapshots/`."""
    lr: float | None = None
    """Peak learning rate; without it, a rule by model size (`default_preference_lr`)."""
    schedule: Literal["wsd", "cosine", "linear"] = "wsd"
    """Shape of the learning rate after warm-up."""
    precision: Literal["auto", "bf16", "fp32"] = "fp32"
    """Arithmetic; fp32 keeps the trainer's log-probabilities equal to the engine's to about 1e-5."""

    def inputs(self) -> dict[str, Path]:
        """See `AlignSettings.inputs`."""
        more = {"heldout": self.heldout, "reward_model": self.reward_model, "grader": self.grader}
        return {"prompts": self.prompts, **{name: path for name, path in more.items() if path is not None}}

    @property
    def upper_clip(self) -> float:
        """`clip_high` or what stands for it."""
        return self.clip_high if self.clip_high is not None else 0.28 if self.variant == "dapo" else self.clip_low

    def check(self) -> None:
        """See `AlignSettings.check`."""
        super().check()
        _positive(self, "max_tokens", "temperature", "passes", "clip_low", "clip_high")
        if self.snapshots < 0:
            raise bad_setting("snapshots", self.snapshots, "0 or a number of models")
        if self.group_size < 2:
            raise bad_setting("group_size", self.group_size, "at least 2: a group of one has no mean to beat")
        if not (math.isfinite(self.beta) and self.beta >= 0):
            raise bad_setting("beta", self.beta, "a finite number of at least 0")
        if not 0 <= self.overlong_buffer < self.max_tokens:
            raise bad_setting("overlong_buffer", self.overlong_buffer, "a number from 0 to below max_tokens")
        if not 0 <= self.heldout_fraction <= 0.5:
            raise bad_setting("heldout_fraction", self.heldout_fraction, "a number from 0 to 0.5")
        if not self.rewards or (self.reward_weights and len(self.reward_weights) != len(self.rewards)):
            raise bad_setting("reward_weights", self.reward_weights, "one weight for each reward")
        if ("learned" in self.rewards) != (self.reward_model is not None):
            raise bad_setting("reward_model", self.reward_model, "a folder with the reward 'learned', and only then")
        if ("graded" in self.rewards) != (self.grader is not None):
            raise bad_setting("grader", self.grader, "a file with the reward 'graded', and only then")


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


def _positive(settings: AlignSettings, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise bad_setting(name, value, "a finite number above 0")
