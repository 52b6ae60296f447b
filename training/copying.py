"""How well a model copies: its loss on random tokens, and on the same tokens when they come a second time.

Only the context can tell what comes in the second copy. A model finds it once it has learnt to look up what followed a token before
(induction heads), which is also how it takes rare words from a response into an instruction.
"""

import numpy as np
from numpy.typing import NDArray

from config import IGNORE_INDEX
from formats.batches import Batch, BatchSeries
from tokens.tokenizer import Tokenizer
from training.task import Batches

FIRST, SECOND = "random tokens", "random tokens again"
SEQUENCES = 8
SHORTEST_CONTEXT = 16


def copying_controls(tokenizer: Tokenizer, block_size: int, packed: bool) -> dict[str, Batches]:
    """Two controls on the same sequences, each with another distance between the copies; none if the context is too short.

    `packed`: as the batches of tuning are, so that a compiled model is compiled once.
    """
    if block_size < SHORTEST_CONTEXT:
        return {}
    source = np.random.default_rng(0)
    ordinary = np.flatnonzero(tokenizer.bytes_per_id)
    shape = SEQUENCES, block_size
    inputs = np.full(shape, tokenizer.end_of_text, np.int64)
    targets = {name: np.full(shape, IGNORE_INDEX, np.int64) for name in (FIRST, SECOND)}
    for place, length in enumerate(np.linspace(block_size // 8, block_size // 2, SEQUENCES).astype(int).tolist()):
        copied = source.choice(ordinary, length)
        inputs[place, : 2 * length] = np.concatenate([copied, copied])
        targets[FIRST][place, : length - 1] = copied[1:]
        targets[SECOND][place, length : 2 * length - 1] = copied[1:]  # nothing tells the first token of the second copy
    return {name: _batches(inputs, found, packed) for name, found in targets.items()}


def _batches(inputs: NDArray[np.int64], targets: NDArray[np.int64], packed: bool) -> Batches:
    def batches(batch_size: int) -> BatchSeries:
        def read(number: int) -> Batch:
            # Every batch has one shape, so that a compiled model is compiled once: the last repeats sequences, without targets.
            places = np.arange(number * batch_size, (number + 1) * batch_size)
            found = np.where(places[:, None] < SEQUENCES, targets[places % SEQUENCES], IGNORE_INDEX)
            return Batch(inputs[places % SEQUENCES], found, np.zeros((batch_size, inputs.shape[1]), np.int64) if packed else None)

        return BatchSeries(-(-SEQUENCES // batch_size), read)

    return batches
