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
    adjusted = ADJUSTMENTS.get(kind, {})
    known = transformers.CONFIG_MAPPING[kind](**adjusted if kind in NEEDED else {})
    return {"model_type": kind, **_merged(_small(known), adjusted)}


def _merged(given: dict[str, Any], adjusted: dict[str, Any]) -> dict[str, Any]:
    found = dict(given)
    for name, value in adjusted.items():
        nested = isinstance(value, dict) and isinstance(found.get(name), dict)
        found[name] = _merged(found[name], value) if nested else value
    return found


def _small(config: Any) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for name, value in config.to_dict().items():
        # Not by attribute: some configurations refuse to say what may differ from layer to layer.
        nested = vars(config).get(name)
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
        elif len(value) == config.to_dict().get("num_hidden_layers") and len(value) > LAYERS:
            given[name] = _two_of(value)
    return given


def _two_of(layers: list[Any]) -> list[Any]:
    """The first layer, and one of another kind, attention if there is any."""
    others = [kind for kind in layers if kind != layers[0]] or [layers[-1]]
    return [layers[0], next((kind for kind in others if kind == "full_attention"), others[0])]


NEEDED = {"gemma4_assistant"}
"""Types whose configuration cannot be made without their adjustments."""

# What is not small by its name, or does not go together when everything else is small.
ADJUSTMENTS: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1], "mamba_n_heads": 2, "mamba_d_head": 32},
    "canine": {"max_position_embeddings": 64},
    "codegen": {"n_head": 4, "rotary_dim": 4},
    "deepseek_v2": {"num_experts_per_tok": 2, "n_group": 1, "topk_group": 1},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "gemma3n_text": {
        "num_kv_shared_layers": 0, "vocab_size_per_layer_input": 300, "hidden_size_per_layer_input": 8,
        "intermediate_size": [64, 64],
    },
    "gemma4": {"text_config": {"vocab_size_per_layer_input": 300, "hidden_size_per_layer_input": 8}},
    "gemma4_assistant": {"text_config": {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0}},
    "gemma4_text": {"vocab_size_per_layer_input": 300, "hidden_size_per_layer_input": 8},
    "gpt_neo": {"num_layers": 2, "attention_types": [[["global", "local"], 1]]},
    "gptj": {"rotary_dim": 8},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"]},
    "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_dt_rank": 4},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "lilt": {"channel_shrink_ratio": 4, "hidden_size": 48, "num_attention_heads": 4},
    "longcat_flash": {"zero_expert_num": 1},
    "longformer": {"attention_window": 16},
    "luke": {"entity_vocab_size": 10, "entity_emb_size": 8},
    "mamba2": {"num_heads": 4, "head_dim": 16, "hidden_size": 32, "expand": 2, "n_groups": 1, "state_size": 16},
    "mimo_v2_flash": {"num_key_value_heads": 1},
    "ministral": {"head_dim": 16},
    "mistral4": {"head_dim": 32, "qk_head_dim": 32},
    "nemotron": {"num_key_value_heads": 2},
    "nemotron_h": {"n_groups": 1, "mamba_num_heads": 2, "mamba_head_dim": 16},
    "qwen4_exp": {"text_config": {"layer_types": ["linear_attention", "full_attention"]}},
    "qwen4_exp_text": {"layer_types": ["linear_attention", "full_attention"]},
    "recurrent_gemma": {"num_hidden_layers": 3, "lru_width": 32},
    "reformer": {
        "is_decoder": True, "axial_pos_embds": False, "attn_layers": ["local", "local"], "local_attn_chunk_length": 8,
    },
    "rembert": {"input_embedding_size": 16, "output_embedding_size": 16},
    "roc_bert": {"pronunciation_embed_dim": 8, "shape_embed_dim": 8, "shape_vocab_size": 300},
    "xmod": {"default_language": "en_XX"},
    "xlstm": {"num_heads": 2, "hidden_size": 32, "embedding_dim": 32},
    "zamba": {
        "num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1,
        "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"],
    },
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid"], "hybrid_layer_ids": [1], "adapter_rank": 8},
    "perceiver": {
        "num_latents": 8, "d_latents": 32, "d_model": 32, "num_self_attends_per_block": 1, "num_blocks": 1,
        "qk_channels": 32, "v_channels": 32,
    },
}  # fmt: skip
