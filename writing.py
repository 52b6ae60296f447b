"""What a model writes for a person: text in, text out, each turned round on its way."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import torch

from engine import Ending, Engine, Event, Request, Sampling
from errors import UserError
from layout import Layout
from pairs import clean
from text import Order, arrange
from tokenizer import Tokenizer

LEAST_ROOM = 32  # tokens to write in: a prompt that leaves fewer is cut


@dataclass
class Written:
    """A text that is being written, or is done."""

    ids: list[int] = field(default_factory=list)
    logprob: float = 0.0  # of all that was written, and of the mark that ended it
    tokens: int = 0  # that this is the sum of
    ending: Ending | None = None

    def add(self, event: Event) -> None:
        """Take up what happened."""
        if event.id is not None:
            self.ids.append(event.id)
        if event.id is not None or event.ending == "stop":
            self.logprob += event.logprob
            self.tokens += 1
        self.ending = event.ending

    @property
    def logprob_per_token(self) -> float:
        return self.logprob / max(self.tokens, 1)


class Form(Protocol):
    """How a model is asked, and how its answer is read."""

    @property
    def stop(self) -> frozenset[int]:
        """The ids that end what it writes."""

    def request(self, given: str, samples: int, max_new_tokens: int) -> tuple[Request, str]:
        """What the model is asked with, and a notice where that is less than was given."""

    def text(self, given: str, ids: list[int], raw: bool = False) -> str:
        """What a person reads; raw, in the order of the model."""


class Endings:
    """BackGPT: an ending is given, what led there is written. A model that writes forwards goes on from a beginning."""

    def __init__(self, tokenizer: Tokenizer, order: Order, block_size: int) -> None:
        self._tokenizer = tokenizer
        self._order = order
        self._block_size = block_size

    @property
    def stop(self) -> frozenset[int]:
        return frozenset([self._tokenizer.end_of_text])

    def request(self, given: str, samples: int, max_new_tokens: int) -> tuple[Request, str]:
        ids = self._tokenizer.encode(arrange(given, self._order))
        room = min(max_new_tokens, LEAST_ROOM, self._block_size // 2)
        notice = ""
        if 1 + len(ids) + room > self._block_size:
            kept = self._block_size // 2
            notice = f"{len(ids):,} tokens leave no room to write in the context of {self._block_size}: the model reads the {kept} nearest"
            ids = ids[-kept:]
        # The given words are whole: what comes first must not grow on to the outermost of them.
        return Request([self._tokenizer.end_of_text, *ids], samples, self._begins_word if given else None), notice

    def text(self, given: str, ids: list[int], raw: bool = False) -> str:
        read = arrange(given, self._order) + self._tokenizer.decode(ids)
        return read if raw else arrange(read, self._order)

    @cached_property
    def _begins_word(self) -> torch.Tensor:
        return torch.from_numpy(self._tokenizer.begins_word)


class Responses:
    """BackChat: a response is given, the instruction that could have led to it is written."""

    def __init__(self, layout: Layout, block_size: int) -> None:
        self._layout = layout
        self._block_size = block_size

    @property
    def stop(self) -> frozenset[int]:
        return self._layout.stop

    def request(self, given: str, samples: int, max_new_tokens: int) -> tuple[Request, str]:
        response = clean(given)
        if not response:
            raise UserError("an empty response: there is nothing to find the instruction of")
        ids, kept = self._layout.fit(response, self._block_size - self._layout.frame - min(max_new_tokens, self._block_size // 4))
        notice = f"the response is too long for the context: the model reads its first {len(kept):,} characters" if kept != response else ""
        return Request(self._layout.prompt(ids), samples), notice

    def text(self, given: str, ids: list[int], raw: bool = False) -> str:
        text = self._layout.tokenizer.decode(ids)
        return text if raw else arrange(text, self._layout.order)


def write(engine: Engine, form: Form, given: Iterable[str], sampling: Sampling) -> Iterator[tuple[str, Written]]:
    """One text for each that is given, in the order given, as a person reads it."""
    texts: list[str] = []

    def requests() -> Iterator[Request]:
        for text in given:
            texts.append(text)
            yield form.request(text, 1, sampling.max_new_tokens)[0]

    unfinished: dict[int, Written] = {}
    done = 0
    for event in engine.run(requests(), sampling, form.stop):
        unfinished.setdefault(event.request, Written()).add(event)
        while done in unfinished and unfinished[done].ending:
            written = unfinished.pop(done)
            yield form.text(texts[done], written.ids), written
            done += 1
