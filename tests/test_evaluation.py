"""Loss and bits per byte against values computed by hand."""

import math

import numpy as np
import pytest
import torch

from config import IGNORE, ModelConfig
from evaluation import measure_loss
from model import GPT
from shards import Rows


class FixedGuess(GPT):
    """Gives id 1 a half and shares the other half among the seven others, whatever it reads."""

    def forward(self, ids: torch.Tensor, targets: torch.Tensor | None = None, examples: torch.Tensor | None = None) -> torch.Tensor:
        assert targets is not None
        nats = torch.where(targets == 1, math.log(2), math.log(14))
        return nats[targets != IGNORE].sum()


@pytest.fixture
def model() -> GPT:
    return FixedGuess(ModelConfig(n_layer=1, n_head=1, n_embed=8, block_size=4, vocab_size=8))


def test_loss_and_bits_per_byte_by_hand(model: GPT) -> None:
    rows = Rows(np.zeros((2, 4), np.int64), np.array([[1, 2, 1, IGNORE], [3, IGNORE, IGNORE, IGNORE]]))
    bytes_per_id = np.array([0, 3, 1, 2, 1, 1, 1, 1])
    loss = measure_loss(model, [rows], bytes_per_id, torch.float32)
    nats = 2 * math.log(2) + 2 * math.log(14)
    assert loss.nats_per_token == pytest.approx(nats / 4)
    assert loss.bits_per_byte == pytest.approx(nats / math.log(2) / (3 + 1 + 3 + 2))


def test_batches_add_up(model: GPT) -> None:
    generator = np.random.default_rng(0)
    targets = generator.integers(-1, 8, size=(9, 4))
    rows = Rows(np.zeros_like(targets), targets)
    bytes_per_id = np.arange(8)
    whole = measure_loss(model, [rows], bytes_per_id, torch.float32)
    parts = measure_loss(model, [rows[0:2], rows[2:3], rows[3:9]], bytes_per_id, torch.float32)
    assert parts == pytest.approx(whole)


def test_dropout_is_off_while_measuring() -> None:
    torch.manual_seed(0)
    model = GPT(ModelConfig(n_layer=1, n_head=1, n_embed=8, block_size=4, vocab_size=8, dropout=0.5)).train()
    torch.nn.init.normal_(model.blocks[0].mlp.down.weight)  # type: ignore[union-attr, arg-type]  # a block
    rows = Rows(np.ones((2, 4), np.int64), np.ones((2, 4), np.int64))
    assert len({measure_loss(model, [rows], np.ones(8, np.int64), torch.float32) for _ in range(3)}) == 1
