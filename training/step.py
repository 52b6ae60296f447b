"""One optimizer step: gradients over micro-batches as large as memory allows, clipped, then applied."""

import contextlib
import math
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch

from config import IGNORE_INDEX, LoopConfig
from formats.batches import Batch
from model import GPT
from system.device import autocast
from system.errors import UserError
from system.ranks import ALONE, Ranks
from training.contrast import answer_questions
from training.device_batch import batch_to_device
from training.optimizer import make_optimizer
from training.schedule import learning_rate
from training.sharding import expect_gradients, is_sharded, whole

T = TypeVar("T")


# On a CPU an activation of this many numbers, 4 MB, stays in the cache: steps are a tenth faster than with twice as many (measured).
CPU_ACTIVATION = 1 << 20


class StepResult(NamedTuple):
    """What one step measured."""

    number: int  # from 1
    loss: float
    lr: float
    grad_norm: float
    is_finite: bool  # False: the run is lost


class _UnreadStep(NamedTuple):
    """A step whose measurements are on the device, perhaps not computed yet."""

    number: int
    lr: float
    measured: torch.Tensor  # (2) loss, gradient norm
    skipped: bool  # an infinite gradient, ordinary with a scaler


def first_micro_batch(config: LoopConfig, model: GPT, device: torch.device) -> int:
    """Sequences per forward pass: on a CPU as many as keep an activation in the cache, in parts of the batch as equal as can be."""
    activation = config.batch_size * model.config.block_size * model.config.n_embed
    parts = min(math.ceil(activation / CPU_ACTIVATION), config.batch_size) if device.type == "cpu" else 1
    return math.ceil(config.batch_size / parts)


class Stepper:
    """The model and its optimizer."""

    def __init__(
        self,
        config: LoopConfig,
        model: GPT,
        device: torch.device,
        dtype: torch.dtype,
        say: Callable[[str], None],
        ranks: Ranks = ALONE,
        question_weight: float = 0.0,
    ) -> None:
        self.config = config
        self.model = model
        self.device = device
        self.dtype = dtype
        self.ranks = ranks
        self.optimizer = make_optimizer(model, config, device.type, ranks, dtype)
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
        self.micro_batch = first_micro_batch(config, model, device)  # sequences per forward pass; halved when memory runs out
        self._question_weight = question_weight
        self._say = say
        self._unread: list[_UnreadStep] = []

    def step(self, batch: Batch, number: int) -> None:
        """Start step `number` of the schedule on this process's part of a batch, in as many micro-batches as it takes.

        `read` tells what it measured.
        """
        lr = learning_rate(self.config, number)
        [targets] = self.ranks.total((batch.targets != IGNORE_INDEX).sum().item())
        loss = self.within_memory(lambda: self.accumulate_gradients(batch, targets))
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        self.ranks.add_up([loss] if is_sharded(self.model) else [*gradients, loss])
        self.optimizer.set_learning_rate(lr)
        for optimizer in self.optimizer.optimizers:
            self.scaler.unscale_(optimizer)
        norm = whole(torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip or math.inf))
        # With a scaler an infinite gradient is ordinary: the step is skipped and the scale lowered, unless it is at its lowest.
        # So in float16, and only there, each step waits for its gradient norm.
        skipped = self.scaler.is_enabled() and not math.isfinite(norm.item())
        if not skipped:
            self.optimizer.step()
        is_ordinary = skipped and self.scaler.get_scale() >= 1
        self.scaler.update()
        self.optimizer.zero_grad()
        self._unread.append(_UnreadStep(number + 1, lr, torch.stack((loss, norm)), is_ordinary))

    def read(self) -> list[StepResult]:
        """The steps since the last call. This waits for the device: a run reads on log lines and before evaluations only."""
        unread, self._unread = self._unread, []
        measured = torch.stack([step.measured for step in unread]).tolist() if unread else []
        return [
            StepResult(step.number, loss, step.lr, norm, math.isfinite(loss) and (math.isfinite(norm) or step.skipped))
            for step, (loss, norm) in zip(unread, measured, strict=True)
        ]

    def accumulate_gradients(self, batch: Batch, targets: float) -> torch.Tensor:
        """What the batch adds to the gradients of the mean loss over this many targets; returns what it adds to that loss."""
        self.model.train()
        self.optimizer.zero_grad()
        total = torch.zeros((), device=self.device)
        for start in range(0, len(batch.inputs), self.micro_batch):
            part = batch[start : start + self.micro_batch]
            expect_gradients(self.model, complete=start + self.micro_batch >= len(batch.inputs))
            with autocast(self.device, self.dtype):
                loss = self.model(*batch_to_device(part, self.device)) / targets
            self.scaler.scale(loss).backward()
            total += loss.detach()
            if part.questions:
                with autocast(self.device, self.dtype):
                    answers = answer_questions(self.model, *batch_to_device(part.questions, self.device))
                    per_question = self._question_weight / self.config.sequences_per_step
                    loss = answers.nats_without_response.sum() / targets + answers.nats.sum() * per_question
                self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch's gap
        return total

    def within_memory(self, compute: Callable[[], T]) -> T:
        """The result of `compute`, with the micro-batch halved until it fits; the batch of a step stays the same."""
        while True:
            result = None
            with contextlib.suppress(torch.OutOfMemoryError):  # what the failed attempt holds is only freed outside this block
                result = compute()
            if not self.ranks.largest(result is None):  # if one of the ranks has too little memory, all start again
                assert result is not None
                return result
            if is_sharded(self.model):
                raise UserError(f"a micro-batch of {self.micro_batch} does not fit in the memory of one GPU. Try a --batch-size below that")
            if self.micro_batch == 1:
                raise UserError(
                    f"one sequence of {self.model.config.block_size} tokens does not fit in the memory of the {self.device.type} device. "
                    f"Try --checkpoint-activations. If it is already on, use a model with a shorter context or a smaller shape"
                )
            self.micro_batch = math.ceil(self.micro_batch / 2)
            self.optimizer.zero_grad()
            torch.cuda.empty_cache()
            torch.compiler.reset()  # or the new shape would be compiled with dynamic sizes, which is slower
            parts = math.ceil(self.ranks.share(self.config.sequences_per_step) / self.micro_batch)
            self._say(f"out of memory: micro-batch size reduced to {self.micro_batch} ({parts} per step)")
