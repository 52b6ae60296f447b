"""The tokenizer that --tokenizer names."""

import functools
from pathlib import Path

from config import InstructConfig, PreprocessConfig
from formats.hugging_face import OURS
from formats.shards import open_dataset
from system.errors import BAD_FLAGS, UserError
from tokens.tokenizer import Tokenizer


def load_given_tokenizer(config: PreprocessConfig | InstructConfig) -> Tokenizer:
    """That of a finished data folder, a tokenizer.model, or any model: a checkpoint, a folder of checkpoints, a Hugging Face folder, hf://owner/name."""
    tokenizer = _load(config.tokenizer)
    if tokenizer.vocab_size != config.vocab_size:
        raise UserError(f"--vocab-size {config.vocab_size}: {config.tokenizer} has {tokenizer.vocab_size} ids. Give that number", BAD_FLAGS)
    return tokenizer


@functools.cache
def _load(name: str) -> Tokenizer:
    path = Path(name)
    if name.startswith("hf://") or path.suffix == ".pt" or (path / "best_checkpoint.pt").is_file():
        from formats.named_model import load_named_model  # imports torch, which worker processes must not

        return load_named_model(name).tokenizer
    if path.is_file() or (path / OURS).is_file():
        return Tokenizer.load(path)
    return Tokenizer.load(open_dataset(path, content=None).folder)
