"""What goes along with weights: tokenizer files, notices, special token ids."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Final

from causerie.core import read_json

TOKENIZER_FILES: Final = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json")
NOTICE_FILES: Final = ("LICENSE", "LICENSE.txt", "NOTICE", "NOTICE.txt", "GEMMA_TERMS.html")
"""Files that a licence may ask to be passed on with everything derived from a model."""
ENDS: Final = ("<|im_end|>", "<end_of_turn>", "<|eot_id|>", "<|end|>", "<eos>", "<|endoftext|>")
"""Tokens that end a turn or a text in the formats in use; generation stops at those a tokenizer has."""


def copy_companions(source: Path, folder: Path) -> None:
    """Copy what goes along with weights from a model's folder: its tokenizer, and notices that must be handed on."""
    for name in (*TOKENIZER_FILES, *NOTICE_FILES):
        if (source / name).is_file() and source.resolve() != folder.resolve():
            shutil.copyfile(source / name, folder / name)


def special_ids(folder: Path) -> dict[str, Any]:
    """bos, pad and all ending token ids, as config.json names them."""
    tokens = {entry["content"]: entry["id"] for entry in read_json(folder / "tokenizer.json").get("added_tokens", [])}
    config = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    ids: dict[str, Any] = {}
    for role in ("bos", "pad"):
        if (token := _content(config.get(f"{role}_token"))) in tokens:
            ids[f"{role}_token_id"] = tokens[token]
    ends = [token for token in (_content(config.get("eos_token")), *ENDS) if token in tokens]
    if ends:
        ids["eos_token_id"] = list(dict.fromkeys(tokens[token] for token in ends))
    return ids


def _content(token: Any) -> str:
    """A special token's text: plain, or in the dict form that older tokenizers write."""
    return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")
