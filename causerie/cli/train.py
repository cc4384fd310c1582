"""`causerie train ...`: one command per objective, one loop behind them all."""

from __future__ import annotations

from cyclopts import App

from causerie.align import DpoConfig, KtoConfig, dpo, kto
from causerie.cli.flags import command_for
from causerie.train import PretrainConfig, SftConfig, pretrain, sft

app = App(name="train", result_action="return_value")
app.command(command_for(PretrainConfig, pretrain, "Train a model from scratch on token shards."), name="pretrain")
app.command(command_for(SftConfig, sft, "Teach a model to answer, from conversations."), name="sft")
app.command(command_for(DpoConfig, dpo, "Learn from pairs: the chosen answer over the rejected one."), name="dpo")
app.command(command_for(KtoConfig, kto, "Learn from thumbs: single answers, liked or not."), name="kto")
