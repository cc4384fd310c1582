"""Between a model's shape and a Hugging Face config.json."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from causerie.core import CauserieError
from causerie.model.families import FAMILIES
from causerie.model.shape import ModelShape, RopeScaling

_ACTIVATIONS: Final = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
}
_REFUSED: Final = ("final_logit_softcapping", "attn_logit_softcapping", "use_bidirectional_attention")
_EMPTY: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True)
class Keys:
    """What a family's config.json calls things, and what transformers takes where it says nothing."""

    sizes: Mapping[str, str] = field(
        default_factory=lambda: {
            "n_layer": "num_hidden_layers",
            "n_embd": "hidden_size",
            "n_head": "num_attention_heads",
            "ffn_dim": "intermediate_size",
            "vocab_size": "vocab_size",
        }
    )
    n_kv_head: str = "num_key_value_heads"
    """Empty where all heads have their own keys; so with `head_dim`: empty means width over heads."""
    head_dim: str = "head_dim"
    max_seq_len: str = "max_position_embeddings"
    norm_eps: str = "rms_norm_eps"
    activation: str = "hidden_act"
    activation_name: str = "silu"
    default_eps: float = 1e-6
    default_len: int = 32768
    default_theta: float = 10_000.0
    default_tied: bool = False
    default_rotary: float = 1.0
    """Share of a head that is rotated."""
    local_theta: str = ""
    """Key of the local layers' rotary base; empty where they have none of their own."""
    fixed: Mapping[str, Any] = field(default_factory=lambda: _EMPTY)
    """Settings that must have this value where they are given, and are written so."""
    written: Mapping[str, Any] = field(default_factory=lambda: _EMPTY)
    """Written, and not looked at when reading."""


_IDS: Final = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
_GPT2: Final = Keys(
    sizes={
        "n_layer": "n_layer",
        "n_embd": "n_embd",
        "n_head": "n_head",
        "ffn_dim": "n_inner",
        "vocab_size": "vocab_size",
    },
    n_kv_head="",
    head_dim="",
    max_seq_len="n_positions",
    norm_eps="layer_norm_epsilon",
    activation="activation_function",
    activation_name="gelu_new",
    default_eps=1e-5,
    default_len=1024,
    default_tied=True,
    fixed={
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "reorder_and_upcast_attn": False,
        "add_cross_attention": False,
    },
    written={**_IDS, "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0},
)
_BERT: Final = Keys(
    n_kv_head="",
    head_dim="",
    norm_eps="layer_norm_eps",
    activation_name="gelu",
    default_eps=1e-12,
    default_len=512,
    default_tied=True,
    fixed={"is_decoder": False, "add_cross_attention": False, "position_embedding_type": "absolute"}
    | {"type_vocab_size": 2},
    written={**_IDS, "attention_probs_dropout_prob": 0.0, "hidden_dropout_prob": 0.0},
)
_MODERNBERT: Final = Keys(
    n_kv_head="",
    head_dim="",
    norm_eps="norm_eps",
    activation="hidden_activation",
    activation_name="gelu",
    default_eps=1e-5,
    default_len=8192,
    default_theta=160_000.0,
    default_tied=True,
    local_theta="local_rope_theta",
    fixed={"attention_bias": False, "mlp_bias": False, "norm_bias": False, "classifier_bias": False}
    | {"decoder_bias": True, "classifier_activation": "gelu"},
    written={**_IDS, "cls_token_id": None, "sep_token_id": None, "attention_dropout": 0.0},
)
_PHI: Final = Keys(
    head_dim="",
    norm_eps="layer_norm_eps",
    activation_name="gelu_new",
    default_eps=1e-5,
    default_len=2048,
    default_rotary=0.5,
    fixed={"qk_layernorm": False},
    written={**_IDS, "attention_dropout": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0},
)
_TODAY: Final = {"attention_dropout": 0.0, "initializer_range": 0.02, "use_cache": True}
KEYS: Final[Mapping[str, Keys]] = MappingProxyType(
    {
        "qwen3": Keys(fixed={"attention_bias": False}, written=_TODAY),
        "llama": Keys(fixed={"attention_bias": False, "mlp_bias": False}, written=_TODAY),
        "qwen2": Keys(written=_TODAY),
        "gemma3": Keys(
            activation="hidden_activation",
            activation_name="gelu_pytorch_tanh",
            default_theta=1_000_000.0,
            default_tied=True,
            local_theta="rope_local_base_freq",
            fixed={"attention_bias": False},
            written=_TODAY,
        ),
        "phi3": Keys(default_eps=1e-5, default_len=4096, written={**_TODAY, **_IDS, "resid_pdrop": 0.0}),
        "phi": _PHI,
        "gpt2": _GPT2,
        "bert": _BERT,
        "modernbert": _MODERNBERT,
    }
)
"""Family → its keys."""
_LOCAL_THETA: Final = 10_000.0


def shape_from_hf(config: dict[str, Any], where: str = "config.json") -> ModelShape:
    """The shape that a config.json describes, in the layout of transformers 4 or 5.

    Raises:
        CauserieError: CAU-3002 when the model is of an unknown family or uses something not supported here,
            CAU-3001 when sizes are impossible.
    """
    if not isinstance(config, dict):
        raise _cannot("it is not a JSON object", where, "use a folder that transformers wrote")
    family = _family(config, where)
    keys, row = KEYS[family], FAMILIES[family]
    _check_settings(config, family, where)
    if family == "gpt2" and config.get("n_inner") is None:
        config = {**config, "n_inner": 4 * _integer(config, "n_embd", where)}
    sizes: dict[str, Any] = {ours: _integer(config, theirs, where) for ours, theirs in keys.sizes.items()}
    n_head = sizes["n_head"]
    head_dim = _integer(config, keys.head_dim, where, max(sizes["n_embd"] // n_head, 1))
    local, window = _local_layers(config, family, sizes["n_layer"], where)
    query = _number(config, "query_pre_attn_scalar", where, 0.0) if family == "gemma3" else 0.0
    rope = _rope(config, family, head_dim, where) if row.rotary else {}
    if not any(local):
        rope.pop("rope_local_theta", None)
    return ModelShape(
        family=family,
        **sizes,
        n_kv_head=_integer(config, keys.n_kv_head, where, n_head),
        head_dim=head_dim,
        norm_eps=_number(config, keys.norm_eps, where, keys.default_eps),
        tie_embeddings=bool(config.get("tie_word_embeddings", keys.default_tied)),
        max_seq_len=_integer(config, keys.max_seq_len, where, keys.default_len),
        sliding_window=window if any(local) else 0,
        local_layers=local if any(local) else (),
        query_scale=query**-0.5 if query not in (0.0, head_dim) else 0.0,
        **rope,
    )


def _family(config: dict[str, Any], where: str) -> str:
    architectures = config.get("architectures") or []
    for name, row in FAMILIES.items():
        if row.architecture in architectures or (not architectures and config.get("model_type") == row.model_type):
            return name
    known = ", ".join(row.architecture for row in FAMILIES.values())
    found = ", ".join(map(str, architectures)) or config.get("model_type")
    raise _cannot(f"the model is a {found}", where, f"use one of: {known}")


def _check_settings(config: dict[str, Any], family: str, where: str) -> None:
    """Refuse code of strangers, and settings that the family's parts do not have."""
    keys, row = KEYS[family], FAMILIES[family]
    if config.get("auto_map"):
        raise _cannot("it asks for code of its own (auto_map)", where, "use a model that needs no code of its own")
    for name in _REFUSED:
        if config.get(name):
            raise _cannot(f"{name} = {config[name]!r} is not supported", where)
    for name, value in keys.fixed.items():
        if config.get(name, value) != value:
            raise _cannot(f"{name} = {config[name]!r} is not supported", where)
    activation = config.get(keys.activation) or keys.activation_name
    if _ACTIVATIONS.get(activation) != row.activation:
        raise _cannot(f"{keys.activation} = {activation!r} is not that of {row.architecture}", where)


def _local_layers(config: dict[str, Any], family: str, n_layer: int, where: str) -> tuple[tuple[bool, ...], int]:
    """Which layers are local, and their window."""
    if n_layer > 1024:
        return (), 0  # the shape will refuse it
    if family == "phi3":
        window = config.get("sliding_window")
        return (bool(window),) * n_layer, _integer(config, "sliding_window", where, 1)
    if family == "modernbert":
        window = _integer(config, "local_attention", where, 128) // 2 * 2 + 1
    else:
        window = _integer(config, "sliding_window", where, 4096)
    kinds = config.get("layer_types")
    if kinds is None:
        return _local_pattern(config, family, n_layer, where), window
    unknown = set(map(str, kinds)) - {"full_attention", "sliding_attention"}
    if unknown:
        raise _cannot(f"layer types {sorted(unknown)} are not supported", where)
    return tuple(kind == "sliding_attention" for kind in kinds), window


def _local_pattern(config: dict[str, Any], family: str, n_layer: int, where: str) -> tuple[bool, ...]:
    if family == "gemma3":
        pattern = _integer(config, "sliding_window_pattern", where, 6)
        return tuple((layer + 1) % pattern != 0 for layer in range(n_layer))
    if family == "modernbert":
        every = _integer(config, "global_attn_every_n_layers", where, 3)
        return tuple(layer % every != 0 for layer in range(n_layer))
    first = _integer(config, "max_window_layers", where, 28) if config.get("use_sliding_window") else n_layer
    return tuple(layer >= first for layer in range(n_layer))


def _rope(config: dict[str, Any], family: str, head_dim: int, where: str) -> dict[str, Any]:
    """Rotary base, share and stretching, by the shape's field names."""
    keys = KEYS[family]
    rope = config.get("rope_parameters") or {}
    full = rope.get("full_attention") or (rope if "rope_type" in rope or "rope_theta" in rope else {})
    local = rope.get("sliding_attention") or {}
    if local.get("rope_type", "default") != "default":
        raise _cannot("rotary scaling in local layers is not supported", where)
    flat = "global_rope_theta" if family == "modernbert" else "rope_theta"
    theta = _number(
        full if "rope_theta" in full else {"rope_theta": config.get(flat)}, "rope_theta", where, keys.default_theta
    )
    share = _number({**config, **full}, "partial_rotary_factor", where, keys.default_rotary)
    found: dict[str, Any] = {"rope_theta": theta, "rope_scaling": _scaling(full, config, where)}
    if share != 1.0:
        found["rotary_dim"] = int(head_dim * share)
    if keys.local_theta:
        given = local if "rope_theta" in local else {"rope_theta": config.get(keys.local_theta)}
        found["rope_local_theta"] = _number(given, "rope_theta", where, _LOCAL_THETA)
    return found


def _scaling(full: dict[str, Any], config: dict[str, Any], where: str) -> RopeScaling | None:
    part = config.get("rope_scaling") or full
    if not isinstance(part, dict):
        raise _cannot(f"rope_scaling is {part!r}", where)
    kind = part.get("rope_type", part.get("type", "default"))
    if kind == "default":
        return None
    if kind == "linear":
        return RopeScaling("linear", _number(part, "factor", where))
    if kind == "llama3":
        scaling = RopeScaling(
            "llama3",
            factor=_number(part, "factor", where),
            low_freq_factor=_number(part, "low_freq_factor", where),
            high_freq_factor=_number(part, "high_freq_factor", where),
            original_max_seq_len=_integer(part, "original_max_position_embeddings", where),
        )
        if scaling.high_freq_factor <= scaling.low_freq_factor:
            raise _cannot("high_freq_factor must lie above low_freq_factor", where)
        return scaling
    why = " (its factors change with the length of the text, under keys already cached)" if kind == "longrope" else ""
    raise _cannot(f"rotary scaling {kind!r} is not supported{why}", where, "use the variant with the short context")


def _integer(config: dict[str, Any], name: str, where: str, default: int | None = None) -> int:
    value = config.get(name) if name else None
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _cannot(f"{name} is {value!r}, not a positive integer", where)
    return value


def _number(config: dict[str, Any], name: str, where: str, default: float | None = None) -> float:
    value = config.get(name)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise _cannot(f"{name} is {value!r}, not a positive number", where)
    return float(value)


def _cannot(cause: str, where: str, fix: str = "use a model of a supported family") -> CauserieError:
    return CauserieError("CAU-3002", cause, where=where, fix=fix)


def shape_to_hf(shape: ModelShape) -> dict[str, Any]:
    """The config.json of a shape, without token ids; every transformers from 4.50 on reads it.

    Raises:
        CauserieError: CAU-3010 when the family's config.json cannot say what the shape has.
    """
    row, keys = shape.row, KEYS[shape.family]
    config: dict[str, Any] = {
        "architectures": [row.architecture],
        "model_type": row.model_type,
        **{theirs: getattr(shape, ours) for ours, theirs in keys.sizes.items()},
        **({keys.n_kv_head: shape.n_kv_head} if keys.n_kv_head else {}),
        **({keys.head_dim: shape.head_dim} if keys.head_dim else {}),
        keys.max_seq_len: shape.max_seq_len,
        keys.norm_eps: shape.norm_eps,
        "tie_word_embeddings": shape.tie_embeddings,
        keys.activation: keys.activation_name,
        **keys.fixed,
        **keys.written,
    }
    implied = (not keys.n_kv_head and shape.n_kv_head != shape.n_head) or (
        not keys.head_dim and shape.head_dim * shape.n_head != shape.n_embd
    )
    if implied or (shape.query_scale and shape.family != "gemma3"):
        cause = f"a {row.architecture} has head sizes and scales that follow from its width"
        fix = "give n_head · head_dim = n_embd, n_kv_head = n_head where the family has one size, no query_scale"
        raise CauserieError("CAU-3010", cause, where="model shape", fix=fix)
    return {**config, **_rope_to_hf(shape), **_locals_to_hf(shape)}


def _rope_to_hf(shape: ModelShape) -> dict[str, Any]:
    if not shape.row.rotary:
        return {}
    config: dict[str, Any] = {}
    if shape.family == "modernbert":
        config["global_rope_theta"] = shape.rope_theta
    else:
        config["rope_theta"] = shape.rope_theta
    if local := KEYS[shape.family].local_theta:
        config[local] = shape.rope_local_theta or shape.rope_theta
    if shape.rotary_dim or KEYS[shape.family].default_rotary != 1.0:
        config["partial_rotary_factor"] = (shape.rotary_dim or shape.head_dim) / shape.head_dim
    if (scaling := shape.rope_scaling) is not None:
        config["rope_scaling"] = {"rope_type": scaling.kind, "factor": scaling.factor}
        if scaling.kind == "llama3":
            config["rope_scaling"] |= {
                "low_freq_factor": scaling.low_freq_factor,
                "high_freq_factor": scaling.high_freq_factor,
                "original_max_position_embeddings": scaling.original_max_seq_len,
            }
    return config


def _locals_to_hf(shape: ModelShape) -> dict[str, Any]:
    family, local = shape.family, shape.local_layers or (False,) * shape.n_layer
    kinds = ["sliding_attention" if one else "full_attention" for one in local]
    if family == "phi3":
        if len(set(local)) > 1:
            cause, fix = "a Phi3ForCausalLM's layers are all local or all full", "choose another family"
            raise CauserieError("CAU-3010", cause, where="model shape, field local_layers", fix=fix)
        return {"sliding_window": shape.sliding_window or None}
    if family == "modernbert":
        every = next((n for n in range(1, shape.n_layer + 1) if [i % n != 0 for i in range(len(local))] == [*local]), 3)
        window = {"local_attention": shape.sliding_window - 1} if shape.local_layers else {}
        return {"layer_types": kinds, "global_attn_every_n_layers": every, **window}
    if shape.local_layers and family in ("llama", "phi", "gpt2", "bert"):
        cause, fix = f"a {shape.row.architecture} has no local layers", "choose another family"
        raise CauserieError("CAU-3010", cause, where="model shape, field local_layers", fix=fix)
    config: dict[str, Any] = {}
    if shape.local_layers:
        config = {"layer_types": kinds, "sliding_window": shape.sliding_window}
    if family == "gemma3":
        return {**config, "layer_types": kinds, "query_pre_attn_scalar": round(shape.scale**-2)}
    if family in ("qwen2", "qwen3"):
        config["use_sliding_window"] = bool(shape.local_layers)
    return config
