"""Continuous batching: requests in, token events out. The engine decides which sample runs in which slot, and chooses the ids."""

import math
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from model import GPT
from sampling.kv_cache import KVCache
from sampling.sampler import NOT_FINITE, SamplingParams, choose_tokens, sample_generator
from system.device import explain_out_of_memory, send
from system.errors import UserError

FinishReason = Literal["stop", "tokens", "context"]  # stop token, max_new_tokens reached, context full


class Request(NamedTuple):
    """A prompt, and how many samples to generate from it."""

    prompt: list[int]
    samples: int = 1
    first_token_mask: Tensor | None = None  # (V) the ids allowed as the first generated token
    seed_key: int | None = None  # its samples depend on the seed and this; default: its index among the requests


class TokenEvent(NamedTuple):
    """A generated token, the end of a sample, or both."""

    request: int  # its index among the requests
    sample: int
    id: int | None  # None for a stop token, or where no token was asked for or fits
    logprob: float  # of the token at temperature 1, among all ids or those that the mask allows
    finish_reason: FinishReason | None


@dataclass
class _Sequence:
    """A sample that is being generated."""

    request: int
    sample: int
    generator: torch.Generator
    generated: int = 0
    next_id: int = 0  # chosen, and not yet in the cache


class Engine:
    """A model that generates up to `max_sequences` samples at once."""

    def __init__(self, model: GPT, max_sequences: int = 1, graphs: bool = False) -> None:
        self.model = model.eval()
        self.max_sequences = max_sequences
        with self._explain_out_of_memory():
            self._cache = KVCache(model, max_sequences, graphs)

    def pop_warning(self) -> str:
        """What did not work since the last call, and how the engine continued; empty if all worked."""
        warning, self._cache.warning = self._cache.warning, ""
        return warning

    @torch.inference_mode()
    def run(self, requests: Iterable[Request], params: SamplingParams, stop_ids: frozenset[int]) -> Iterator[TokenEvent]:
        """Generate every sample of every request. When one is finished, the next one takes its place in the batch.

        Samples of one prompt that start together share its prefill.
        """
        with self._explain_out_of_memory():
            yield from self._run(requests, params, stop_ids)

    def _explain_out_of_memory(self) -> AbstractContextManager[None]:
        return explain_out_of_memory(f"{self.max_sequences} texts at once may be too many: try a lower --batch-size")

    def _run(self, requests: Iterable[Request], params: SamplingParams, stop_ids: frozenset[int]) -> Iterator[TokenEvent]:
        self._cache.clear()
        waiting = ((index, request, sample) for index, request in enumerate(requests) for sample in range(request.samples))
        upcoming = next(waiting, None)
        active: list[_Sequence] = []  # in the order of their slots in the cache
        while upcoming or active:
            first_slot = 0  # of those that the logits are for
            if upcoming and len(active) < self.max_sequences:
                first_slot, (index, request, _) = len(active), upcoming
                key = index if request.seed_key is None else request.seed_key
                while upcoming and upcoming[0] == index and len(active) < self.max_sequences:
                    active.append(_Sequence(index, upcoming[2], sample_generator(params.seed, key, upcoming[2])))
                    upcoming = next(waiting, None)
                logits = self._cache.prefill(request.prompt, copies=len(active) - first_slot)
                if request.first_token_mask is not None:
                    logits = logits.masked_fill(~send(request.first_token_mask, logits.device), -torch.inf)
            else:
                logits = self._cache.decode([sequence.next_id for sequence in active])
            events = self._choose(active, first_slot, logits, params, stop_ids)
            for slot in reversed(range(first_slot, len(active))):
                if events[slot - first_slot].finish_reason:
                    self._cache.free(slot)
                    active[slot] = active[-1]
                    active.pop()
            yield from events

    def _choose(
        self, active: list[_Sequence], first_slot: int, logits: Tensor, params: SamplingParams, stop_ids: frozenset[int]
    ) -> list[TokenEvent]:
        """Choose the next id of each sequence from `first_slot` on, and tell which ones are finished."""
        logits = logits if logits.is_cuda else logits.cpu()  # MPS has no float64
        sequences, lengths = active[first_slot:], self._cache.lengths[first_slot:]
        uniform = torch.stack([torch.rand((), generator=sequence.generator) for sequence in sequences])
        chosen = choose_tokens(logits, params, send(uniform, logits.device))
        chosen_logprobs = logits.log_softmax(-1).gather(1, chosen[:, None])[:, 0]
        ids, logprobs = torch.stack((chosen.double(), chosen_logprobs.double())).tolist()  # one wait for the device
        if not all(map(math.isfinite, logprobs)):  # one logit that is not finite makes them all so
            raise UserError(NOT_FINITE)
        events = []
        for sequence, length, id, logprob in zip(sequences, lengths, map(int, ids), logprobs, strict=True):
            finish_reason: FinishReason | None = None
            if params.max_new_tokens == 0 or length == self.model.config.block_size:
                finish_reason = "tokens" if params.max_new_tokens == 0 else "context"
                events.append(TokenEvent(sequence.request, sequence.sample, None, 0.0, finish_reason))
                continue
            sequence.next_id, sequence.generated = id, sequence.generated + 1
            if id in stop_ids:
                events.append(TokenEvent(sequence.request, sequence.sample, None, logprob, "stop"))
                continue
            if sequence.generated == params.max_new_tokens:
                finish_reason = "tokens"
            elif length + 1 == self.model.config.block_size:
                finish_reason = "context"
            events.append(TokenEvent(sequence.request, sequence.sample, id, logprob, finish_reason))
        return events
