"""Loading the models under evaluation."""

from pathlib import Path

import torch

from config import EvaluateConfig
from evaluation.evaluated_model import EvaluatedModel, kin, load_models, twins


def load(models: list[Path], against: list[Path]) -> list[EvaluatedModel]:
    config = EvaluateConfig(model_path=tuple(map(str, models)), against=tuple(map(str, against)))
    return load_models(config, torch.device("cpu"))


def test_two_models_have_different_names(checkpoints: dict[str, Path]) -> None:
    def names(against: Path) -> list[str]:
        return [model.name for model in load([checkpoints["tuning"]], [against])]

    assert names(checkpoints["pretraining"]) == ["tuned, backward", "pretrained, backward"]
    assert names(checkpoints["tuning"]) == ["tuned, backward tuning 1", "tuned, backward tuning 2"]


def test_seeds_are_named_by_their_runs_and_compared_pair_by_pair(checkpoints: dict[str, Path]) -> None:
    tuned, pretrained = checkpoints["tuning"], checkpoints["pretraining"]
    models = load([tuned, tuned, pretrained], [pretrained, tuned, pretrained])
    assert [model.name for model in models] == [
        "tuned, backward tuning 1", "tuned, backward tuning 2", "pretrained, backward pretraining 1",
        "pretrained, backward pretraining 2", "tuned, backward tuning 3", "pretrained, backward pretraining 3",
    ]  # fmt: skip
    assert [model.kind for model in models] == [
        *["tuned, backward"] * 2,
        "",
        "against: pretrained, backward",
        "",
        "against: pretrained, backward",
    ]
    assert kin(models) == {"tuned, backward": [0, 1], "against: pretrained, backward": [3, 5]}
    assert twins(models) == [(0, 3), (1, 4), (2, 5)]
    assert twins(models[:3]) == []
