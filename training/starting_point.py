"""The model that --init-from names, as the start of a pretraining run on other text."""

import dataclasses
from collections.abc import Set
from pathlib import Path
from typing import NamedTuple

import torch

from config import ModelConfig, TrainConfig
from formats.checkpoint import LAST, Checkpoint, load_checkpoint
from formats.named_model import load_named_model
from formats.shards import Dataset
from model import GPT
from system.errors import BAD_FLAGS, UserError
from system.escapes import tell
from training.task import RANDOM, START

FREE = {"block_size", "rope_theta", "dropout"}  # no weight depends on them
DEFAULTS = {"n_kv_head": "kv_heads", "mlp_size": "mlp_width"}  # what these are if they are not given


class StartingPoint(NamedTuple):
    """The model to start from, and what tells it from other models."""

    checkpoint: Checkpoint
    fingerprint: str


def load_start(config: TrainConfig, given: Set[str]) -> tuple[TrainConfig, StartingPoint]:
    """The model, and the configuration with its shape. Of the given flags, those that would change its weights are refused."""
    start = _find_start(config)
    ours, theirs = config.model, start.checkpoint.model_config
    config = dataclasses.replace(config, model=dataclasses.replace(theirs, **{name: getattr(ours, name) for name in FREE & given}))
    for name in sorted(given & {field.name for field in dataclasses.fields(ModelConfig)} - FREE):
        wanted, there = (getattr(shape, DEFAULTS.get(name, name)) for shape in (ours, theirs))
        if wanted != there:
            flag = f"--{name.replace('_', '-')}"
            raise UserError(f"{flag} {wanted}: {start.checkpoint.path} has {there}, which --init-from keeps. Leave out {flag}", BAD_FLAGS)
    config.check()
    return config, start


def _find_start(config: TrainConfig) -> StartingPoint:
    """The named model. A run that has begun can be resumed without it: its own last checkpoint knows what it was."""
    try:
        checkpoint = load_named_model(config.init_from)
        return StartingPoint(checkpoint, checkpoint.fingerprint)
    except UserError as error:
        last = Path(config.out_dir) / LAST
        if not last.is_file():
            raise
        checkpoint = load_checkpoint(last)
        tell(f"--init-from {config.init_from} cannot be read ({error}): resuming without it")
        return StartingPoint(checkpoint, checkpoint.must_match.get(START, RANDOM))


def require_same_tokens(config: TrainConfig, dataset: Dataset, start: Checkpoint) -> None:
    """Refuse data that was not made for this model: an id would mean another piece of text, or words would come in another order."""
    if dataset.meta["tokenizer_sha256"] != start.tokenizer.sha256:
        raise UserError(
            f"{config.data_dir} was made with tokenizer {dataset.meta['tokenizer_sha256'][:12]}, {start.path} has "
            f"{start.tokenizer.sha256[:12]}. Make the data with the model's own: python preprocess_xcoax.py --tokenizer {config.init_from} "
            f"--order {start.order} --data-dir ...",
            BAD_FLAGS,
        )
    if dataset.order != start.order:
        raise UserError(
            f"{config.data_dir} is {dataset.order}, {start.path} is {start.order}. Make the data again with --order {start.order}",
            BAD_FLAGS,
        )


def make_started_model(config: TrainConfig, start: Checkpoint) -> GPT:
    """The model with the weights to start from, in float32."""
    return dataclasses.replace(start, model_config=config.model).make_model(torch.device("cpu")).float()
