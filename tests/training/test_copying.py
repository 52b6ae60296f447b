"""The copying measure: what it asks of a model, and what a model that copies gets."""

from pathlib import Path

import numpy as np
import pytest
import torch

from config import IGNORE_INDEX
from tests.training.runs import Run
from tokens.tokenizer import Tokenizer
from training.copying import FIRST, SECOND, copying_controls
from training.loss import measure_loss
from training.metrics import read_metrics


class Copier(torch.nn.Module):
    """Predicts what followed the same token before, as an induction head does."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(vocab_size, 1)

    def forward(self, ids: torch.Tensor, targets: torch.Tensor, segment_ids: torch.Tensor | None = None) -> torch.Tensor:
        logits = torch.zeros(*ids.shape, self.embedding.num_embeddings)
        for row, place in np.ndindex(*ids.shape):
            before = (ids[row, :place] == ids[row, place]).nonzero()
            if len(before):
                logits[row, place, ids[row, before[-1] + 1]] = 20
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE_INDEX, reduction="sum")


@pytest.fixture(scope="module")
def tokenizer(dataset_folder: Path) -> Tokenizer:
    return Tokenizer.load(dataset_folder)


@pytest.mark.parametrize("batch_size", [1, 3, 8, 20])
@pytest.mark.parametrize("packed", [False, True])
def test_a_model_that_copies_is_only_surprised_by_the_first_copy(tokenizer: Tokenizer, batch_size: int, packed: bool) -> None:
    controls = copying_controls(tokenizer, 64, packed)
    losses = {
        name: measure_loss(Copier(tokenizer.vocab_size), batches(batch_size), tokenizer.bytes_per_id, torch.float32)  # type: ignore[arg-type]
        for name, batches in controls.items()
    }
    assert losses[FIRST].nats_per_token > 5
    assert losses[SECOND].nats_per_token < 2  # the same token can stand in a copy twice
    assert losses[FIRST].tokens == losses[SECOND].tokens
    for batches in controls.values():
        for batch in batches(batch_size):
            assert batch.inputs.shape == batch.targets.shape == (batch_size, 64)
            assert (batch.segment_ids is not None) == packed


def test_every_sequence_has_another_distance_and_ordinary_tokens(tokenizer: Tokenizer) -> None:
    [batch] = copying_controls(tokenizer, 512, packed=False)[SECOND](8)
    distances = [int((targets != IGNORE_INDEX).sum()) + 1 for targets in batch.targets]
    assert len(set(distances)) == 8 and min(distances) == 64 and max(distances) == 256
    for ids, targets, distance in zip(batch.inputs, batch.targets, distances, strict=True):
        copied = ids[:distance]
        assert (ids[distance : 2 * distance] == copied).all() and tokenizer.bytes_per_id[copied].all()
        assert (targets[distance : 2 * distance - 1] == copied[1:]).all()


def test_a_context_without_room_for_two_copies_has_no_measure(tokenizer: Tokenizer) -> None:
    assert not copying_controls(tokenizer, 15, packed=False)
    for block_size in range(16, 40):
        for batches in copying_controls(tokenizer, block_size, packed=False).values():
            assert all((batch.targets != IGNORE_INDEX).any() for batch in batches(8))


def test_every_evaluation_of_both_stages_measures_it(pretrained: Run, tuned: Run) -> None:
    for run in (pretrained, tuned):
        last = [row for row in read_metrics(run.folder) if "val_loss" in row][-1]
        share = last["val_loss_random_tokens_again"] / last["val_loss_random_tokens"]
        assert f"step {last['step']}: validation loss" in run.printed
        assert f", a second copy of random tokens costs {share:.0%} of the first" in run.printed
