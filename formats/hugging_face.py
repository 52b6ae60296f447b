"""Our models in the words of Hugging Face: the config and the tensor names of Qwen3 and Llama, in both directions."""

from collections.abc import Mapping
from typing import Any

from config import MAX_VOCAB_SIZE, ModelConfig
from model import NORM_EPSILON
from system.errors import UserError

WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"  # of weights in several files
TOKENIZER = "tokenizer.model"
OURS = "backgpt.json"  # what config.json has no place for: word order, stage, training
ARCHITECTURES = {True: ("Qwen3ForCausalLM", "qwen3"), False: ("LlamaForCausalLM", "llama")}  # with QK-norm or without
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
OUTER = {"embedding.weight": EMBEDDING, "norm.weight": "model.norm.weight", "head.weight": HEAD}
IN_BLOCK = {
    "attention_norm": "input_layernorm",
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.output": "self_attn.o_proj",
    "attention.query_norm": "self_attn.q_norm",
    "attention.key_norm": "self_attn.k_norm",
    "mlp_norm": "post_attention_layernorm",
    "mlp.gate": "mlp.gate_proj",
    "mlp.up": "mlp.up_proj",
    "mlp.down": "mlp.down_proj",
}
FITS = (
    f"What fits: Qwen3ForCausalLM or LlamaForCausalLM with at most {MAX_VOCAB_SIZE:,} ids, rms_norm_eps {NORM_EPSILON:g}, "
    "silu, no biases, no sliding window, plain rotary positions, heads that divide the width"
)


def their_name(name: str) -> str:
    """The name of one of our tensors there."""
    if name in OUTER:
        return OUTER[name]
    _, layer, inner = name.split(".", 2)
    return f"model.layers.{layer}.{IN_BLOCK[inner.removesuffix('.weight')]}.weight"


def their_config(config: ModelConfig, dtype: str) -> dict[str, Any]:
    """The shape as a config.json says it, without the special ids. Padding rows of the vocabulary do not count."""
    architecture, model_type = ARCHITECTURES[config.qk_norm]
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": config.vocab_size,
        "hidden_size": config.n_embed,
        "intermediate_size": config.mlp_width,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_size,
        "max_position_embeddings": config.block_size,
        "rope_theta": config.rope_theta,  # programs before transformers 5 read this one
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "rms_norm_eps": NORM_EPSILON,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": config.dropout,
        "mlp_bias": False,
        "use_sliding_window": False,
        "tie_word_embeddings": config.tie_embeddings,
        "dtype": dtype,
        "torch_dtype": dtype,  # the same for programs before transformers 5
    }


def our_config(theirs: Mapping[str, Any], source: str) -> ModelConfig:
    """The shape of a config.json; a UserError if our model does not have it."""
    architectures = theirs.get("architectures")
    qk_norm = next((on for on, (name, _) in ARCHITECTURES.items() if architectures == [name]), None)
    if qk_norm is None:
        raise UserError(f"{source}: the architecture is {architectures}. {FITS}")
    try:
        heads, width = theirs["num_attention_heads"], theirs["hidden_size"]
        config = ModelConfig(
            n_layer=theirs["num_hidden_layers"],
            n_head=heads,
            n_embed=width,
            block_size=theirs["max_position_embeddings"],
            vocab_size=theirs["vocab_size"],
            dropout=theirs.get("attention_dropout", 0.0),
            qk_norm=qk_norm,
            tie_embeddings=theirs.get("tie_word_embeddings", False),
            rope_theta=_rope_theta(theirs, source),
            n_kv_head=None if theirs.get("num_key_value_heads", heads) == heads else theirs["num_key_value_heads"],
            mlp_size=theirs["intermediate_size"],
        )
        if config.vocab_size > MAX_VOCAB_SIZE:
            raise UserError(f"{source}: the vocabulary has {config.vocab_size:,} ids. {FITS}")
        config.check()
        head_size = theirs.get("head_dim") or config.head_size
        refused = {
            "head_dim": head_size != config.head_size,
            "rms_norm_eps": theirs.get("rms_norm_eps", NORM_EPSILON) != NORM_EPSILON,
            "hidden_act": theirs.get("hidden_act", "silu") != "silu",
            **{name: bool(theirs.get(name)) for name in ("attention_bias", "mlp_bias", "use_sliding_window", "quantization_config")},
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{source} is not a complete config ({type(error).__name__}: {error}). {FITS}") from error
    for name, is_refused in refused.items():
        if is_refused:
            raise UserError(f"{source}: {name} is {theirs[name]}. {FITS}")
    if config.mlp_size == ModelConfig(n_embed=width).mlp_width:  # the default, as a model that was trained here says it
        return ModelConfig(**{**vars(config), "mlp_size": None})
    return config


def _rope_theta(theirs: Mapping[str, Any], source: str) -> float:
    """The base of the rotary positions, wherever a version of transformers writes it."""
    parameters = theirs.get("rope_parameters") or theirs.get("rope_scaling") or {}
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    if kind != "default":
        raise UserError(f"{source}: the rotary positions are of type {kind}. {FITS}")
    return float(parameters.get("rope_theta") or theirs.get("rope_theta") or ModelConfig.rope_theta)
