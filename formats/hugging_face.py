"""Our models in the words of Hugging Face: the config and the tensor names of Qwen3 and Llama, in both directions."""

from collections.abc import Mapping
from typing import Any

from config import MAX_BLOCK_SIZE, MAX_VOCAB_SIZE, NORM_EPSILON, ModelConfig
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
MAX_WIDTH, MAX_LAYERS, MAX_THETA = 1 << 16, 1000, 1e12
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
        raise UserError(f"{source}: the architecture is {architectures!r}. {FITS}")

    def whole(name: str, most: int) -> int:
        value = theirs.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise UserError(f"{source}: {name} is {value!r}, a number from 1 to {most:,} is expected. {FITS}")
        return value

    heads, width = whole("num_attention_heads", MAX_WIDTH), whole("hidden_size", MAX_WIDTH)
    shared = whole("num_key_value_heads", MAX_WIDTH) if theirs.get("num_key_value_heads") is not None else heads
    mlp_size = whole("intermediate_size", 64 * MAX_WIDTH)
    config = ModelConfig(
        n_layer=whole("num_hidden_layers", MAX_LAYERS),
        n_head=heads,
        n_embed=width,
        block_size=whole("max_position_embeddings", MAX_BLOCK_SIZE),
        vocab_size=whole("vocab_size", MAX_VOCAB_SIZE),
        dropout=_fraction(theirs.get("attention_dropout", 0.0)),
        qk_norm=qk_norm,
        tie_embeddings=theirs.get("tie_word_embeddings", False),
        rope_theta=_rope_theta(theirs, source),
        n_kv_head=None if shared == heads else shared,
        mlp_size=None if mlp_size == ModelConfig(n_embed=width).mlp_width else mlp_size,  # as a model that was trained here says it
    )
    expected = {
        "head_dim": width // heads,
        "rms_norm_eps": NORM_EPSILON,
        "hidden_act": "silu",
        **dict.fromkeys(("attention_bias", "mlp_bias", "use_sliding_window"), False),
        "quantization_config": None,
    }
    for name, value in expected.items():
        if theirs.get(name, value) != value and not (name == "head_dim" and theirs[name] is None):
            raise UserError(f"{source}: {name} is {theirs[name]!r}. {FITS}")
    if not isinstance(config.tie_embeddings, bool):
        raise UserError(f"{source}: tie_word_embeddings is {config.tie_embeddings!r}, true or false is expected")
    try:
        config.check()
    except UserError as error:
        raise UserError(f"{source}: {error}. {FITS}") from error
    return config


def _rope_theta(theirs: Mapping[str, Any], source: str) -> float:
    """The base of the rotary positions, wherever a version of transformers writes it."""
    parameters = theirs.get("rope_parameters") or theirs.get("rope_scaling") or {}
    if not isinstance(parameters, dict):
        raise UserError(f"{source}: rope_parameters is {parameters!r}. {FITS}")
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    if kind != "default":
        raise UserError(f"{source}: the rotary positions are of type {kind!r}. {FITS}")
    value = parameters.get("rope_theta", theirs.get("rope_theta", ModelConfig.rope_theta))
    if not isinstance(value, int | float) or isinstance(value, bool) or not 1 <= value <= MAX_THETA:
        raise UserError(f"{source}: rope_theta is {value!r}, a number from 1 to {MAX_THETA:g} is expected")
    return float(value)


def _fraction(value: object) -> float:
    """A share, as far as it is one; the check of the configuration refuses the others."""
    return float(value) if isinstance(value, int | float) and 0 <= value < 1 else -1.0
