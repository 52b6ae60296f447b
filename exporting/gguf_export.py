"""Writing a checkpoint as one GGUF file for llama.cpp and the programs built on it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from config import NORM_EPSILON, ModelConfig, Stage
from exporting.chat_template import CHAT_TEMPLATE
from exporting.fast_tokenizer import stop_ids
from exporting.hugging_face_export import exported_weights
from formats.checkpoint import Checkpoint
from formats.hugging_face import ARCHITECTURES
from system.files import naming, rename
from tokens.tokenizer import Tokenizer

OUTER = {"embedding.weight": "token_embd", "norm.weight": "output_norm", "head.weight": "output"}
IN_BLOCK = {
    "attention_norm": "attn_norm",
    "attention.query": "attn_q",
    "attention.key": "attn_k",
    "attention.value": "attn_v",
    "attention.output": "attn_output",
    "attention.query_norm": "attn_q_norm",
    "attention.key_norm": "attn_k_norm",
    "mlp_norm": "ffn_norm",
    "mlp.gate": "ffn_gate",
    "mlp.up": "ffn_up",
    "mlp.down": "ffn_down",
}
BLOCK = 32  # values that share a scale in q8_0


def write_gguf(checkpoint: Checkpoint, path: Path, dtype: str, license: str) -> None:
    """Write the file; an earlier one stays until this one is complete."""
    import gguf

    config, tokenizer = checkpoint.model_config, checkpoint.tokenizer
    types = gguf.GGMLQuantizationType
    kind = {"float32": types.F32, "bfloat16": types.BF16, "float16": types.F16, "q8_0": types.Q8_0}[dtype]
    _, architecture = ARCHITECTURES[config.qk_norm]
    temporary = path.with_name(f"{path.name}.part")
    try:
        with naming(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.unlink(missing_ok=True)  # of an export that was killed, or a link to another file
            writer = gguf.GGUFWriter(temporary, architecture)
            writer.add_name("BackChat" if checkpoint.stage == "tuning" else "BackGPT")
            if license:
                writer.add_license(license)
            writer.add_file_type(getattr(gguf.LlamaFileType, f"MOSTLY_{kind.name}" if kind != types.F32 else "ALL_F32"))
            _add_shape(writer, config)
            _add_tokenizer(writer, tokenizer, checkpoint.stage)
            for name, array in _arrays(checkpoint):
                stored = types.F32 if array.ndim == 1 else types.F16 if kind == types.Q8_0 and array.shape[-1] % BLOCK else kind
                writer.add_tensor(name, gguf.quantize(array, stored).view(_Tensor), raw_dtype=stored)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            rename(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


class _Tensor(np.ndarray[Any, Any]):
    """An array that Python's file writes. NumPy's own way does not say what failed, and loses a small array in silence."""

    def tofile(self, fid: Any, sep: str = "", format: str = "%s") -> None:
        fid.write(np.ascontiguousarray(self).data)


def _add_shape(writer: Any, config: ModelConfig) -> None:
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.block_size)
    writer.add_embedding_length(config.n_embed)
    writer.add_block_count(config.n_layer)
    writer.add_feed_forward_length(config.mlp_width)
    writer.add_head_count(config.n_head)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_key_length(config.head_size)
    writer.add_value_length(config.head_size)
    writer.add_rope_dimension_count(config.head_size)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(NORM_EPSILON)


def _add_tokenizer(writer: Any, tokenizer: Tokenizer, stage: Stage) -> None:
    """The SentencePiece model as llama.cpp reads it: pieces with their scores and types. Merges follow from the scores."""
    processor = tokenizer.processor
    ids = range(tokenizer.vocab_size)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([processor.id_to_piece(id).encode() for id in ids])
    writer.add_token_scores([processor.get_score(id) for id in ids])
    writer.add_token_types([_token_type(tokenizer, id) for id in ids])
    writer.add_bos_token_id(tokenizer.end_of_text)
    writer.add_eos_token_id(stop_ids(tokenizer, stage)[0])
    writer.add_eot_token_id(stop_ids(tokenizer, stage)[0])
    writer.add_unk_token_id(int(processor.unk_id()))
    writer.add_pad_token_id(int(processor.pad_id()))
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    writer.add_remove_extra_whitespaces(False)
    if stage == "tuning":
        writer.add_chat_template(CHAT_TEMPLATE)


def _token_type(tokenizer: Tokenizer, id: int) -> int:
    from gguf import TokenType

    processor = tokenizer.processor
    kinds = (
        (processor.is_byte, TokenType.BYTE),
        (processor.is_control, TokenType.CONTROL),
        (processor.is_unknown, TokenType.UNKNOWN),
        (processor.is_unused, TokenType.UNUSED),
    )
    return int(next((kind for is_kind, kind in kinds if is_kind(id)), TokenType.NORMAL))


def _arrays(checkpoint: Checkpoint) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """All tensors under the names of llama.cpp, in float32."""
    config = checkpoint.model_config
    for name, tensor in exported_weights(checkpoint, torch.float32).items():
        array: NDArray[np.float32] = tensor.numpy()
        if name in OUTER:
            yield f"{OUTER[name]}.weight", array
            continue
        _, layer, inner = name.removesuffix(".weight").split(".", 2)
        if inner in ("attention.query", "attention.key") and not config.qk_norm:
            array = _interleave(array, config.head_size)
        yield f"blk.{layer}.{IN_BLOCK[inner]}.weight", array


def _interleave(matrix: NDArray[np.float32], head_size: int) -> NDArray[np.float32]:
    """For Llama (not Qwen3) llama.cpp rotates channels 2i and 2i + 1 of a head where we rotate i and i + D/2."""
    heads = matrix.reshape(-1, 2, head_size // 2, matrix.shape[-1])  # (H, 2, D/2, C)
    return heads.swapaxes(1, 2).reshape(matrix.shape)
