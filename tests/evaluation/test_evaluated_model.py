"""Loading the models under evaluation."""

from pathlib import Path

import torch

from config import EvaluateConfig
from evaluation.evaluated_model import load_models


def test_two_models_have_different_names(checkpoints: dict[str, Path]) -> None:
    def names(against: Path) -> list[str]:
        config = EvaluateConfig(model_path=(str(checkpoints["tuning"]),), against=(str(against),))
        return [model.name for model in load_models(config, torch.device("cpu"))]

    assert names(checkpoints["pretraining"]) == ["tuned, backward", "pretrained, backward"]
    assert names(checkpoints["tuning"]) == ["tuned, backward", "against: tuned, backward"]
