"""Pretraining: windows of token shards as a training task."""

import dataclasses
from collections.abc import Set
from pathlib import Path

from config import Order, TrainConfig
from formats.batches import SHUFFLE, Batch, BatchSeries, Windows, evenly_spaced
from formats.shards import SPLITS, Dataset, open_dataset
from model import GPT
from sampling.engine import Engine
from sampling.generation import EndingPrompter, generate_texts
from sampling.sampler import SamplingParams
from system.amounts import amount
from system.errors import BAD_FLAGS, UserError
from tokens.tokenizer import Tokenizer
from training.copying import copying_controls
from training.task import RANDOM, START, TrainingTask

SAMPLE_PROMPTS: dict[Order, str] = {"backward": TrainConfig.sample_prompt, "forward": "Once upon a time"}


def pretraining_task(config: TrainConfig, dataset: Dataset, tokenizer: Tokenizer, start: str = RANDOM) -> TrainingTask:
    """Windows of the training shards in a new order every epoch, and a fixed set of windows of the validation shards.

    `start` says which weights the run begins with.
    """
    block_size = config.model.block_size
    train, val = (Windows(dataset.stream(split), block_size, tokenizer.end_of_text) for split in SPLITS)
    val_windows = evenly_spaced(len(val), max(1, config.eval_tokens // block_size))

    def draw(first: int, count: int) -> Batch:
        return train.draw(config.seed, first, count)

    def validation(batch_size: int) -> BatchSeries:
        # Every batch has one shape, so that a compiled model is compiled once.
        parts = [val_windows[start : start + batch_size] for start in range(0, len(val_windows), batch_size)]
        return BatchSeries(len(parts), lambda number: val.read(parts[number], batch_size))

    def sample(model: GPT, step: int) -> str:
        if not config.sample_tokens:
            return ""
        prompt = config.sample_prompt.encode("utf-8", "replace").decode()  # a shell can pass invalid UTF-8
        prompter = EndingPrompter(tokenizer, dataset.order, block_size)
        params = SamplingParams(config.sample_tokens, temperature=0.8, seed=config.seed + step)
        [(text, _)] = generate_texts(Engine(model), prompter, [prompt], params)
        return text

    data = {"the data": f"{len(dataset.stream('train')):,} tokens ({dataset.fingerprint})", "--eval-tokens": config.eval_tokens}
    return TrainingTask(
        "pretraining",
        tokenizer,
        dataset.order,
        draw,
        validation,
        sample,
        controls=copying_controls(tokenizer, block_size, packed=False),
        must_match={**SHUFFLE, START: start},
        data=data,
        data_fingerprint=dataset.fingerprint,
    )


def with_sample_prompt(config: TrainConfig, order: Order, given: Set[str]) -> TrainConfig:
    """The configuration with the default prompt of a word order, unless a flag or an earlier run has another one."""
    if "sample_prompt" in given or config.sample_prompt not in SAMPLE_PROMPTS.values():
        return config
    return dataclasses.replace(config, sample_prompt=SAMPLE_PROMPTS[order])


def open_training_data(config: TrainConfig) -> tuple[Dataset, Tokenizer]:
    """The shards to train on and the tokenizer they were made with."""
    dataset = open_dataset(Path(config.data_dir), check_hashes=config.verify)
    if config.order not in (None, dataset.order):
        raise UserError(
            f"--order {config.order}: {config.data_dir} is {dataset.order}. For the twin, run: "
            f"python preprocess_xcoax.py --order {config.order} --like {config.data_dir} --data-dir {config.data_dir}-{config.order}",
            BAD_FLAGS,
        )
    tokenizer = Tokenizer.load(dataset.folder)
    if tokenizer.sha256 != dataset.meta["tokenizer_sha256"]:
        raise UserError(f"{dataset.folder / 'tokenizer.model'} is not the tokenizer that the shards beside it were made with")
    return dataset, tokenizer


def describe_data(config: TrainConfig, dataset: Dataset) -> str:
    """How much data there is and how often the run will see it."""
    available, tokens_per_step = len(dataset.stream("train")), config.sequences_per_step * config.model.block_size
    text = f"{available:,} training tokens in {config.data_dir}, {dataset.order}; {tokens_per_step:,} in a step"
    if config.hours:
        return f"{text}, as many steps as fit into {amount(config.hours, 'hour')}"
    return f"{text}, {config.max_steps * tokens_per_step:,} in all, {config.max_steps * tokens_per_step / available:.2f} epochs"
