"""The loss on questions: how surely a model tells the true instruction of a response from those of others.

An instruction's score is log P(instruction | response) - log P(instruction), as in the report card. Without the second term this loss
would make likely instructions too unlikely, against the loss of the instructions; with it, both are lowest where probabilities are right.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from config import IGNORE_INDEX
from formats.batches import Batch
from model import CHUNK_ROWS, CHUNK_ROWS_CPU, GPT
from system.device import autocast
from training.device_batch import batch_to_device
from training.questions import BRANCHES, positions_and_mask


class Answers(NamedTuple):
    """What a model says to questions (B)."""

    nats: Tensor  # -log of the share that the true instruction has in the softmax over the scores
    nats_without_response: Tensor  # -log P(true instruction)
    lead: Tensor  # the score of the true instruction, less the highest of the others; infinite if there is no other


def answer_questions(model: GPT, ids: Tensor, targets: Tensor, segment_ids: Tensor) -> Answers:
    """The answers of a model to the questions of a batch, with gradients if they are enabled."""
    positions, mask = positions_and_mask(segment_ids)
    states = model.hidden_states(ids, model.cos[positions].unsqueeze(1), model.sin[positions].unsqueeze(1), mask)
    each = _target_nats(model, states, targets)
    shape = len(ids), 2 * BRANCHES
    nats = each.new_zeros(shape).scatter_add(1, segment_ids.clamp(min=0), each).view(-1, 2, BRANCHES)[..., 1:]  # (B, 2, instructions)
    is_there = torch.zeros(shape, device=ids.device).scatter_add(1, segment_ids.clamp(min=0), (targets != IGNORE_INDEX).float()) > 0
    scores = (nats[:, 1] - nats[:, 0]).masked_fill(~is_there.view(-1, 2, BRANCHES)[:, 0, 1:], -torch.inf)  # (B, instructions)
    return Answers(-scores.log_softmax(1)[:, 0], nats[:, 1, 0], scores[:, 0] - scores[:, 1:].amax(1))


def _target_nats(model: GPT, states: Tensor, targets: Tensor) -> Tensor:
    """-log P of each target (B, T), 0 where there is none. Logits exist for a few sequences at a time, and again in the backward pass."""

    def nats(states: Tensor, targets: Tensor) -> Tensor:
        logits = model.logits(states).flatten(0, 1)
        return F.cross_entropy(logits, targets.flatten(), ignore_index=IGNORE_INDEX, reduction="none").view_as(targets)

    together = max(1, (CHUNK_ROWS_CPU if states.device.type == "cpu" else CHUNK_ROWS) // states.shape[1])
    parts = zip(torch.split(states, together), torch.split(targets, together), strict=True)
    return torch.cat([checkpoint(nats, *part, use_reentrant=False) for part in parts])


@torch.no_grad()
def share_of_right_answers(model: GPT, batches: Sequence[Batch], dtype: torch.dtype) -> float:
    """How often the true instruction has the highest score in the questions of these batches that have others."""
    device = model.embedding.weight.device
    model.eval()
    right, asked = 0.0, 0.0
    for batch in batches:
        with autocast(device, dtype):
            leads = answer_questions(model, *batch_to_device(batch, device)).lead
        right += (leads[leads.isfinite()] > 0).sum().item()
        asked += leads.isfinite().sum().item()
    return right / asked if asked else 0.0
