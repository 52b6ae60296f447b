"""Hugging Face folders of others: what fits is read, everything else is refused in one line, and nothing in a folder runs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from config import ModelConfig
from exporting.hugging_face_export import write_hugging_face_folder
from formats.checkpoint import load_checkpoint
from formats.hugging_face import our_config, their_config
from formats.hugging_face_folder import read_hugging_face_folder
from formats.named_model import load_named_model
from system.errors import UserError


@pytest.fixture(scope="module")
def sound(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    write_hugging_face_folder(load_checkpoint(checkpoints["tuning"]), folder, torch.float32, "")
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return shutil.copytree(sound, tmp_path / "hf")


def edit(folder: Path, name: str, **changes: Any) -> None:
    content = json.loads((folder / name).read_text(encoding="utf-8"))
    (folder / name).write_text(json.dumps(content | changes), encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, r"the architecture is \['GPT2LMHeadModel'\]. What fits: Qwen3ForCausalLM or Llama"),
        ({"architectures": None}, "the architecture is None"),
        ({"vocab_size": 151_936}, "vocab_size is 151936, a number from 1 to 65,536 is expected. What fits"),
        ({"vocab_size": 401}, "tokenizer.model has 400 ids, config.json says 401. Export or download it again"),
        ({"rms_norm_eps": 1e-5}, "rms_norm_eps is 1e-05"),
        ({"head_dim": 64}, "head_dim is 64"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"use_sliding_window": True}, "use_sliding_window is True"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is "),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rotary positions are of type 'yarn'"),
        ({"rope_parameters": None, "rope_scaling": {"type": "linear"}}, "rotary positions are of type 'linear'"),
        ({"hidden_size": None}, "hidden_size is None"),
        ({"hidden_size": "32"}, "hidden_size is '32'"),
        ({"num_hidden_layers": 3}, "the weights lack model.layers.2"),
        ({"num_hidden_layers": 1}, "the weights have model.layers.1"),
        ({"num_attention_heads": 5, "head_dim": 6}, "config.json: --n-embed 32: not a multiple of twice"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, a number from 1 to 1,000"),
        ({"num_hidden_layers": 2.0}, "num_hidden_layers is 2.0"),
        ({"intermediate_size": 2**62}, "intermediate_size is 4611686018427387904"),
        ({"rope_parameters": {"rope_theta": 10**400}}, "rope_theta is 1000"),
        ({"rope_parameters": [1]}, r"rope_parameters is \[1\]"),
        ({"attention_dropout": 2}, "--dropout"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings is 'false'"),
        (
            {"intermediate_size": 64},
            r"mlp.gate_proj.weight is \(128, 32\) in torch.float32, config.json says \(64, 32\). Export or download it again",
        ),
        ({"tie_word_embeddings": False}, "the weights lack lm_head.weight"),
    ],
)
def test_another_architecture_is_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    edit(folder, "config.json", **changes)
    with pytest.raises(UserError, match=message):
        read_hugging_face_folder(folder)


def cut(name: str, size: int) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


def with_index(**contents: Any) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        (folder / "model.safetensors.index.json").write_text(json.dumps(contents))

    return write


DAMAGE: list[tuple[Callable[[Path], object], str]] = [
    (cut("model.safetensors", 5000), "model.safetensors is damaged"),
    (cut("model.safetensors", 0), "model.safetensors is damaged"),
    (cut("config.json", 40), "config.json is damaged"),
    (cut("backgpt.json", 40), "backgpt.json is damaged"),
    (cut("tokenizer.model", 100), "is not a SentencePiece model"),
    (lambda folder: (folder / "config.json").unlink(), "cannot read .*config.json"),
    (lambda folder: (folder / "backgpt.json").unlink(), "has no backgpt.json. If the model was tuned from an export .* copy"),
    (lambda folder: (folder / "tokenizer.model").unlink(), "has no tokenizer.model"),
    (lambda folder: edit(folder, "backgpt.json", order="sideways"), "backgpt.json is damaged"),
    (lambda folder: edit(folder, "backgpt.json", step="many"), "backgpt.json is damaged"),
    (lambda folder: edit(folder, "backgpt.json", train_config=[]), "backgpt.json is damaged"),
    (lambda folder: edit(folder, "backgpt.json", val_loss=10**400), "backgpt.json is damaged"),
    (lambda folder: edit(folder, "backgpt.json", tokens=-1), "backgpt.json is damaged"),
    (lambda folder: edit(folder, "backgpt.json", identity=[1]), "backgpt.json is damaged"),
    (lambda folder: edit(folder, "backgpt.json", stage=None), "backgpt.json is damaged"),
    (lambda folder: (folder / "config.json").write_text("[" * 100_000), "config.json is damaged"),
    (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "Other formats are not read"),
    (with_index(weight_map={"x": "../../etc/model.safetensors"}), "not a .safetensors file of this folder"),
    (with_index(weight_map={"x": "/etc/passwd"}), "not a .safetensors file of this folder"),
    (with_index(weight_map={"x": "tokenizer.model"}), "not a .safetensors file of this folder"),
    (with_index(weight_map={"x": "absent.safetensors"}), "not a .safetensors file of this folder. Export or download it again"),
    (with_index(weight_map=[]), "it has no weight_map"),
    (with_index(), "it has no weight_map"),
]


@pytest.mark.parametrize("number", range(len(DAMAGE)))
def test_damage_is_refused(folder: Path, number: int) -> None:
    damage, message = DAMAGE[number]
    damage(folder)
    with pytest.raises(UserError, match=message):
        read_hugging_face_folder(folder)


def test_code_in_a_folder_does_not_run(folder: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    for name in ("modeling_evil.py", "reverse.py", "__init__.py"):
        (folder / name).write_text(f"open({str(mark)!r}, 'w')")
    edit(folder, "config.json", auto_map={"AutoModelForCausalLM": "modeling_evil.Evil"}, trust_remote_code=True)
    read_hugging_face_folder(folder).make_model(torch.device("cpu"))
    assert not mark.exists()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "backgpt.json", "tokenizer.model"])
def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to("../elsewhere")
    with pytest.raises(UserError, match=rf"{name} is a link to {tmp_path / 'elsewhere'}, out of this folder"):
        read_hugging_face_folder(folder)
    (folder / name).unlink()
    (folder / "inner").mkdir()
    (tmp_path / "elsewhere").rename(folder / "inner" / name)
    (folder / name).symlink_to(Path("inner") / name)
    (tmp_path / "link").symlink_to(folder)  # the folder itself may be anywhere
    assert read_hugging_face_folder(tmp_path / "link").step == 1


def test_the_links_of_the_cache_of_the_hub_are_followed(folder: Path, tmp_path: Path) -> None:
    blobs, snapshot = (tmp_path / "models--owner--name" / name for name in ("blobs", "snapshots/1234"))
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, path in enumerate(folder.iterdir()):
        path.rename(blobs / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    assert read_hugging_face_folder(snapshot).step == 1


def test_a_tied_matrix_that_is_written_twice_and_a_folder_without_training_facts_are_fine(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, folder / "model.safetensors")
    (folder / "backgpt.json").write_text('{"order": "backward", "stage": "tuning"}')
    checkpoint = read_hugging_face_folder(folder)
    assert (checkpoint.step, checkpoint.tokens, checkpoint.train_config) == (0, 0, {})


def test_a_flat_matrix_is_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"].flatten()
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(UserError, match="model.embed_tokens.weight is "):
        read_hugging_face_folder(folder)


def test_places_that_a_stranger_names_are_not_followed(folder: Path) -> None:
    edit(folder, "backgpt.json", train_config={"model_path": "/etc/passwd", "data_dir": "hf://x/y", "lr": 1})
    assert read_hugging_face_folder(folder).train_config == {"lr": 1}


def test_an_integer_tensor_is_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"].int()
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(UserError, match="model.norm.weight is .* in torch.int32"):
        read_hugging_face_folder(folder)


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(),
        ModelConfig(qk_norm=False, tie_embeddings=False),
        ModelConfig(n_kv_head=4, mlp_size=512, rope_theta=1e6, dropout=0.1, vocab_size=65_536),
    ],
)
def test_a_shape_comes_back(config: ModelConfig) -> None:
    there = json.loads(json.dumps(their_config(config, "bfloat16")))
    assert our_config(there, "x") == config
    del there["rope_parameters"]  # a config.json of transformers before version 5
    assert our_config(there, "x") == config


def test_a_model_is_named_by_its_file_or_by_a_folder_of_either_kind(sound: Path, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    path = checkpoints["tuning"]
    assert load_named_model(str(path)).path == load_named_model(str(path.parent)).path == path
    assert load_named_model(str(sound)).path == load_named_model(str(sound)).folder == sound
    run = shutil.copytree(path.parent, tmp_path / "run")
    (run / "config.json").write_text('{"lr": 1}')  # training writes one too
    assert load_named_model(str(run)).path == run / path.name
    (run / path.name).unlink()
    with pytest.raises(UserError, match="no checkpoint at"):
        load_named_model(str(run))
