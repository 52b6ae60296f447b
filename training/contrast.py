"""The loss on questions: how surely a model tells the true instruction of a response from those of others.

An instruction's score is log P(instruction | response) - log P(instruction), as in the report card. Without the second term the model
would learn to prefer instructions that are likely anyway; with it, the loss is lowest for a model whose probabilities are right.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from config import IGNORE_INDEX
from formats.batches import Batch
from model import GPT
from system.device import autocast
from training.device_batch import batch_to_device
from training.questions import BRANCHES, positions_and_mask


class Answers(NamedTuple):
    """What a model says to questions (B)."""

    nats: Tensor  # -log of the share that the true instruction has in the softmax over the scores
    nats_without_response: Tensor  # -log P(true instruction)
    is_first: Tensor  # whether the true instruction has the highest score


def answer_questions(model: GPT, ids: Tensor, targets: Tensor, segment_ids: Tensor) -> Answers:
    """The answers of a model to the questions of a batch, with gradients if they are enabled."""
    positions, mask = positions_and_mask(segment_ids)
    states = model.hidden_states(ids, model.cos[positions].unsqueeze(1), model.sin[positions].unsqueeze(1), mask)
    logits = model.logits(states)  # (B, T, V)
    each = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE_INDEX, reduction="none").view_as(targets)
    shape = len(ids), 2 * BRANCHES
    nats = each.new_zeros(shape).scatter_add(1, segment_ids.clamp(min=0), each).view(-1, 2, BRANCHES)[..., 1:]  # (B, 2, instructions)
    is_there = torch.zeros(shape, device=ids.device).scatter_add(1, segment_ids.clamp(min=0), (targets != IGNORE_INDEX).float()) > 0
    scores = (nats[:, 1] - nats[:, 0]).masked_fill(~is_there.view(-1, 2, BRANCHES)[:, 0, 1:], -torch.inf)  # (B, instructions)
    others = scores[:, 1:].amax(1)
    return Answers(-scores.log_softmax(1)[:, 0], nats[:, 1, 0], scores[:, 0] > others)


@torch.no_grad()
def share_of_right_answers(model: GPT, batches: Sequence[Batch], dtype: torch.dtype) -> float:
    """How often the true instruction has the highest score in the questions of these batches."""
    device = model.embedding.weight.device
    model.eval()
    right, asked = 0, 0
    for batch in batches:
        with autocast(device, dtype):
            right += int(answer_questions(model, *batch_to_device(batch, device)).is_first.sum().item())
        asked += len(batch.inputs)
    return right / asked
