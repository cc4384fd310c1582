"""Between a model's shape and a Hugging Face config.json."""

from __future__ import annotations

from typing import Any, Final

from causerie.core import CauserieError
from causerie.model.shape import FAMILIES, ModelShape

_ACTIVATIONS: Final = {"silu": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
_REQUIRED: Final = {
    "n_layer": "num_hidden_layers",
    "n_embd": "hidden_size",
    "n_head": "num_attention_heads",
    "ffn_dim": "intermediate_size",
    "vocab_size": "vocab_size",
}


def shape_from_hf(config: dict[str, Any], where: str = "config.json") -> ModelShape:
    """The shape that a config.json describes, in the layout of transformers 4 or 5.

    Raises:
        CauserieError: CAU-3002 when the model is of an unknown family or uses something not supported here,
            CAU-3001 when sizes are impossible.
    """
    family = _family(config, where)
    row = FAMILIES[family]
    if config.get("auto_map"):
        raise _cannot("it asks for code of its own (auto_map)", where, "use a model that needs no code of its own")
    for name in ("final_logit_softcapping", "attn_logit_softcapping", "use_bidirectional_attention", "attention_bias"):
        if config.get(name):
            raise _cannot(f"{name} = {config[name]!r} is not supported", where)
    activation = config.get("hidden_activation") or config.get("hidden_act") or _hf_activation(row.activation)
    if _ACTIVATIONS.get(activation) != row.activation:
        raise _cannot(f"activation {activation!r} is not that of {row.architecture}", where)
    sizes = {ours: _integer(config, theirs, where) for ours, theirs in _REQUIRED.items()}
    kv = _integer(config, "num_key_value_heads", where, sizes["n_head"])
    head_dim = _integer(config, "head_dim", where, sizes["n_embd"] // max(sizes["n_head"], 1))
    local = _local_layers(config, family, sizes["n_layer"], where)
    theta, local_theta = _thetas(config, family, where)
    query = config.get("query_pre_attn_scalar") if family == "gemma3" else None
    return ModelShape(
        family=family,
        **sizes,
        n_kv_head=kv,
        head_dim=head_dim,
        rope_theta=theta,
        norm_eps=float(config.get("rms_norm_eps", 1e-6)),
        tie_embeddings=bool(config.get("tie_word_embeddings", family == "gemma3")),
        max_seq_len=_integer(config, "max_position_embeddings", where, 32768),
        sliding_window=_integer(config, "sliding_window", where, 4096) if any(local) else 0,
        local_layers=local if any(local) else (),
        rope_local_theta=local_theta if any(local) else 0.0,
        query_scale=float(query) ** -0.5 if query else 0.0,
    )


def _family(config: dict[str, Any], where: str) -> str:
    architectures = config.get("architectures") or []
    for name, row in FAMILIES.items():
        if row.architecture in architectures or (not architectures and config.get("model_type") == row.model_type):
            return name
    known = ", ".join(row.architecture for row in FAMILIES.values())
    found = ", ".join(map(str, architectures)) or config.get("model_type")
    raise _cannot(f"the model is a {found}", where, f"use one of: {known}")


def _local_layers(config: dict[str, Any], family: str, n_layer: int, where: str) -> tuple[bool, ...]:
    kinds = config.get("layer_types")
    if kinds is None and family == "gemma3":
        pattern = _integer(config, "sliding_window_pattern", where, 6)
        return tuple((layer + 1) % pattern != 0 for layer in range(n_layer))
    if kinds is None and config.get("use_sliding_window"):
        first = _integer(config, "max_window_layers", where, 28)
        return tuple(layer >= first for layer in range(n_layer))
    unknown = set(kinds or ()) - {"full_attention", "sliding_attention"}
    if unknown:
        raise _cannot(f"layer types {sorted(map(str, unknown))} are not supported", where)
    return tuple(kind == "sliding_attention" for kind in kinds or ())


def _thetas(config: dict[str, Any], family: str, where: str) -> tuple[float, float]:
    """Rotary bases of full and local layers; scaled rotations are refused."""
    rope = config.get("rope_parameters") or {}
    full = rope.get("full_attention") or (rope if "rope_theta" in rope else {})
    local = rope.get("sliding_attention") or {}
    for part in (full, local, config.get("rope_scaling") or {}):
        kind = part.get("rope_type", part.get("type", "default"))
        if kind != "default":
            raise _cannot(f"rotary scaling {kind!r} is not supported", where)
    default = 1_000_000.0 if family == "gemma3" else 10_000.0
    theta = float(full.get("rope_theta", config.get("rope_theta", default)))
    if family != "gemma3":
        return theta, 0.0
    return theta, float(local.get("rope_theta", config.get("rope_local_base_freq", 10_000.0)))


def _integer(config: dict[str, Any], name: str, where: str, default: int | None = None) -> int:
    value = config.get(name)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _cannot(f"{name} is {value!r}, not a positive integer", where)
    return value


def _hf_activation(ours: str) -> str:
    return next(theirs for theirs, name in _ACTIVATIONS.items() if name == ours)


def _cannot(cause: str, where: str, fix: str = "use a model of a supported family") -> CauserieError:
    return CauserieError("CAU-3002", cause, where=where, fix=fix)


def shape_to_hf(shape: ModelShape) -> dict[str, Any]:
    """The config.json of a shape, without token ids; every transformers from 4.50 on reads it."""
    row = shape.row
    activation = _hf_activation(row.activation)
    config: dict[str, Any] = {
        "architectures": [row.architecture],
        "model_type": row.model_type,
        **{theirs: getattr(shape, ours) for ours, theirs in _REQUIRED.items()},
        "num_key_value_heads": shape.n_kv_head,
        "head_dim": shape.head_dim,
        "max_position_embeddings": shape.max_seq_len,
        "rms_norm_eps": shape.norm_eps,
        "rope_theta": shape.rope_theta,
        "tie_word_embeddings": shape.tie_embeddings,
        "attention_bias": row.qkv_bias,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "use_cache": True,
    }
    if shape.local_layers:
        kinds = {True: "sliding_attention", False: "full_attention"}
        config["layer_types"] = [kinds[local] for local in shape.local_layers]
        config["sliding_window"] = shape.sliding_window
    if shape.family == "gemma3":
        config["hidden_activation"] = activation
        config["rope_local_base_freq"] = shape.rope_local_theta or shape.rope_theta
        config["query_pre_attn_scalar"] = round(shape.scale**-2)
        if not shape.local_layers:
            config["layer_types"] = ["full_attention"] * shape.n_layer
    else:
        config["hidden_act"] = activation
        config["use_sliding_window"] = bool(shape.local_layers)
    return config
