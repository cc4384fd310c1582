"""The body of POST v1/fine_tuning/jobs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from causerie.serve.graders.shapes import Grader
from causerie.serve.shapes import Metadata, Name, Number, Plain, Short, Strict

Auto = Literal["auto"]
Count = Annotated[int, Field(ge=1, le=4_096)]
Epochs = Annotated[int, Field(ge=1, le=1_000)]
Multiplier = Annotated[Number, Field(gt=0, le=1_000)]


class Hyperparameters(Strict):
    """What every method has; `lora_rank` and `seq_len` are ours beside OpenAI's."""

    batch_size: Count | Auto | None = None
    learning_rate_multiplier: Multiplier | Auto | None = None
    """Factor on the trainer's own learning rate for a model of this size."""
    n_epochs: Epochs | Auto | None = None
    lora_rank: Annotated[int, Field(ge=0, le=1_024)] | Auto | None = None
    """Rank of the adapter that is trained; 0 trains all weights; auto decides by the model's size."""
    seq_len: Annotated[int, Field(ge=2, le=2**17)] | Auto | None = None
    """Tokens of the longest row."""


class DpoHyperparameters(Hyperparameters):
    """Those of dpo."""

    beta: Annotated[Number, Field(gt=0, le=100)] | Auto | None = None


class ReinforcementHyperparameters(DpoHyperparameters):
    """Those of reinforcement."""

    compute_multiplier: Annotated[Number, Field(gt=0, le=16)] | Auto | None = None
    """Answers drawn for each prompt, in units of eight."""
    eval_interval: Count | Auto | None = None
    eval_samples: Count | Auto | None = None
    reasoning_effort: Literal["default", "low", "medium", "high"] | None = None


class Supervised(Strict):
    """Learning from conversations."""

    hyperparameters: Hyperparameters | None = None


class Dpo(Strict):
    """Learning from pairs of answers."""

    hyperparameters: DpoHyperparameters | None = None


class Reinforcement(Strict):
    """Learning from a grader."""

    grader: Grader
    hyperparameters: ReinforcementHyperparameters | None = None
    response_format: Plain | None = None


class Method(Strict):
    """How to train, and the settings of that way."""

    type: Literal["supervised", "dpo", "reinforcement"]
    supervised: Supervised | None = None
    dpo: Dpo | None = None
    reinforcement: Reinforcement | None = None

    @model_validator(mode="after")
    def _needs_grader(self) -> Method:
        if self.type == "reinforcement" and self.reinforcement is None:
            raise ValueError("reinforcement needs a grader")
        return self

    @property
    def settings(self) -> Any:
        """The hyperparameters of the type chosen."""
        chosen = getattr(self, self.type)
        return (chosen and chosen.hyperparameters) or ReinforcementHyperparameters()


class WandbSettings(Strict):
    """Where Weights and Biases would be told; this server tells nobody."""

    project: Short
    entity: Short | None = None
    name: Short | None = None
    tags: Annotated[list[Short], Field(max_length=50)] | None = None


class Integration(Strict):
    """A service to report to: kept with the job, never called (the server opens no connections)."""

    type: Literal["wandb"]
    wandb: WandbSettings


class JobRequest(Strict):
    """POST v1/fine_tuning/jobs."""

    model: Name
    training_file: Name
    validation_file: Name | None = None
    method: Method | None = None
    hyperparameters: Hyperparameters | None = None
    """The older place of the supervised method's settings."""
    suffix: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    metadata: Metadata | None = None
    integrations: Annotated[list[Integration], Field(max_length=5)] | None = None

    def chosen(self) -> Method:
        """The method; supervised, with the older settings, when none is named."""
        if self.method is not None:
            return self.method
        return Method(type="supervised", supervised=Supervised(hyperparameters=self.hyperparameters))


class PermissionRequest(Strict):
    """POST v1/fine_tuning/checkpoints/{checkpoint}/permissions."""

    project_ids: Annotated[list[Name], Field(min_length=1, max_length=100)]


class GraderRun(Strict):
    """POST v1/fine_tuning/alpha/graders/run."""

    grader: Annotated[Grader, Field()]
    model_sample: Annotated[str, Field(max_length=2**20)]
    item: Plain | None = None


class GraderCheck(Strict):
    """POST v1/fine_tuning/alpha/graders/validate."""

    grader: Grader
