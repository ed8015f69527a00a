"""Tiny random models of many architectures of transformers, each with the tests' tokenizer."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
)

from tests.support.tiny_jobs import EOS, VOCAB, make_base

_SIZES = {
    "vocab_size": len(VOCAB),
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "bos_token_id": 3,
    "eos_token_id": EOS,
    "pad_token_id": 0,
}
_GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": len(VOCAB)}
_IDS = {"bos_token_id": 3, "eos_token_id": EOS, "pad_token_id": 0}
_MOE = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
_MAMBA = {"mamba_d_state": 8, "mamba_d_conv": 4, "mamba_expand": 2}

# What differs from _SIZES, by model type; `only` replaces it.
DECODERS: dict[str, dict[str, Any]] = {
    # dense
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "mistral": {"sliding_window": 8},
    "gemma": {},
    "gemma2": {"sliding_window": 8},
    "gemma3_text": {"sliding_window": 8},
    "phi": {},
    "phi3": {},
    "gpt2": {"only": _GPT | _IDS},
    "gpt_neox": {},
    "gptj": {"only": _GPT | _IDS | {"rotary_dim": 4}},
    "opt": {"ffn_dim": 32, "word_embed_proj_dim": 32},
    "bloom": {"only": {"vocab_size": len(VOCAB), "hidden_size": 32, "n_layer": 2, "n_head": 4,
                       **_IDS}},
    "falcon": {"head_dim": None},
    "olmo2": {},
    "cohere": {},
    "granite": {},
    "smollm3": {},
    "stablelm": {},
    "starcoder2": {"sliding_window": 8},
    "glm4": {},
    # mixtures of experts
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2_moe": {**_MOE, "num_experts": 4, "shared_expert_intermediate_size": 16},
    "qwen3_moe": {**_MOE, "num_experts": 4},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "granitemoe": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8},
    "deepseek_v3": {
        **_MOE,
        "n_routed_experts": 4,
        "n_group": 2,
        "topk_group": 1,
        "first_k_dense_replace": 1,
        "q_lora_rank": 8,
        "kv_lora_rank": 8,
        "qk_rope_head_dim": 4,
        "qk_nope_head_dim": 4,
        "v_head_dim": 8,
        "num_key_value_heads": 4,
        "head_dim": None,
    },
    # state spaces, recurrences and hybrids
    "mamba": {"state_size": 8},
    "mamba2": {"state_size": 8, "num_heads": 8, "head_dim": 8, "n_groups": 1, "chunk_size": 8},
    "jamba": {"num_experts": 2, "attn_layer_period": 2, "attn_layer_offset": 1, **_MAMBA,
              "expert_layer_period": 2, "expert_layer_offset": 1, "use_mamba_kernels": False},
    "bamba": {"attn_layer_indices": [1], "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1,
              "mamba_chunk_size": 8, **_MAMBA},
    "falcon_h1": {"mamba_d_ssm": 64, "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1,
                  "mamba_chunk_size": 8, **_MAMBA},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "recurrent_gemma": {"lru_width": 32, "attention_window_size": 8},
    "qwen3_next": {**_MOE, "num_experts": 4, "shared_expert_intermediate_size": 16,
                   "linear_num_value_heads": 4, "linear_num_key_heads": 2,
                   "linear_key_head_dim": 8, "linear_value_head_dim": 8,
                   "layer_types": ["linear_attention", "full_attention"]},
}  # fmt: skip
ENCODERS: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {},
    "distilbert": {"only": {"vocab_size": len(VOCAB), "dim": 32, "hidden_dim": 32, "n_layers": 2,
                            "n_heads": 4, "max_position_embeddings": 64, "pad_token_id": 0}},
    "albert": {"embedding_size": 16},
    "deberta-v2": {},
    "electra": {"embedding_size": 16},
    "modernbert": {"cls_token_id": 3, "sep_token_id": EOS},
    "mpnet": {},
    "xlm-roberta": {},
}  # fmt: skip


def make_model(folder: Path, model_type: str) -> Path:
    """Write a model of two small layers with random weights, and its tokenizer."""
    encoder = model_type in ENCODERS
    make_base(folder, "bert" if encoder else "llama")
    changes = (ENCODERS if encoder else DECODERS)[model_type]
    sizes = changes.get("only", _SIZES | changes)
    config = CONFIG_MAPPING[model_type](**{k: v for k, v in sizes.items() if v is not None})
    torch.manual_seed(7)
    kind = AutoModelForMaskedLM if encoder else AutoModelForCausalLM
    kind.from_config(config).save_pretrained(folder)
    return folder
