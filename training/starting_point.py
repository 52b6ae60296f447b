"""The model that --init-from names, as the start of a pretraining run on other text."""

import dataclasses
from collections.abc import Set

import torch

from config import ModelConfig, TrainConfig
from formats.checkpoint import Checkpoint
from formats.named_model import load_named_model
from formats.shards import Dataset
from model import GPT
from system.errors import BAD_FLAGS, UserError

FREE = {"block_size", "rope_theta", "dropout"}  # no weight depends on them


def load_start(config: TrainConfig, given: Set[str]) -> tuple[TrainConfig, Checkpoint]:
    """The model, and the configuration with its shape. Of the given flags, those that would change its weights are refused."""
    start = load_named_model(config.init_from)
    theirs, ours = start.model_config, config.model
    shape = {field.name: getattr(ours if field.name in FREE & given else theirs, field.name) for field in dataclasses.fields(ModelConfig)}
    for name in sorted(given - FREE):
        if name in shape and getattr(ours, name) != shape[name]:
            flag = f"--{name.replace('_', '-')}"
            raise UserError(
                f"{flag} {getattr(ours, name)}: {start.path} has {shape[name]}, which --init-from keeps. Leave out {flag}", BAD_FLAGS
            )
    config = dataclasses.replace(config, model=ModelConfig(**shape))
    config.check()
    return config, start


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
