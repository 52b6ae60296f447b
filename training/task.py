"""What the training loop needs to know about a task; pretraining and tuning are two of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from config import Order, Stage
from formats.batches import Batch, BatchSeries
from model import GPT
from system.ranks import Ranks
from tokens.tokenizer import Tokenizer

START, RANDOM = "the first weights", "random"  # what a pretraining run began with; in must_match

Batches = Callable[[int], BatchSeries]  # the same sequences every time, in batches of the given size


@dataclass(frozen=True)
class TrainingTask:
    """A task for the training loop."""

    stage: Stage
    tokenizer: Tokenizer
    order: Order
    draw: Callable[[int, int], Batch]  # (first, count): sequences of an endless order, a function of its arguments alone
    validation: Batches
    sample: Callable[[GPT, int], str]  # text that the model writes at this step, for people to read; may be empty
    # Shares to report at a step, by name, from a model that computes so many sequences at once.
    figures: Callable[[GPT, int, int, Ranks], Mapping[str, float]] = lambda model, step, batch_size, ranks: {}
    question_weight: float = 0.0  # of the mean loss on the questions of a batch, beside the loss a token
    controls: Mapping[str, Batches] = field(default_factory=dict)  # other data to measure beside the validation loss, by name
    must_match: Mapping[str, Any] = field(default_factory=dict)  # settings that must match when resuming
    data: Mapping[str, Any] = field(default_factory=dict)  # the same of the data, which --new-data lets change
    data_fingerprint: str = ""
    given: Mapping[str, Any] = field(default_factory=dict)  # settings as they were given, where the run computed its own from them

    def has_new_data(self, earlier: Mapping[str, Any]) -> bool:
        """Whether a run with these settings was on other data, as far as it recorded them."""
        return any(earlier[name] != value for name, value in self.data.items() if name in earlier)
