"""The KV cache: keys and values of the sequences in a batch, and the prefill and decode passes that fill it."""

import math
import mmap

import torch
from torch import Tensor

from model import GPT, CacheUpdate
from sampling.inference_weights import attention_dtype
from system.device import send
from system.errors import first_line


class KVCache:
    """Keys and values of up to `max_sequences` sequences, in slots of the context length. The slots in use are always the first ones.

    Its methods run the model, so call them in inference mode.
    """

    def __init__(self, model: GPT, max_sequences: int, graphs: bool = False) -> None:
        self.lengths: list[int] = []  # of each slot in use, the ids whose keys and values are cached
        self.warning = ""  # what did not work, and how the cache continues
        self._model = model
        self._device = model.cos.device
        self._use_graph = graphs and self._device.type == "cuda"
        self._graph: _DecodeGraph | None = None
        config = model.config
        shape = (config.n_layer, 2, max_sequences, config.kv_heads, config.block_size, config.head_size)
        if self._device.type == "cpu":
            # Mapped zeros use memory only where something is written, and few sequences fill the context. (numpy's zeros ask for
            # pages of 2 MB, of which a short text in each slot touches them all.)
            try:
                zeros = mmap.mmap(-1, 4 * math.prod(shape), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            except (OSError, OverflowError) as error:
                raise MemoryError(f"no memory for the keys and values of {max_sequences} sequences") from error
            self._cache = torch.frombuffer(zeros, dtype=torch.float32).view(shape)
        else:
            self._cache = torch.zeros(shape, dtype=attention_dtype(model), device=self._device)

    def clear(self) -> None:
        """Free all slots."""
        self.lengths = []

    def prefill(self, prompt: list[int], copies: int = 1) -> Tensor:
        """Read a prompt once and cache it in the next `copies` slots; the logits of its next token, for each copy (copies, V).

        They are on the device, as those of decode.
        """
        length, slot = len(prompt), len(self.lengths)
        assert 0 < length <= self._model.config.block_size, f"a prompt of {length} ids"

        def update(layer: Tensor) -> CacheUpdate:
            def store(key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
                layer[0, slot : slot + copies, :, :length] = key
                layer[1, slot : slot + copies, :, :length] = value
                return layer[0, slot : slot + 1, :, :length], layer[1, slot : slot + 1, :, :length]

            return store

        ids = torch.tensor([prompt], device=self._device)
        cos, sin = self._model.cos[:length], self._model.sin[:length]
        states = self._model.hidden_states(ids, cos, sin, None, [update(layer) for layer in self._cache])
        self.lengths += [length] * copies
        return self._model.logits(states[:, -1]).expand(copies, -1)

    def decode(self, next_ids: list[int]) -> Tensor:
        """Read one more id in each slot in use; the logits of the token after it (B, V), valid until the next call."""
        longest = max(self.lengths) + 1
        same = min(self.lengths) + 1 == longest
        ids, positions = send(torch.tensor([next_ids, self.lengths]), self._device)
        self.lengths = [length + 1 for length in self.lengths]
        if self._use_graph:
            try:
                self._graph = self._graph or _DecodeGraph(self._model, self._cache)
                return self._graph.logits(ids, positions)
            except RuntimeError as error:
                self.warning = f"CUDA graphs do not work here, continuing without them: {first_line(error)}"
                self._use_graph = False
        return _decode(self._model, self._cache, ids, positions, longest, same)

    def free(self, slot: int) -> None:
        """Free a slot by moving the last sequence into it."""
        length = self.lengths.pop()
        last = len(self.lengths)
        if slot != last:
            self._cache[:, :, slot, :, :length] = self._cache[:, :, last, :, :length]
            self.lengths[slot] = length


class _DecodeGraph:
    """A decode pass over all slots, recorded once and replayed: launching the kernels of a small model costs more than running them."""

    def __init__(self, model: GPT, cache: Tensor) -> None:
        slots, block_size = cache.shape[2], cache.shape[4]
        self._ids = torch.zeros(slots, dtype=torch.long, device=cache.device)
        self._positions = torch.full((slots,), block_size - 1, dtype=torch.long, device=cache.device)
        # The warm-up passes write at the last position of every slot, which is never in use: its id is predicted and not read.
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch's gap
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                _decode(model, cache, self._ids, self._positions, block_size, same=False)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._logits = _decode(model, cache, self._ids, self._positions, block_size, same=False)

    def logits(self, ids: Tensor, positions: Tensor) -> Tensor:
        count = len(ids)
        self._ids[:count].copy_(ids)
        self._positions[:count].copy_(positions)
        self._positions[count:].zero_()  # free slots: what is written there is never read
        self._graph.replay()
        return self._logits[:count]


def _decode(model: GPT, cache: Tensor, ids: Tensor, positions: Tensor, longest: int, same: bool) -> Tensor:
    """The logits (B, V) after one more id in each of the first B slots.

    `longest` is the length of the longest sequence with its new id; `same` says that all have this length.
    """
    count = len(ids)
    cached = cache[:, :, :count, :, :longest].flatten(0, 1).unbind()  # keys and values of each layer (B, K, S, D)
    mask = None
    if same:
        cos, sin = model.cos[longest - 1 : longest], model.sin[longest - 1 : longest]
        targets = cache[:, :, :count, :, longest - 1 : longest].flatten(0, 1).unbind()  # (B, K, 1, D)
    else:
        cos, sin = (table[positions][:, None, None] for table in (model.cos, model.sin))  # (B, 1, 1, D)
        mask = (torch.arange(longest, device=ids.device) <= positions[:, None])[:, None, None]  # (B, 1, 1, S)
        slots = torch.arange(count, device=ids.device)

    def update(layer: int) -> CacheUpdate:
        def store(key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
            for index, new in ((2 * layer, key), (2 * layer + 1, value)):
                if same:
                    targets[index].copy_(new)
                else:
                    cached[index][slots, :, positions] = new[:, :, 0].to(cache.dtype)
            return cached[2 * layer], cached[2 * layer + 1]

        return store

    states = model.hidden_states(ids[:, None], cos, sin, mask, [update(layer) for layer in range(len(cache))])  # (B, 1, C)
    return model.logits(states[:, 0])
