"""GGUF files: the shape, the tokenizer and the weights as llama.cpp reads them."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from exporting.chat_template import CHAT_TEMPLATE
from formats.checkpoint import load_checkpoint
from tests.conftest import fails_with, file_size_limit
from tests.exporting.conftest import SHAPES, export, save_random
from tokens.tokenizer import Tokenizer


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    reader = gguf.GGUFReader(path)
    return {name: field.contents() for name, field in reader.fields.items()}, {tensor.name: tensor for tensor in reader.tensors}


def as_floats(tensor: Any) -> Any:
    return gguf.dequantize(tensor.data, tensor.tensor_type)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_weight_is_there(shape: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = save_random(tmp_path / "best_checkpoint.pt", tokenizer, **SHAPES[shape])
    result = export(path, tmp_path, "--format", "gguf", "--dtype", "float32")
    assert result.returncode == 0, result.stderr
    facts, tensors = read(tmp_path / "model-float32.gguf")
    checkpoint = load_checkpoint(path)
    config, weights = checkpoint.model_config, checkpoint.weights
    name = "qwen3" if config.qk_norm else "llama"
    assert facts["general.architecture"] == name
    for key, value in (
        ("block_count", 2), ("context_length", 64), ("embedding_length", 32), ("feed_forward_length", config.mlp_width),
        ("attention.head_count", config.n_head), ("attention.head_count_kv", config.kv_heads), ("attention.key_length", config.head_size),
        ("rope.freq_base", config.rope_theta), ("vocab_size", 400),
    ):  # fmt: skip
        assert facts[f"{name}.{key}"] == value, key
    assert len(tensors) == len(weights)
    assert np.array_equal(as_floats(tensors["token_embd.weight"]), weights["embedding.weight"][:400].numpy())
    assert np.array_equal(as_floats(tensors["blk.1.ffn_down.weight"]), weights["blocks.1.mlp.down.weight"].numpy())
    query, ours = as_floats(tensors["blk.0.attn_q.weight"]), weights["blocks.0.attention.query.weight"].numpy()
    half = config.head_size // 2
    assert np.array_equal(query[1], ours[1] if config.qk_norm else ours[half])  # Llama's pairs of channels lie side by side there


def test_the_tokenizer_is_complete(checkpoint: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    assert export(checkpoint, tmp_path, "--format", "gguf").returncode == 0
    facts, _ = read(tmp_path / "model-float16.gguf")
    processor = tokenizer.processor
    assert facts["tokenizer.ggml.tokens"] == [processor.id_to_piece(id) for id in range(400)]
    assert np.allclose(facts["tokenizer.ggml.scores"], [processor.get_score(id) for id in range(400)])
    kinds = facts["tokenizer.ggml.token_type"]
    assert kinds[1] == gguf.TokenType.UNKNOWN and kinds[tokenizer.end_of_text] == gguf.TokenType.CONTROL
    assert kinds[processor.piece_to_id("<0x0A>")] == gguf.TokenType.BYTE and kinds[-1] == gguf.TokenType.NORMAL
    assert facts["tokenizer.ggml.bos_token_id"] == tokenizer.end_of_text
    assert facts["tokenizer.ggml.eos_token_id"] == tokenizer.special_id("<|im_end|>")
    assert facts["tokenizer.ggml.add_bos_token"] and not facts["tokenizer.ggml.add_space_prefix"]
    assert facts["tokenizer.chat_template"] == CHAT_TEMPLATE


@pytest.mark.parametrize(("dtype", "worst"), [("float16", 1e-3), ("bfloat16", 8e-3), ("q8_0", 8e-3)])
def test_weights_are_rounded_as_asked(dtype: str, worst: float, checkpoint: Path, tmp_path: Path) -> None:
    assert export(checkpoint, tmp_path, "--format", "gguf", "--dtype", dtype).returncode == 0
    _, tensors = read(tmp_path / f"model-{dtype}.gguf")
    gate, norm = tensors["blk.0.ffn_gate.weight"], tensors["output_norm.weight"]
    ours = load_checkpoint(checkpoint).weights["blocks.0.mlp.gate.weight"].numpy()
    error = np.abs(as_floats(gate) - ours).max()
    assert 0 < error < worst
    assert norm.tensor_type == gguf.GGMLQuantizationType.F32


def test_an_earlier_file_stays_without_force_and_after_a_failure(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model-float16.gguf"
    path.write_bytes(b"earlier")
    fails_with(export(checkpoint, tmp_path, "--format", "gguf"), 2, "is there already", "--force")

    def fail(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(gguf.GGUFWriter, "write_tensors_to_file", fail)
        fails_with(export(checkpoint, tmp_path, "--format", "gguf", "--force"), 1, "No space left on device", str(path))
    assert path.read_bytes() == b"earlier" and list(tmp_path.iterdir()) == [path]
    assert export(checkpoint, tmp_path, "--format", "gguf", "--force").returncode == 0
    assert path.stat().st_size > 10_000


def test_a_full_disk_is_noticed_up_to_the_last_byte(checkpoint: Path, tmp_path: Path) -> None:
    """The last tensor is small: who buffers it finds out when closing the file."""
    command = ("--format", "gguf", "--dtype", "float32")
    assert export(checkpoint, tmp_path / "whole", *command).returncode == 0
    size = (tmp_path / "whole" / "model-float32.gguf").stat().st_size
    for limit in (size - 1, size - 200, size // 2, 100):
        with file_size_limit(limit):
            result = export(checkpoint, tmp_path / "out", *command)
        fails_with(result, 1, "File too large", str(tmp_path / "out" / "model-float32.gguf"), "Raise the file size limit")
        assert not (tmp_path / "out").exists()
