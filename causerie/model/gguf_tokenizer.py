"""A folder's tokenizer as the metadata that a GGUF file carries."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from causerie.core import CauserieError, read_json
from causerie.model.companions import special_ids

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
"""Token types of `tokenizer.ggml.token_type`."""
_GPT2_SPLIT: Final = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_QWEN_SPLIT: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3_SPLIT: Final = _QWEN_SPLIT.replace(r"\p{N}|", r"\p{N}{1,3}|")
KNOWN_SPLITS: Final = {_GPT2_SPLIT: "gpt-2", _QWEN_SPLIT: "qwen2", _LLAMA3_SPLIT: "llama-bpe"}
"""Split patterns that llama.cpp has by name."""
NEAREST_SPLIT: Final = "llama-bpe"
"""Taken for patterns that it does not have, ours among them: letters, up to three digits, punctuation, spaces."""
OTHER_SPLIT: Final = (
    f"llama.cpp has no name for the tokenizer's split pattern; {NEAREST_SPLIT}'s is the nearest, so it cuts some texts "
    "into other tokens (every id means the same)"
)


def tokenizer_metadata(folder: Path, vocab_size: int) -> tuple[dict[str, Any], str]:
    """`tokenizer.*` entries for a folder's tokenizer.json, and a sentence on what llama.cpp will do otherwise.

    Args:
        folder: with tokenizer.json; without one the file gets no vocabulary and runs on token ids alone.
        vocab_size: rows of the embedding; missing tokens are filled up.

    Raises:
        CauserieError: CAU-3010 when the tokenizer is of a kind that GGUF files do not carry.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        return {"tokenizer.ggml.model": "none"}, "it holds no tokenizer: it runs on token ids alone"
    definition = read_json(path)
    model = definition.get("model") or {}
    if model.get("type") != "BPE" or not model.get("vocab"):
        cause = f"its tokenizer is of the kind {model.get('type')!r}"
        raise CauserieError("CAU-3010", cause, where=str(path), fix="only BPE tokenizers go into GGUF files")
    tokens, types = _tokens(definition, vocab_size)
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    entries: dict[str, Any]
    if model.get("byte_fallback"):
        scores = _scores(tokens, types, model["merges"])
        entries = {"tokenizer.ggml.model": "llama", "tokenizer.ggml.scores": scores}
        entries["tokenizer.ggml.add_space_prefix"] = False
        said = ""
    else:
        name = KNOWN_SPLITS.get(_split(definition), "")
        entries = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": name or NEAREST_SPLIT}
        entries["tokenizer.ggml.merges"] = merges
        said = "" if name else OTHER_SPLIT
    entries |= {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types}
    return {**entries, **_special(folder, definition)}, said


def _tokens(definition: dict[str, Any], vocab_size: int) -> tuple[list[str], list[int]]:
    by_id: dict[int, tuple[str, int]] = {}
    fallback = bool(definition["model"].get("byte_fallback"))
    for token, number in definition["model"]["vocab"].items():
        is_byte = fallback and len(token) == 6 and token.startswith("<0x") and token.endswith(">")
        by_id[number] = (token, BYTE if is_byte else NORMAL)
    unknown = definition["model"].get("unk_token")
    for entry in definition.get("added_tokens") or []:
        kind = UNKNOWN if entry["content"] == unknown else CONTROL if entry.get("special") else USER_DEFINED
        by_id[entry["id"]] = (entry["content"], kind)
    if by_id and max(by_id) >= vocab_size:
        cause = f"token {max(by_id)} has no row in an embedding of {vocab_size}"
        raise CauserieError("CAU-3010", cause, where="tokenizer.json", fix="use the tokenizer of this model")
    filled = [by_id.get(number, (f"[PAD{number}]", USER_DEFINED)) for number in range(vocab_size)]
    return [token for token, _ in filled], [kind for _, kind in filled]


def _scores(tokens: list[str], types: list[int], merges: list[Any]) -> list[float]:
    """SentencePiece scores that merge in the order of the list: the earlier a token is made, the higher."""
    rank: dict[str, int] = {}
    for place, pair in enumerate(merges):
        left, right = pair.split(" ") if isinstance(pair, str) else pair
        rank.setdefault(left + right, place)
    return [
        -float(rank.get(token, len(merges))) if kind == NORMAL else 0.0
        for token, kind in zip(tokens, types, strict=True)
    ]


def _split(definition: dict[str, Any]) -> str:
    """The regular expression by which text is cut before merging; empty where there is none."""
    part = definition.get("pre_tokenizer") or {}
    parts = part.get("pretokenizers") or [part]
    for one in parts:
        if one.get("type") == "Split":
            return str((one.get("pattern") or {}).get("Regex", ""))
        if one.get("type") == "ByteLevel" and one.get("use_regex", True):
            return _GPT2_SPLIT
    return ""


def _special(folder: Path, definition: dict[str, Any]) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    ids = special_ids(folder)
    ends = ids.get("eos_token_id", [])
    turn_ends = {"<|im_end|>", "<end_of_turn>", "<|eot_id|>", "<|end|>"}
    by_name = {entry["content"]: entry["id"] for entry in definition.get("added_tokens") or []}
    if ends:
        entries["tokenizer.ggml.eos_token_id"] = ends[0]
    if turns := [by_name[name] for name in by_name if name in turn_ends]:
        entries["tokenizer.ggml.eot_token_id"] = turns[0]
    if "bos_token_id" in ids:
        entries["tokenizer.ggml.bos_token_id"] = ids["bos_token_id"]
    if "pad_token_id" in ids:
        entries["tokenizer.ggml.padding_token_id"] = ids["pad_token_id"]
    first = (definition.get("post_processor") or {}).get("single") or [{}]
    entries["tokenizer.ggml.add_bos_token"] = "SpecialToken" in first[0]
    if template := chat_template(folder):
        entries["tokenizer.chat_template"] = template
    return entries


def chat_template(folder: Path) -> str:
    """The chat template beside a model, as text that is handed on and never run; empty when there is none."""
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    config = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    found = config.get("chat_template") if isinstance(config, dict) else None
    return found if isinstance(found, str) else ""
