"""`causerie tokenizer ...`"""

from __future__ import annotations

from cyclopts import App

from causerie.cli.flags import command_for
from causerie.text import TokenizerConfig, train_tokenizer

app = App(name="tokenizer", result_action="return_value")
app.command(
    command_for(
        TokenizerConfig,
        train_tokenizer,
        "Train a byte-level BPE on text files, JSONL or a corpus folder.",
        positional=("sources",),
    ),
    name="train",
)
