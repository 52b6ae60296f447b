"""Which evaluated texts a model has seen in training: found by their ids in the shards that it was trained on."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from evaluation.held_out import HeldOutTexts, NotMeasured, open_data
from formats.ancestry import MOST_STAGES, began_with
from formats.checkpoint import Checkpoint
from formats.document_reader import scan_documents
from formats.shards import Dataset
from formats.token_stream import ID_DTYPE
from system.errors import UserError
from tokens.reversal import reorder
from tokens.tokenizer import Tokenizer

UNKNOWN = "so these texts may have been in its training data"


def warn_of_training(groups: Sequence[HeldOutTexts], checkpoints: Sequence[Checkpoint]) -> None:
    """Add a warning to each group of texts for each model that saw some of them, or of which that cannot be known."""
    texts = {text for group in groups for text in group.texts}
    found: dict[Path, set[str]] = {}  # by data folder, since the seeds of a model share one
    for checkpoint in checkpoints:
        try:
            seen: set[str] = set()
            for dataset in _trained_on(checkpoint):
                if dataset.folder not in found:
                    found[dataset.folder] = find_seen(dataset, texts)
                seen |= found[dataset.folder]
        except (NotMeasured, UserError) as reason:
            for group in groups:
                group.warnings.append(f"{checkpoint.path}: cannot read the data that it was trained on, {UNKNOWN}: {reason}")
            continue
        for group in groups:
            if count := sum(text in seen for text in group.texts):
                seen_texts = f"{count:,} of these {len(group.texts):,} texts" if len(group.texts) > 1 else "this text"
                group.warnings.append(f"{checkpoint.path} was trained on {seen_texts}.")


def _trained_on(checkpoint: Checkpoint) -> Iterator[Dataset]:
    """The data folder of pretraining, and those of the models that it began with."""
    stage: Checkpoint | None = checkpoint
    for _ in range(MOST_STAGES):
        if stage is None:
            return
        if stage.stage == "pretraining":
            dataset = open_data("", stage, "pretraining")
            recorded = str(stage.must_match.get("the data", dataset.fingerprint))
            if dataset.fingerprint not in recorded:
                raise NotMeasured(f"{dataset.folder} has changed since then")
            if stage.train_config.get("new_data"):
                raise NotMeasured("its data was replaced while it was trained (--new-data)")
            yield dataset
        elif not stage.train_config.get("model_path"):
            raise NotMeasured("it does not say what it was tuned from")
        stage = began_with(stage)


def find_seen(dataset: Dataset, texts: set[str]) -> set[str]:
    """Those of the texts that are documents of the training split, whatever the tokenizer and the word order of its shards.

    The texts are encoded as the shards were, and compared with each document there: a tokenizer gives a text the same ids each time. The
    evaluated texts are few, so memory does not grow with the shards.
    """
    tokenizer = Tokenizer.load(dataset.folder)
    ids_of = {text: np.array(tokenizer.encode(reorder(text, dataset.order)), ID_DTYPE) for text in texts}
    text_of = {ids.tobytes(): text for text, ids in ids_of.items()}
    documents = scan_documents(dataset.stream("train"), tokenizer.end_of_text, {len(ids) for ids in ids_of.values()})
    return {text_of[found] for ids in documents if (found := ids.tobytes()) in text_of}
