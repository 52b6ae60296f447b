"""A model under evaluation: its checkpoint, loaded and ready to score."""

from collections import Counter
from collections.abc import Sequence
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
    is_other: bool = False  # compared with, rather than evaluated
    kind: str = ""  # where several models are numbered: the name without its number

    @property
    def block_size(self) -> int:
        """The context length."""
        return self.checkpoint.model_config.block_size


def load_models(config: EvaluateConfig, device: torch.device, ranks: Ranks = ALONE) -> list[EvaluatedModel]:
    """The models to evaluate and, if some are named, the models to compare them with; each with a name of its own."""
    models = [load_model(path, "tuning", config, device, ranks) for path in config.model_path]
    names = {model.name for model in models}
    for path in filter(None, config.against):
        other = load_model(path, "pretraining", config, device, ranks)
        models.append(other._replace(name=f"against: {other.name}" if other.name in names else other.name, is_other=True))
    return with_numbers(models)


def with_numbers(models: Sequence[EvaluatedModel]) -> list[EvaluatedModel]:
    """The models, those of one kind numbered in their order."""
    counts, numbers = Counter(model.name for model in models), Counter[str]()
    numbered = []
    for model in models:
        numbers[model.name] += 1
        several = counts[model.name] > 1
        numbered.append(model._replace(name=f"{model.name} {numbers[model.name]}", kind=model.name) if several else model)
    return numbered


def twins(models: Sequence[EvaluatedModel]) -> list[tuple[int, int]]:
    """The places of each evaluated model and of the one that it is compared with."""
    ours, others = ([place for place, model in enumerate(models) if model.is_other == other] for other in (False, True))
    return list(zip(ours, others, strict=True)) if others else []


def load_model(path: str, stage: Stage, config: EvaluateConfig, device: torch.device, ranks: Ranks) -> EvaluatedModel:
    """The model of a checkpoint, in the dtype that the flags ask for."""
    checkpoint = load_named_model(path, stage)
    model = prepare_for_inference(checkpoint.make_model(torch.device("cpu")), choose_dtype(config.dtype, device), int8=False).to(device)
    name = f"{'tuned' if checkpoint.stage == 'tuning' else 'pretrained'}, {checkpoint.order}"
    return EvaluatedModel(name, checkpoint, Scorer(model, config.batch_size), ranks)
