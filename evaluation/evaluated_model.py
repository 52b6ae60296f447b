"""A model under evaluation: its checkpoint, loaded and ready to score."""

from typing import NamedTuple

import torch

from config import EvaluateConfig, Stage
from formats.checkpoint import Checkpoint
from formats.named_model import load_named_model
from sampling.inference_weights import prepare_for_inference
from sampling.scoring import Scorer
from system.device import choose_dtype
from system.ranks import ALONE, Ranks


class EvaluatedModel(NamedTuple):
    """A model under evaluation."""

    name: str  # in the report
    checkpoint: Checkpoint
    scorer: Scorer
    ranks: Ranks = ALONE  # the processes that divide its work

    @property
    def block_size(self) -> int:
        """The context length."""
        return self.checkpoint.model_config.block_size


def load_models(config: EvaluateConfig, device: torch.device, ranks: Ranks = ALONE) -> list[EvaluatedModel]:
    """The model to evaluate and, if one is named, the model to compare it with."""
    models = [load_model(config.model_path, "tuning", config, device, ranks)]
    if config.against:
        other = load_model(config.against, "pretraining", config, device, ranks)
        models.append(other._replace(name=f"against: {other.name}") if other.name == models[0].name else other)
    return models


def load_model(path: str, stage: Stage, config: EvaluateConfig, device: torch.device, ranks: Ranks) -> EvaluatedModel:
    """The model of a checkpoint, in the dtype that the flags ask for."""
    checkpoint = load_named_model(path, stage)
    model = prepare_for_inference(checkpoint.make_model(torch.device("cpu")), choose_dtype(config.dtype, device), int8=False).to(device)
    name = f"{'tuned' if checkpoint.stage == 'tuning' else 'pretrained'}, {checkpoint.order}"
    return EvaluatedModel(name, checkpoint, Scorer(model, config.batch_size), ranks)
