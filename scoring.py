"""Log-probabilities of given ids, many at once: rows packed with whole sequences, or many continuations of one prompt."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from errors import UserError
from lighter import attention_dtype
from model import GPT, Store, part_rows
from packing import pack
from shards import PADDING

FULL = 0.8  # of a row is used at least, where continuations are read side by side
SCORED_IDS = 2048  # read after a shared prompt at a time
LOGIT_IDS = 512  # turned into logits at a time: larger blocks of memory are taken anew each time, and cost more than their use


class Scorer:
    """A model that reads `rows` rows of its context length at once."""

    def __init__(self, model: GPT, rows: int) -> None:
        self.model = model.eval()
        self.rows = rows
        self._device = model.cos.device
        self._dtype = attention_dtype(model)

    @torch.inference_mode()
    def score(self, sequences: Sequence[tuple[list[int], list[int]]]) -> Iterator[NDArray[np.float64]]:
        """Log P of each id of a continuation after its prompt, for each of the (prompt, continuation); packed, and in the order given."""
        block_size = self.model.config.block_size
        rows = pack([len(prompt) + len(continuation) - 1 for prompt, continuation in sequences], block_size)
        found: dict[int, NDArray[np.float64]] = {}
        for start in range(0, len(rows), self.rows):
            batch = rows[start : start + self.rows]
            found |= self._score_rows([[(index, *sequences[index]) for index in row] for row in batch])
        return (found[index] for index in range(len(sequences)))

    def _score_rows(self, rows: list[list[tuple[int, list[int], list[int]]]]) -> dict[int, NDArray[np.float64]]:
        width = max(sum(len(prompt) + len(continuation) - 1 for _, prompt, continuation in row) for row in rows)
        ids, examples = np.zeros((len(rows), width), np.int64), np.full((len(rows), width), PADDING, np.int64)
        places: list[NDArray[np.int64]] = []  # of the states that foretell each continuation
        targets: list[list[int]] = []
        owners: list[int] = []
        for row, content in enumerate(rows):
            begin = 0
            for number, (index, prompt, continuation) in enumerate(content):
                end = begin + len(prompt) + len(continuation) - 1
                ids[row, begin:end] = [*prompt, *continuation[:-1]]
                examples[row, begin:end] = number
                places.append(row * width + np.arange(begin + len(prompt) - 1, end))
                targets.append(continuation)
                owners.append(index)
                begin = end
        positions, mask = part_rows(torch.from_numpy(examples).to(self._device))
        cos, sin = self.model.cos[positions].unsqueeze(1), self.model.sin[positions].unsqueeze(1)  # (B, 1, T, D/2)
        states = self.model.states(torch.from_numpy(ids).to(self._device), cos, sin, mask, [self._widen] * self.model.config.n_layer)
        chosen = states.flatten(0, 1)[torch.from_numpy(np.concatenate(places)).to(self._device)]  # (ids, C)
        return dict(zip(owners, self._logprobs(chosen, targets), strict=True))

    @torch.inference_mode()
    def score_after(self, prompt: list[int], continuations: Sequence[list[int]]) -> list[NDArray[np.float64]]:
        """Log P of each id of many continuations of one prompt, which is read only once."""
        length = len(prompt)
        kept: list[tuple[Tensor, Tensor]] = []  # of each layer, keys and values of the prompt (1, H, S, D)

        def keep(key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
            kept.append(self._widen(key, value))
            return kept[-1]

        ids = torch.tensor([prompt], device=self._device)
        layers = self.model.config.n_layer
        last = self.model.states(ids, self.model.cos[:length], self.model.sin[:length], None, [keep] * layers)[:, -1]  # (1, C)
        found: dict[int, NDArray[np.float64]] = {}
        by_length = sorted(range(len(continuations)), key=lambda index: len(continuations[index]))
        while by_length:
            width = len(continuations[by_length[-1]]) - 1  # the last id of a continuation is foretold and not read
            rows = min(SCORED_IDS // max(width, 1), self.rows * self.model.config.block_size // (length + width))
            batch = [index for index in by_length[-max(1, rows) :] if len(continuations[index]) > FULL * width]
            del by_length[-len(batch) :]
            targets = [continuations[index] for index in batch]
            states = last.expand(len(batch), 1, -1)  # of the prompt's last id, which foretells the first
            if width:
                states = torch.cat([states, self._read_on(targets, width, kept)], dim=1)  # (B, T, C)
            places = torch.cat([row * (width + 1) + torch.arange(len(target)) for row, target in enumerate(targets)])
            found |= zip(batch, self._logprobs(states.flatten(0, 1)[places.to(self._device)], targets), strict=True)
        return [found[index] for index in range(len(continuations))]

    def _read_on(self, continuations: list[list[int]], width: int, kept: list[tuple[Tensor, Tensor]]) -> Tensor:
        """The states (B, T, C) of continuations of one prompt, whose keys and values are kept, filled up to one width."""
        rows, length = len(continuations), kept[0][0].shape[2]
        ids = torch.tensor([(continuation + [0] * width)[:width] for continuation in continuations], device=self._device)
        mask = torch.ones(width, length + width, dtype=torch.bool, device=self._device).tril(length)  # (T, S + T)

        def join(layer: int) -> Store:
            def store(key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
                own = self._widen(key, value)
                joined = [
                    torch.cat([before.expand(rows, -1, -1, -1), after], dim=2) for before, after in zip(kept[layer], own, strict=True)
                ]
                return joined[0], joined[1]  # (B, H, S + T, D) each

            return store

        cos, sin = (table[length : length + width] for table in (self.model.cos, self.model.sin))
        return self.model.states(ids, cos, sin, mask, [join(layer) for layer in range(len(kept))])

    def _logprobs(self, states: Tensor, targets: Sequence[list[int]]) -> list[NDArray[np.float64]]:
        """Log P of each target's ids, foretold by the states (ids, C) one after the other."""
        wanted = torch.tensor([id for target in targets for id in target], device=self._device)
        parts = [
            self.model.logits(states[start : start + LOGIT_IDS]).log_softmax(-1).gather(1, wanted[start : start + LOGIT_IDS, None])
            for start in range(0, len(wanted), LOGIT_IDS)
        ]
        logprobs = torch.cat(parts)[:, 0].cpu().double().numpy()
        if not np.isfinite(logprobs).all():  # compared with anything, what is no number would pass for the best
            raise UserError("the model gives a probability that is no number: it is damaged, or too large for --dtype. Try --dtype float32")
        return np.split(logprobs, np.cumsum([len(target) for target in targets])[:-1])

    def _widen(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values in the type in which attention is fast here."""
        return key.to(self._dtype), value.to(self._dtype)
