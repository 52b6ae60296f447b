"""The loss of a model on batches: nats per token and bits per byte, computed by hand; and batches copied to the device ahead."""

import math

import numpy as np
import pytest
import torch

from config import IGNORE_INDEX
from model import GPT
from tests.training.counting import SHAPE, counting_batch
from training.loss import measure_loss

BYTES_PER_ID = np.arange(SHAPE.vocab_size) % 5


def test_the_loss_is_a_mean_over_all_targets_that_count() -> None:
    torch.manual_seed(0)
    model = GPT(SHAPE)
    batches = [counting_batch(0, 4), counting_batch(1, 2)]
    batches[0].targets[0, 3:] = IGNORE_INDEX
    batches[1].targets[1] = IGNORE_INDEX
    nats, targets = 0.0, []
    for batch in batches:
        predicted = model(torch.from_numpy(batch.inputs)).log_softmax(-1).detach().numpy()
        for sequence, position in zip(*np.nonzero(batch.targets != IGNORE_INDEX), strict=True):
            targets.append(batch.targets[sequence, position])
            nats -= predicted[sequence, position, targets[-1]]
    loss = measure_loss(model, batches, BYTES_PER_ID, torch.float32)
    assert len(targets) == 3 * 8 + 3 + 8
    assert loss.nats_per_token == pytest.approx(nats / len(targets), rel=1e-5)
    assert loss.bits_per_byte == pytest.approx(nats / math.log(2) / BYTES_PER_ID[targets].sum(), rel=1e-5)
    assert not model.training


def test_batches_without_a_target_are_a_mistake_of_the_caller() -> None:
    batch = counting_batch(0)
    batch.targets[:] = IGNORE_INDEX
    with pytest.raises(AssertionError, match="nothing was measured"):
        _ = measure_loss(GPT(SHAPE), [batch], BYTES_PER_ID, torch.float32).nats_per_token
