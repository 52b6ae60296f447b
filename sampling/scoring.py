"""Log-probabilities of given ids in batches: sequences of any prompts packed together, or many continuations of one prompt."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from formats.batches import PADDING
from formats.packing import pack
from model import GPT, CacheUpdate, segment_positions_and_mask
from sampling.inference_weights import attention_dtype
from sampling.sampler import NOT_FINITE
from system.errors import UserError

MIN_FILLED = 0.8  # of each sequence in a batch of continuations; the rest is padding
BATCH_TOKENS = 2048  # in a batch of continuations of one prompt
LOGITS_TOKENS = 512  # that logits are computed of at a time: malloc does not reuse larger blocks of memory, and that costs more


class Scorer:
    """A model that scores `batch_size` sequences of its context length at once."""

    def __init__(self, model: GPT, batch_size: int) -> None:
        self.model = model.eval()
        self.batch_size = batch_size
        self._device = model.cos.device
        self._dtype = attention_dtype(model)

    @torch.inference_mode()
    def score(self, sequences: Sequence[tuple[list[int], list[int]]]) -> Iterator[NDArray[np.float64]]:
        """Log P of the ids of each continuation after its prompt, in the given order. Several pairs are packed into one sequence."""
        block_size = self.model.config.block_size
        packed = pack([len(prompt) + len(continuation) - 1 for prompt, continuation in sequences], block_size)
        found: dict[int, NDArray[np.float64]] = {}
        for start in range(0, len(packed), self.batch_size):
            batch = packed[start : start + self.batch_size]
            found |= self._score_packed([[(index, *sequences[index]) for index in segments] for segments in batch])
        return (found[index] for index in range(len(sequences)))

    def _score_packed(self, batch: list[list[tuple[int, list[int], list[int]]]]) -> dict[int, NDArray[np.float64]]:
        """The scores by index; each sequence of the batch is a list of (index, prompt, continuation)."""
        width = max(sum(len(prompt) + len(continuation) - 1 for _, prompt, continuation in segments) for segments in batch)
        ids, segment_ids = np.zeros((len(batch), width), np.int64), np.full((len(batch), width), PADDING, np.int64)
        predicting: list[NDArray[np.int64]] = []  # positions in the flattened batch of the states that predict each continuation
        targets: list[list[int]] = []
        indices: list[int] = []
        for number, segments in enumerate(batch):
            start = 0
            for segment, (index, prompt, continuation) in enumerate(segments):
                end = start + len(prompt) + len(continuation) - 1
                ids[number, start:end] = [*prompt, *continuation[:-1]]
                segment_ids[number, start:end] = segment
                predicting.append(number * width + np.arange(start + len(prompt) - 1, end))
                targets.append(continuation)
                indices.append(index)
                start = end
        positions, mask = segment_positions_and_mask(torch.from_numpy(segment_ids).to(self._device))
        cos, sin = self.model.cos[positions].unsqueeze(1), self.model.sin[positions].unsqueeze(1)  # (B, 1, T, D)
        states = self.model.hidden_states(torch.from_numpy(ids).to(self._device), cos, sin, mask, [self._widen] * self.model.config.n_layer)
        states = states.flatten(0, 1)[torch.from_numpy(np.concatenate(predicting)).to(self._device)]  # (N, C)
        return dict(zip(indices, self._logprobs(states, targets), strict=True))

    @torch.inference_mode()
    def score_after(self, prompt: list[int], continuations: Sequence[list[int]]) -> list[NDArray[np.float64]]:
        """Log P of each id of many continuations of one prompt. The prompt is read only once."""
        length = len(prompt)
        cached: list[tuple[Tensor, Tensor]] = []  # keys and values of the prompt, for each layer (1, H, S, D)

        def store(key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
            cached.append(self._widen(key, value))
            return cached[-1]

        ids = torch.tensor([prompt], device=self._device)
        layers = self.model.config.n_layer
        last = self.model.hidden_states(ids, self.model.cos[:length], self.model.sin[:length], None, [store] * layers)[:, -1]  # (1, C)
        found: dict[int, NDArray[np.float64]] = {}
        by_length = sorted(range(len(continuations)), key=lambda index: len(continuations[index]))
        while by_length:
            width = len(continuations[by_length[-1]]) - 1  # the last id of a continuation is predicted and not read
            count = min(BATCH_TOKENS // max(width, 1), self.batch_size * self.model.config.block_size // (length + width))
            batch = [index for index in by_length[-max(1, count) :] if len(continuations[index]) > MIN_FILLED * width]
            del by_length[-len(batch) :]
            targets = [continuations[index] for index in batch]
            states = last.expand(len(batch), 1, -1)  # the hidden state that predicts the first token
            if width:
                states = torch.cat([states, self._extend(targets, width, cached)], dim=1)  # (B, T, C)
            predicting = torch.cat([number * (width + 1) + torch.arange(len(target)) for number, target in enumerate(targets)])
            found |= zip(batch, self._logprobs(states.flatten(0, 1)[predicting.to(self._device)], targets), strict=True)
        return [found[index] for index in range(len(continuations))]

    def _extend(self, continuations: list[list[int]], width: int, cached: list[tuple[Tensor, Tensor]]) -> Tensor:
        """The hidden states (B, T, C) of continuations, padded to one width, after the prompt whose keys and values are cached."""
        count, length = len(continuations), cached[0][0].shape[2]
        ids = torch.tensor([(continuation + [0] * width)[:width] for continuation in continuations], device=self._device)
        mask = torch.ones(width, length + width, dtype=torch.bool, device=self._device).tril(length)  # (T, S + T)

        def update(layer: int) -> CacheUpdate:
            def store(key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
                new = self._widen(key, value)
                joined = [
                    torch.cat([before.expand(count, -1, -1, -1), after], dim=2) for before, after in zip(cached[layer], new, strict=True)
                ]
                return joined[0], joined[1]  # (B, H, S + T, D) each

            return store

        cos, sin = (table[length : length + width] for table in (self.model.cos, self.model.sin))
        return self.model.hidden_states(ids, cos, sin, mask, [update(layer) for layer in range(len(cached))])

    def _logprobs(self, states: Tensor, targets: Sequence[list[int]]) -> list[NDArray[np.float64]]:
        """Log P of the ids of each target. The hidden states (N, C) predict all targets, one after the other."""
        target_ids = torch.tensor([id for target in targets for id in target], device=self._device)
        parts = [
            self.model.logits(states[start : start + LOGITS_TOKENS])
            .log_softmax(-1)
            .gather(1, target_ids[start : start + LOGITS_TOKENS, None])
            for start in range(0, len(target_ids), LOGITS_TOKENS)
        ]
        logprobs = torch.cat(parts)[:, 0].cpu().double().numpy()
        if not np.isfinite(logprobs).all():  # in a comparison, NaN would count as the best
            raise UserError(NOT_FINITE)
        return np.split(logprobs, np.cumsum([len(target) for target in targets])[:-1])

    def _widen(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values in the number type in which attention is fast on this device."""
        return key.to(self._dtype), value.to(self._dtype)
