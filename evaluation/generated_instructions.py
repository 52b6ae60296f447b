"""The section on generated instructions: how close they come to the true ones, beside guesses that need no model."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from evaluation.bootstrap import Estimate, mean_estimate
from evaluation.recovery import Recovery
from evaluation.report import Section, with_progress
from evaluation.text_overlap import BM25Index, overlap_metrics
from formats.batches import evenly_spaced
from formats.pairs import Pair
from sampling.engine import Engine
from sampling.generation import ResponsePrompter, generate_texts
from sampling.sampler import SamplingParams
from system.amounts import amount

SHOWN_PAIRS = 3
SHOWN_CHARACTERS = 100  # of each text


class GeneratedInstructions(NamedTuple):
    """An instruction for each response."""

    texts: list[str]
    ended: list[bool]  # by themselves, not at the limit of tokens
    cut: int  # responses that were cut to fit into the context


def measure_generated_instructions(recovery: Recovery, training: Sequence[Pair], max_new_tokens: int, batch_size: int) -> Section:
    """Compare greedily generated instructions with the true ones; also guesses, of which some need training pairs."""
    section = Section("Writing: greedily", ("chrF", "BLEU", "ROUGE-L", "exact", "ends by itself", "distinct"))
    true, responses = [pair.instruction for pair in recovery.pairs], [pair.response for pair in recovery.pairs]
    generated = _generate(recovery, responses, max_new_tokens, batch_size)
    guesses = {"the model": generated.texts, "first sentence of the response": list(map(first_sentence, responses))}
    if training:
        guesses |= _guesses_from_training(training, responses)
        section.notes.append(_training_note(training, true))
    signatures: list[str] = []
    for name, texts in guesses.items():
        overlap, signatures = overlap_metrics(texts, true, recovery.seed)
        ended = mean_estimate(np.array(generated.ended, float), recovery.seed, ".1%") if texts is generated.texts else ""
        distinct = Estimate(_share_of_distinct(texts), examples=len(texts), format_spec=".1%")
        section.rows[name] = (*overlap.values(), ended, distinct)
    section.notes += [
        f"{amount(len(true), 'pair')}; responses cut to fit into the context: {generated.cut:,}.",
        f"{_share_of_distinct(true):.1%} of the true instructions are distinct.",
        f"{'  '.join(signatures)}  ROUGE-L is the F1 score of rouge-score, which sees only a to z and digits.",
    ]
    for index in evenly_spaced(len(responses), SHOWN_PAIRS).tolist():
        section.notes.append(f"`{_shorten(responses[index])}` -> `{_shorten(generated.texts[index])}`")
    return section


def first_sentence(text: str) -> str:
    """The text up to the first full stop, question mark or exclamation mark before a space, or up to the first line break."""
    return re.split(r"(?<=[.!?])\s|\n", text, maxsplit=1)[0]


def _generate(recovery: Recovery, responses: Sequence[str], max_new_tokens: int, batch_size: int) -> GeneratedInstructions:
    prompter = ResponsePrompter(recovery.prompt_format, recovery.model.block_size)
    engine = Engine(recovery.model.scorer.model, batch_size)

    def write(responses: Sequence[str]) -> Iterator[tuple[str, bool]]:
        results = generate_texts(engine, prompter, responses, SamplingParams(max_new_tokens, temperature=0))
        return ((text, result.finish_reason == "stop") for text, result in with_progress(results, len(responses), "generating"))

    texts, ended = map(list, zip(*recovery.model.ranks.divided(write, responses), strict=True))
    cut = sum(bool(prompter.request(response, 1, max_new_tokens)[1]) for response in responses)
    return GeneratedInstructions(texts, ended, cut)


def _guesses_from_training(training: Sequence[Pair], responses: Sequence[str]) -> dict[str, list[str]]:
    [(most_frequent, _)] = Counter(pair.instruction for pair in training).most_common(1)
    index = BM25Index([pair.response for pair in training])
    nearest = [
        training[int(index.scores(response).argmax())].instruction
        for response in with_progress(responses, len(responses), "searching the training pairs")
    ]
    return {
        "most frequent training instruction": [most_frequent] * len(responses),
        "instruction of the most similar training response": nearest,
    }


def _training_note(training: Sequence[Pair], true: Sequence[str]) -> str:
    times = Counter(pair.instruction for pair in training)
    most = max(times.values())
    return (
        f"Compared with {amount(len(training), 'training pair')}, whose most frequent instruction occurs {amount(most, 'time')}. "
        f"{np.mean([text in times for text in true]):.1%} of the true instructions occur among them word for word."
    )


def _share_of_distinct(texts: Sequence[str]) -> float:
    return len(set(texts)) / len(texts)


def _shorten(text: str) -> str:
    return " ".join(text.split())[:SHOWN_CHARACTERS].replace("`", "'")
