"""Text in, text out: prompts for the model from what a person gives, and generated text in the order of a reader."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from config import Order
from formats.checkpoint import Checkpoint
from formats.pairs import GENERATED, clean_text
from sampling.engine import Engine, FinishReason, Request, TokenEvent
from sampling.sampler import SamplingParams
from system.errors import UserError
from tokens.prompt_format import PromptFormat
from tokens.reversal import reorder
from tokens.tokenizer import Tokenizer

MAX_PROMPT = 1 << 20  # characters; all of them are encoded and shown, and the model reads only the nearest few thousand
MIN_NEW_TOKENS = 32  # tokens: a prompt that leaves room for fewer is cut


@dataclass
class GeneratedText:
    """A generated text, finished or not."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)  # of the generated tokens and the stop token
    logprob: float = 0.0  # their sum
    tokens: int = 0  # in this sum
    finish_reason: FinishReason | None = None

    def add(self, event: TokenEvent) -> None:
        """Record an event of this text."""
        if event.id is not None:
            self.ids.append(event.id)
        if event.id is not None or event.finish_reason == "stop":
            self.logprobs.append(event.logprob)
            self.logprob += event.logprob
            self.tokens += 1
        self.finish_reason = event.finish_reason

    @property
    def logprob_per_token(self) -> float:
        """The score by which candidates are sorted."""
        return self.logprob / max(self.tokens, 1)


class Prompter(Protocol):
    """How a given text becomes a prompt, and generated ids become a text."""

    given_label: str  # what a person gives
    generated_label: str  # what the model generates
    given_field: str  # their names in a row of results
    generated_field: str

    @property
    def stop_ids(self) -> frozenset[int]:
        """The ids that end a generated text."""

    @property
    def most_tokens(self) -> int | None:
        """How many tokens a text can have; None if it can go on past the context."""

    def request(self, given: str, samples: int, max_new_tokens: int) -> tuple[Request, str]:
        """The request for a given text, and a notice if the text had to be cut; an empty one if not."""

    def crop(self, ids: list[int]) -> list[int]:
        """The prompt with which a text goes on whose ids fill the context; an empty one if it ends there."""

    def text(self, given: str, ids: list[int], raw: bool = False) -> str:
        """The text in the order of a reader, or if `raw` in the order of the model."""


class EndingPrompter:
    """BackGPT: an ending is given, and the model generates what leads to it. A forward model continues a beginning instead."""

    given_label, generated_label = "Prompt", "Output"
    given_field, generated_field = "prompt", "generated_text"

    def __init__(self, tokenizer: Tokenizer, order: Order, block_size: int) -> None:
        self._tokenizer = tokenizer
        self._order = order
        self._block_size = block_size

    @property
    def stop_ids(self) -> frozenset[int]:
        return frozenset([self._tokenizer.end_of_text])

    @property
    def most_tokens(self) -> int | None:
        return None

    def request(self, given: str, samples: int, max_new_tokens: int) -> tuple[Request, str]:
        if len(given) > MAX_PROMPT:
            raise UserError(
                f"a prompt of {len(given):,} characters, at most {MAX_PROMPT:,} are possible. Give the part nearest to the new text"
            )
        ids = self._tokenizer.encode(reorder(given, self._order))
        room = min(max_new_tokens, MIN_NEW_TOKENS, self._block_size // 2)
        notice = ""
        prompt = [self._tokenizer.end_of_text, *ids]
        if len(prompt) + room > self._block_size:
            kept = self._block_size // 2
            left = f"{max(self._block_size - len(prompt), 0)} in the context of {self._block_size}, and {room} are needed"
            notice = f"{len(ids):,} tokens leave {left}: the model reads the nearest {kept}"
            prompt = self.crop(prompt)
        return Request(prompt, samples, self._first_token_mask(given)), notice

    def crop(self, ids: list[int]) -> list[int]:
        return [self._tokenizer.end_of_text, *ids[-(self._block_size // 2) :]]

    def text(self, given: str, ids: list[int], raw: bool = False) -> str:
        text = reorder(given, self._order) + self._tokenizer.decode(ids)
        return text if raw else reorder(text, self._order)

    def _first_token_mask(self, given: str) -> torch.Tensor | None:
        """The outermost given word is complete, so the first token must not continue it. After a space or line break any may follow."""
        outermost = given[:1] if self._order == "backward" else given[-1:]
        if outermost in ("", " ", "\n"):  # the separators of word reversal
            return None
        is_backward = self._order == "backward"
        return torch.from_numpy(self._tokenizer.begins_word if is_backward else self._tokenizer.begins_word_or_punctuation)


class ResponsePrompter:
    """BackChat: a response is given, and the model generates the instruction that could have led to it."""

    given_label, generated_label = "Response", "Generated Instruction"
    given_field, generated_field = "response", GENERATED

    def __init__(self, prompt_format: PromptFormat, block_size: int) -> None:
        self.prompt_format = prompt_format
        self._block_size = block_size

    @property
    def stop_ids(self) -> frozenset[int]:
        return self.prompt_format.stop_ids

    @property
    def most_tokens(self) -> int | None:
        return self._block_size - self.prompt_format.overhead

    def request(self, given: str, samples: int, max_new_tokens: int) -> tuple[Request, str]:
        response = clean_text(given)
        if not response:
            raise UserError("an empty response: give a text to find an instruction for")
        kept = min(max_new_tokens, self._block_size // 4)
        fitted = self.prompt_format.fit_response(response, self._block_size - self.prompt_format.overhead - kept)
        notice = ""
        if fitted.is_cut:
            left = f"so that {kept} tokens are left for the instruction in the context of {self._block_size}"
            notice = f"the response is too long: the model reads its first {len(fitted.text):,} characters, {left}"
        return Request(self.prompt_format.prompt(fitted.ids), samples), notice

    def crop(self, ids: list[int]) -> list[int]:
        return []  # an instruction without its response would be about nothing

    def text(self, given: str, ids: list[int], raw: bool = False) -> str:
        text = self.prompt_format.tokenizer.decode(ids)
        return text if raw else reorder(text, self.prompt_format.order)


def prompter_for(checkpoint: Checkpoint) -> Prompter:
    """What a checkpoint was trained for last: responses if it was tuned, and else endings."""
    if checkpoint.stage == "tuning":
        return ResponsePrompter(PromptFormat(checkpoint.tokenizer, checkpoint.order), checkpoint.model_config.block_size)
    return EndingPrompter(checkpoint.tokenizer, checkpoint.order, checkpoint.model_config.block_size)


def generate_samples(
    engine: Engine, requests: Iterable[Request], params: SamplingParams, stop_ids: frozenset[int]
) -> Iterator[list[GeneratedText]]:
    """The samples of each request. Requests come in order, whichever is finished first."""
    counts: list[int] = []

    def counted() -> Iterator[Request]:
        for request in requests:
            counts.append(request.samples)
            yield request

    unfinished: dict[int, list[GeneratedText]] = {}
    done = 0
    for event in engine.run(counted(), params, stop_ids):
        if event.request not in unfinished:
            unfinished[event.request] = [GeneratedText() for _ in range(counts[event.request])]
        unfinished[event.request][event.sample].add(event)
        while done in unfinished and all(text.finish_reason for text in unfinished[done]):
            yield unfinished.pop(done)
            done += 1


def generate_candidates(
    engine: Engine, prompter: Prompter, given: Iterable[str], params: SamplingParams, samples: int
) -> Iterator[list[tuple[str, GeneratedText]]]:
    """For each given text, in the given order, several generated ones: as a person reads them, and their tokens and log-probabilities."""
    given_texts: list[str] = []

    def requests() -> Iterator[Request]:
        for text in given:
            given_texts.append(text)
            yield prompter.request(text, samples, params.max_new_tokens)[0]

    for number, found in enumerate(generate_samples(engine, requests(), params, prompter.stop_ids)):
        yield [(prompter.text(given_texts[number], generated.ids), generated) for generated in found]


def generate_texts(engine: Engine, prompter: Prompter, given: Iterable[str], params: SamplingParams) -> Iterator[tuple[str, GeneratedText]]:
    """One generated text for each given one, in the given order, as a person reads it."""
    return (candidates[0] for candidates in generate_candidates(engine, prompter, given, params, 1))


def text_as_row(prompter: Prompter, given: str, generated: GeneratedText, raw: bool = False) -> dict[str, Any]:
    """A generated text as the fields of a row of results."""
    return {
        prompter.generated_field: prompter.text(given, generated.ids, raw),
        "logprob_per_token": round(generated.logprob_per_token, 5),
        "tokens": generated.tokens,
        "complete": generated.finish_reason == "stop",
    }
