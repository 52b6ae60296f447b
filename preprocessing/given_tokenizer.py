"""The tokenizer that --tokenizer names, which brings its size."""

import dataclasses
import functools
from collections.abc import Set
from pathlib import Path
from typing import TypeVar

from config import InstructConfig, PreprocessConfig
from formats.shards import open_dataset
from system.errors import BAD_FLAGS, UserError
from tokens.tokenizer import Tokenizer

Config = TypeVar("Config", PreprocessConfig, InstructConfig)


def with_its_size(config: Config, given: Set[str]) -> Config:
    """The configuration with the number of ids of the tokenizer that it names. Another number that was given is refused."""
    if not config.tokenizer:
        return config
    size = load_given_tokenizer(config.tokenizer).vocab_size
    if "vocab_size" in given and size != config.vocab_size:
        raise UserError(
            f"--vocab-size {config.vocab_size}: {config.tokenizer} has {size} ids. Give that number, or leave the flag out", BAD_FLAGS
        )
    return dataclasses.replace(config, vocab_size=size)


@functools.cache
def load_given_tokenizer(name: str) -> Tokenizer:
    """That of a data folder, a tokenizer.model, or any model: a checkpoint, a folder of checkpoints, a Hugging Face folder, hf://owner/name."""
    path = Path(name)
    if name.startswith("hf://") or path.suffix == ".pt" or (path / "best_checkpoint.pt").is_file():
        from formats.named_model import load_named_model  # imports torch, which worker processes must not

        return load_named_model(name).tokenizer
    if path.is_file() or ((path / "tokenizer.model").is_file() and not (path / "unfinished").is_dir()):
        return Tokenizer.load(path)
    return Tokenizer.load(open_dataset(path, content=None).folder)
