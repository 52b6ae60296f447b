"""What a report says of how it was made: the program and the data."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from config import EvaluateConfig
from evaluation.evaluated_model import EvaluatedModel
from formats.hub_models import is_on_hub
from formats.shards import open_dataset
from system.provenance import describe_program

TRAINED_ON = ("the data", "the pairs")  # as checkpoints record the data of their last training, with its hash


def describe_model(model: EvaluatedModel) -> dict[str, Any]:
    """What tells a model from the others of its report; None where its checkpoint does not say it."""
    checkpoint = model.checkpoint
    data = next((str(checkpoint.must_match[name]) for name in TRAINED_ON if name in checkpoint.must_match), None)
    return {
        "folder": model.named if is_on_hub(model.named) else str(checkpoint.folder),
        "word order": checkpoint.order,
        "seed": checkpoint.train_config.get("seed"),
        "learning rate": checkpoint.train_config.get("lr"),
        "tokens seen": checkpoint.tokens,
        "data": data and data.rpartition("(")[2].rstrip(")"),
        "checkpoint": checkpoint.fingerprint,
    }


def describe_provenance(config: EvaluateConfig, models: Sequence[EvaluatedModel]) -> dict[str, Any]:
    """The facts beside the settings: command, commit, versions, and the data by hash, that of training and that of the flags."""
    recorded = ((model.name, name, model.checkpoint.must_match) for model in models for name in TRAINED_ON)
    trained_on = {model: must_match[name] for model, name, must_match in recorded if name in must_match}
    measured_on = {folder: open_dataset(Path(folder), None).fingerprint for folder in (*config.data_dir, config.pairs_dir) if folder}
    return {**describe_program(), "data": {**trained_on, **measured_on}}
