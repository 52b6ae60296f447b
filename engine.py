"""Token generation with a cache of keys and values: ids in, ids out."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from errors import first_line
from lighter import attention_dtype
from model import GPT, Store

Ending = Literal["stop", "tokens", "context"]  # a stop id came, the ids asked for are there, the context is full


@dataclass(frozen=True)
class Sampling:
    """How many ids are written, and how each is chosen from the model's distribution."""

    max_new_tokens: int
    temperature: float = 1.0  # 0 takes the likeliest
    top_k: int = 0  # only so many of the likeliest; 0: all
    top_p: float = 1.0  # only the likeliest that together have this probability; 1: all
    min_p: float = 0.0  # only those with at least this share of the likeliest one's probability; 0: all
    seed: int = 0  # a sample depends on it and on its own number, not on what is written beside it


class Request(NamedTuple):
    """A prompt to go on from."""

    prompt: list[int]
    samples: int = 1
    first: Tensor | None = None  # (V) which ids may come first
    key: int | None = None  # what its samples' chance depends on beside the seed; without one, its number among the requests


class Event(NamedTuple):
    """An id that was written, the end of a sample, or both."""

    request: int  # its number among the requests
    sample: int
    id: int | None  # None where a stop id came, or none was asked for
    logprob: float  # of the id or stop id at temperature 1, among all ids, or among those that may come first
    ending: Ending | None


@dataclass
class _Row:
    """A sample that is being written."""

    request: int
    sample: int
    length: int  # ids whose keys and values are kept
    generator: torch.Generator
    written: int = 0
    next_id: int = 0  # chosen, but not yet read


class Engine:
    """A model that writes up to `rows` samples at once."""

    def __init__(self, model: GPT, rows: int = 1, graphs: bool = False) -> None:
        self.model = model.eval()
        self.rows = rows
        self.notice = ""  # what did not work here and how it goes on
        self._device = model.cos.device
        self._graphs = graphs and self._device.type == "cuda"
        self._replay: _Graph | None = None
        config = model.config
        shape = (config.n_layer, 2, rows, config.n_head, config.block_size, config.head_size)
        if self._device.type == "cuda":
            self._memory = torch.zeros(shape, dtype=attention_dtype(model), device=self._device)
        else:
            # numpy's zeros take memory only where something is written, which is seldom the whole context.
            self._memory = torch.from_numpy(np.zeros(shape, np.float32)).to(self._device)

    @torch.inference_mode()
    def run(self, requests: Iterable[Request], sampling: Sampling, stop: frozenset[int]) -> Iterator[Event]:
        """Write every sample of every request to its end; a row that is free takes the next sample that waits.

        Samples of one prompt that begin together share the reading of it.
        """
        waiting = ((number, request, sample) for number, request in enumerate(requests) for sample in range(request.samples))
        held = next(waiting, None)
        active: list[_Row] = []  # each in the row of the memory that has its place here
        while held or active:
            place = 0  # of the first row that the logits are for
            if held and len(active) < self.rows:
                place, (number, request, _) = len(active), held
                while held and held[0] == number and len(active) < self.rows:
                    active.append(
                        _Row(
                            number,
                            held[2],
                            len(request.prompt),
                            _generator(sampling.seed, number if request.key is None else request.key, held[2]),
                        )
                    )
                    held = next(waiting, None)
                logits = self._read(request.prompt, place, len(active) - place)
                if request.first is not None:
                    logits = logits.masked_fill(~request.first, -torch.inf)
            else:
                logits = self._advance(active)
            events = self._choose(active[place:], logits, sampling, stop)
            for index in reversed(range(len(events))):
                if events[index].ending:
                    self._drop(active, place + index)
            yield from events

    def _read(self, prompt: list[int], row: int, copies: int) -> Tensor:
        """Read a prompt into a row of the memory and copies of it into the next; the logits of what follows (copies, V)."""
        length = len(prompt)
        assert 0 < length <= self.model.config.block_size, f"a prompt of {length} ids"

        def keep(layer: Tensor) -> Store:
            def store(key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
                layer[0, row : row + copies, :, :length] = key
                layer[1, row : row + copies, :, :length] = value
                return layer[0, row : row + 1, :, :length], layer[1, row : row + 1, :, :length]

            return store

        ids = torch.tensor([prompt], device=self._device)
        cos, sin = self.model.cos[:length], self.model.sin[:length]
        states = self.model.states(ids, cos, sin, None, [keep(layer) for layer in self._memory])
        return self.model.logits(states[:, -1]).cpu().expand(copies, -1)

    def _advance(self, active: list[_Row]) -> Tensor:
        """Read the id that was chosen last in each row; the logits of what follows (rows, V)."""
        ids = torch.tensor([[row.next_id] for row in active])
        positions = torch.tensor([row.length for row in active])
        for row in active:
            row.length += 1
        if self._graphs:
            try:
                self._replay = self._replay or _Graph(self.model, self._memory)
                return self._replay.logits(ids, positions)
            except RuntimeError as error:
                self.notice = f"CUDA graphs do not work here, going on without them: {first_line(error)}"
                self._graphs = False
        longest = int(positions.max()) + 1
        same = int(positions.min()) + 1 == longest
        return _step(self.model, self._memory, ids.to(self._device), positions.to(self._device), longest, same)[:, 0].cpu()

    def _choose(self, rows: list[_Row], logits: Tensor, sampling: Sampling, stop: frozenset[int]) -> list[Event]:
        """Choose the next id of each row, and say which rows are at their end."""
        uniform = torch.tensor([torch.rand((), generator=row.generator).item() for row in rows])
        chosen = choose(logits, sampling, uniform)
        logprobs = logits.log_softmax(-1).gather(1, chosen[:, None])[:, 0].tolist()
        events = []
        for row, id, logprob in zip(rows, chosen.tolist(), logprobs, strict=True):
            ending: Ending | None = None
            if sampling.max_new_tokens == 0 or row.length == self.model.config.block_size:
                ending = "tokens" if sampling.max_new_tokens == 0 else "context"
                events.append(Event(row.request, row.sample, None, 0.0, ending))
                continue
            row.next_id, row.written = id, row.written + 1
            if id in stop:
                events.append(Event(row.request, row.sample, None, logprob, "stop"))
                continue
            if row.written == sampling.max_new_tokens:
                ending = "tokens"
            elif row.length + 1 == self.model.config.block_size:
                ending = "context"
            events.append(Event(row.request, row.sample, id, logprob, ending))
        return events

    def _drop(self, active: list[_Row], index: int) -> None:
        """Give a row free: the last one moves to its place."""
        last = len(active) - 1
        if index != last:
            length = active[last].length
            self._memory[:, :, index, :, :length] = self._memory[:, :, last, :, :length]
            active[index] = active[last]
        active.pop()


class _Graph:
    """One step of all rows of a memory, recorded once and replayed: a small model is bound by the launching of kernels."""

    def __init__(self, model: GPT, memory: Tensor) -> None:
        rows, length = memory.shape[2], memory.shape[4]
        self._ids = torch.zeros(rows, 1, dtype=torch.long, device=memory.device)
        self._positions = torch.full((rows,), length - 1, dtype=torch.long, device=memory.device)
        # The rehearsals write to the last place of every row, which holds nothing: no id is read there, only foretold.
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch's gap
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                _step(model, memory, self._ids, self._positions, length, same=False)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._logits = _step(model, memory, self._ids, self._positions, length, same=False)

    def logits(self, ids: Tensor, positions: Tensor) -> Tensor:
        count = len(ids)
        self._ids[:count].copy_(ids)
        self._positions[:count].copy_(positions)
        self._positions[count:] = self._positions.new_tensor(0)  # rows that are free: what is written there is never read
        self._graph.replay()
        return self._logits[:count, 0].cpu()


def _step(model: GPT, memory: Tensor, ids: Tensor, positions: Tensor, longest: int, same: bool) -> Tensor:
    """The logits (B, 1, V) after one more id in each of the first B rows; `longest` ids of the memory can be in use."""
    count = len(ids)
    kept = memory[:, :, :count, :, :longest].flatten(0, 1).unbind()  # of each layer keys and values (B, H, S, D)
    mask = None
    if same:
        cos, sin = model.cos[longest - 1 : longest], model.sin[longest - 1 : longest]
        places = memory[:, :, :count, :, longest - 1 : longest].flatten(0, 1).unbind()  # (B, H, 1, D)
    else:
        cos, sin = (table[positions][:, None, None] for table in (model.cos, model.sin))  # (B, 1, 1, D/2)
        mask = (torch.arange(longest, device=ids.device) <= positions[:, None])[:, None, None]  # (B, 1, 1, S)
        rows = torch.arange(count, device=ids.device)

    def keep(layer: int) -> Store:
        def store(key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
            for number, new in ((2 * layer, key), (2 * layer + 1, value)):
                if same:
                    places[number].copy_(new)
                else:
                    kept[number][rows, :, positions] = new[:, :, 0].to(memory.dtype)
            return kept[2 * layer], kept[2 * layer + 1]

        return store

    return model.logits(model.states(ids, cos, sin, mask, [keep(layer) for layer in range(len(memory))]))


def choose(logits: Tensor, sampling: Sampling, uniform: Tensor) -> Tensor:
    """An id for each row of logits (B, V) on the CPU, by a number from 0 to 1 for each (B): a seed means the same on every device."""
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    # In float64, because a small temperature makes large numbers, and sums over thousands of ids are compared with `uniform`.
    scaled = logits.double()
    scaled = (scaled - scaled.amax(dim=-1, keepdim=True)) / sampling.temperature
    count = scaled.shape[-1]
    is_limited = sampling.top_p < 1 or 0 < sampling.top_k < count
    ids = None
    if is_limited:
        scaled, ids = scaled.topk(sampling.top_k if 0 < sampling.top_k < count else count, dim=-1)  # the likeliest first
    shares = scaled.softmax(dim=-1)
    keep = (shares > 0) & (shares >= sampling.min_p * shares.amax(dim=-1, keepdim=True))
    if sampling.top_p < 1:
        keep &= shares.cumsum(dim=-1) - shares < sampling.top_p
        keep[:, 0] = True
    sums = (shares * keep).cumsum(dim=-1)
    place = torch.searchsorted(sums, uniform.double()[:, None] * sums[:, -1:], right=True).clamp(max=scaled.shape[-1] - 1)
    place = torch.where(keep.gather(1, place), place, keep.long().argmax(dim=-1, keepdim=True))
    return (place if ids is None else ids.gather(1, place))[:, 0]


def _generator(seed: int, request: int, sample: int) -> torch.Generator:
    """A source of chance of its own for every sample."""
    state = np.random.SeedSequence([seed, request, sample]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))
