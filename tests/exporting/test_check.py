"""The check of an export finds what is wrong with a folder."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from exporting.check import check_with_transformers
from formats.checkpoint import load_checkpoint
from system.errors import UserError


def edit_json(name: str, edit: Callable[[dict[str, object]], None]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        edit(content)
        (folder / name).write_text(json.dumps(content), encoding="utf-8")

    return change


def swap_two_merges(content: dict[str, object]) -> None:
    merges = content["model"]["merges"]  # type: ignore[index]
    merges.reverse()


def turn_faster(content: dict[str, object]) -> None:
    content["rope_parameters"] = {"rope_type": "default", "rope_theta": 50.0}


def change_a_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.self_attn.q_proj.weight"][0] += 0.5
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


FAULTS = [
    ("the ids of", edit_json("tokenizer.json", swap_two_merges)),
    ("is decoded to|are decoded to", edit_json("tokenizer.json", lambda content: content.update(decoder={"type": "ByteFallback"}))),
    ("the prompt for", edit_json("tokenizer_config.json", lambda content: content.update(chat_template="{{ messages[0]['content'] }}"))),
    ("logits differ by", change_a_weight),
    ("logits differ by", edit_json("config.json", turn_faster)),
    ("the greedy ids are", edit_json("generation_config.json", lambda content: content.update(suppress_tokens=list(range(100, 400))))),
]


@pytest.mark.parametrize(("message", "fault"), FAULTS)
def test_a_fault_is_found(message: str, fault: Callable[[Path], None], checkpoint: Path, exported: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(exported, tmp_path / "hf")
    fault(folder)
    with pytest.raises(UserError, match=f"the export was not kept.*({message})"):
        check_with_transformers(load_checkpoint(checkpoint), folder, torch.float32)


def test_a_sound_folder_passes(checkpoint: Path, exported: Path) -> None:
    assert "6 greedy texts are equal" in check_with_transformers(load_checkpoint(checkpoint), exported, torch.float32)
