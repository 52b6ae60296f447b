"""A model under evaluation: its checkpoint, loaded and ready to score."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch

from config import EvaluateConfig, Stage
from evaluation.run_names import Parts, parts_of, tell_apart
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
    kind: str = ""  # where several models, such as seeds, differ in their run only: the name without that of the run
    named: str = ""  # as the flag names it

    @property
    def block_size(self) -> int:
        """The context length."""
        return self.checkpoint.model_config.block_size

    @property
    def run(self) -> Parts:
        """Where the model is, in parts."""
        return parts_of(self.named, self.checkpoint)


def load_models(config: EvaluateConfig, device: torch.device, ranks: Ranks = ALONE) -> list[EvaluatedModel]:
    """The models to evaluate and, if some are named, the models to compare them with; each with a name of its own."""
    models = [load_model(path, "tuning", config, device, ranks) for path in config.model_path]
    others = [load_model(path, "pretraining", config, device, ranks) for path in filter(None, config.against)]
    return with_names([*models, *(other._replace(is_other=True) for other in others)])


def with_names(models: Sequence[EvaluatedModel]) -> list[EvaluatedModel]:
    """The models, named by stage and word order; if some share those, all by their runs too."""
    if len({model.name for model in models}) == len(models):
        return list(models)
    pretrained = all(model.checkpoint.stage == "pretraining" for model in models)  # which need not be said then
    kinds = [model.checkpoint.order if pretrained else model.name for model in models]
    ours = {kind for kind, model in zip(kinds, models, strict=True) if not model.is_other}
    sides = [f"against: {kind}" if model.is_other and kind in ours else kind for kind, model in zip(kinds, models, strict=True)]
    counts = Counter(sides)
    named = zip(models, tell_apart([model.run for model in models]), kinds, sides, strict=True)
    return [model._replace(name=f"{kind} {run}", kind=side if counts[side] > 1 else "") for model, run, kind, side in named]


def kin(models: Sequence[EvaluatedModel]) -> dict[str, list[int]]:
    """The places of the models of each kind of which there are several."""
    kinds = dict.fromkeys(model.kind for model in models if model.kind)
    return {kind: [place for place, model in enumerate(models) if model.kind == kind] for kind in kinds}


def twins(models: Sequence[EvaluatedModel]) -> list[tuple[int, int]]:
    """The places of each evaluated model and of the one that it is compared with."""
    ours, others = ([place for place, model in enumerate(models) if model.is_other == other] for other in (False, True))
    return list(zip(ours, others, strict=True)) if others else []


def load_model(path: str, stage: Stage, config: EvaluateConfig, device: torch.device, ranks: Ranks) -> EvaluatedModel:
    """The model of a checkpoint, in the dtype that the flags ask for."""
    checkpoint = load_named_model(path, stage)
    model = prepare_for_inference(checkpoint.make_model(torch.device("cpu")), choose_dtype(config.dtype, device), int8=False).to(device)
    name = f"{'tuned' if checkpoint.stage == 'tuning' else 'pretrained'}, {checkpoint.order}"
    return EvaluatedModel(name, checkpoint, Scorer(model, config.batch_size), ranks, named=path)
