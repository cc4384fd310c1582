"""`causerie train ...`: one command per objective, one loop behind them all."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

from causerie.align import DpoConfig, GrpoConfig, KtoConfig, RewardConfig, dpo, grpo, kto, reward
from causerie.cli.flags import command_for
from causerie.core import Artifact
from causerie.train import MlmConfig, PretrainConfig, SftConfig, mlm, pretrain, sft

app = App(name="train", result_action="return_value")
app.command(command_for(PretrainConfig, pretrain, "Train a model from scratch on token shards."), name="pretrain")
app.command(command_for(MlmConfig, mlm, "Train an encoder from scratch by guessing hidden tokens."), name="mlm")
app.command(command_for(SftConfig, sft, "Teach a model to answer, from conversations."), name="sft")
app.command(command_for(DpoConfig, dpo, "Learn from pairs: the chosen answer over the rejected one."), name="dpo")
app.command(command_for(KtoConfig, kto, "Learn from thumbs: single answers, liked or not."), name="kto")
app.command(
    command_for(RewardConfig, reward, "Learn what people like: a model that gives answers a score."), name="reward"
)


def verified_grpo(config: GrpoConfig, workspace: Path) -> Artifact:
    """`grpo` with the evaluations' checker of instructions and the API's graders, which live layers above it."""
    from causerie.evals import follows

    judge = None
    if config.grader is not None:
        from causerie.serve import local_judge

        judge = local_judge(config.grader)
    return grpo(config, workspace, follows=follows, judge=judge)


app.command(
    command_for(GrpoConfig, verified_grpo, "Learn from rewards of the model's own answers (GRPO)."), name="grpo"
)
