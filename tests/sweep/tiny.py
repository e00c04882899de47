"""Configurations of a few thousand weights for any model type: transformers' defaults, made small by their names."""

import re
from typing import Any

import transformers

LAYERS = 2
# The first pattern that a setting's whole name matches decides; settings that match none keep their default.
SIZES: list[tuple[str, int]] = [
    (r"(num_|n_|encoder_|decoder_)*(hidden_)?layers?", LAYERS),
    (r".*(num_key_value_heads|num_kv_heads|n_kv_heads)(_.*)?", 2),
    (r".*(heads|n_head)(_.*)?", 2),
    (r"(hidden_size|d_model|n_embd|dim|emb_dim|embedding_dim|embedding_size|word_embed_proj_dim|embed_dim)", 32),
    (r".*(intermediate_size|ffn_dim|hidden_dim|n_inner|d_inner|d_ff|dim_ff|ffn_hidden_size).*", 64),
    (r"(head_dim|global_head_dim|swa_head_dim|kv_channels|d_kv|d_head|attention_head_dim)", 16),
    (r"max_position_embeddings|n_positions|n_ctx|max_seq_len|model_max_length|max_sequence_length", 64),
    (r"(num_experts|n_routed_experts|num_local_experts|moe_num_experts|.*num_experts)", 4),
    (r".*(num_experts_per_tok|num_experts_per_token|top_k|moe_topk|moe_k)", 2),
    (r"(n_group|topk_group|num_expert_group)", 1),
    (r"(q_lora_rank|kv_lora_rank|index_topk|.*lora_rank)", 16),
    (r"(qk_nope_head_dim|qk_rope_head_dim|v_head_dim|index_head_dim)", 16),
]


def tiny(kind: str) -> dict[str, Any]:
    """What to write in ``fromConfig`` for a model type."""
    return {"model_type": kind, **_small(transformers.CONFIG_MAPPING[kind]()), **ADJUSTMENTS.get(kind, {})}


def _small(config: Any) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for name, value in config.to_dict().items():
        nested = getattr(config, name, None)
        if isinstance(nested, transformers.PreTrainedConfig):
            given[name] = _small(nested)
            if "model_type" in nested.to_dict() and nested.model_type:
                given[name] = {"model_type": nested.model_type, **given[name]}
        elif isinstance(value, bool) or not isinstance(value, int | list):
            continue
        elif isinstance(value, int):
            small = next((size for pattern, size in SIZES if re.fullmatch(pattern, name)), None)
            if small is not None and value > small:
                given[name] = small
        elif len(value) == getattr(config, "num_hidden_layers", None) and len(value) > LAYERS:
            given[name] = value[:1] + value[-1:]
    return given


# What is not small by its name, or does not go together when everything else is small.
ADJUSTMENTS: dict[str, dict[str, Any]] = {
    "codegen": {"n_head": 4, "rotary_dim": 4},
    "perceiver": {
        "num_latents": 8, "d_latents": 32, "d_model": 32, "num_self_attends_per_block": 1, "num_blocks": 1,
        "qk_channels": 32, "v_channels": 32,
    },
}  # fmt: skip
