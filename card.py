"""The sections of the report card: what is measured of a model, beside which baseline, and in which words."""

import itertools
import math
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from checkpoint import Checkpoint
from engine import Engine, Sampling
from evaluation import candidate_logprobs, document_logprobs, instruction_logprobs
from figures import Figure, Values, area_under_curve, mean, ratio, recall, reciprocal_rank, resampled
from hellaswag import CHANCE, Choices, Task, score_tasks
from layout import Layout
from packing import Example, mismatched
from pairs import Pair
from report import Picture, Section
from scoring import Scorer
from text import arrange
from wording import WordIndex, compare
from writing import Responses, write

PLACES = (1, 5)  # of recall
SHOWN = 3  # written instructions
SHOWN_WIDTH = 100  # characters of each text
GIVEN, GAIN, WORDS = "log P(instruction | response)", "the same minus log P(instruction)", "BM25 word overlap"

Item = TypeVar("Item")


class Subject(NamedTuple):
    """A model that is judged."""

    name: str
    checkpoint: Checkpoint
    scorer: Scorer

    @property
    def block_size(self) -> int:
        return self.checkpoint.model_config.block_size


class Pairs:
    """Held-out pairs in the ids of a model, and in words."""

    def __init__(self, subject: Subject, examples: Sequence[Example], seed: int) -> None:
        self.subject = subject
        self.layout = Layout(subject.checkpoint.tokenizer, subject.checkpoint.order)
        self.examples = examples
        self.seed = seed
        # The instruction of each behind another's response: needs two that differ.
        several = len({example.ids[: example.prompt].tobytes() for example in examples}) > 1
        self.strangers = mismatched(examples, len(self.layout.begin), subject.block_size, seed) if several else []

    def alone(self) -> list[Example]:
        """Each instruction behind an empty response: the model has no other way to be asked for its chance as such."""
        prompt = np.array(self.layout.prompt([]))
        return [Example(np.concatenate([prompt, example.ids[example.prompt :]]), len(prompt)) for example in self.examples]

    def response(self, example: Example) -> str:
        return self._text(example.ids[: example.prompt])

    def instruction(self, example: Example) -> str:
        return self._text(example.ids[example.prompt :])

    def _text(self, ids: NDArray[np.int64]) -> str:
        return arrange(self.layout.tokenizer.decode(ids), self.layout.order)


def language(subjects: Sequence[Subject], texts: Sequence[str], what: str, stride: int, seed: int) -> tuple[Section, Picture]:
    """How well each model predicts the same texts, and by how much the first is behind the second."""
    section = Section(f"Language: {what}", ("loss, nats a token", "perplexity", "bits per byte"))
    sizes = np.array([len(text.encode()) for text in texts], float)
    sums, curves = [], {}
    for subject in subjects:
        tokenizer, step = subject.checkpoint.tokenizer, stride or max(1, subject.block_size // 2)
        boundary = tokenizer.end_of_text
        documents = ([boundary, *tokenizer.encode(arrange(text, subject.checkpoint.order)), boundary] for text in texts)
        losses = [-logprobs for logprobs in _watched(document_logprobs(subject.scorer, documents, step), len(texts), subject.name)]
        nats, tokens = np.array([[loss.sum(), len(loss)] for loss in losses]).T
        loss = ratio(nats, tokens, seed)
        low, high = (None if end is None else math.exp(end) for end in (loss.low, loss.high))
        perplexity = Figure(math.exp(loss.value), low, high, loss.examples, ".2f")
        bits = ratio(nats / math.log(2), sizes, seed, ".4f")
        section.rows[subject.name] = (loss, perplexity, bits)
        section.notes.append(
            f"{subject.name}: {int(tokens.sum()):,} tokens, the marks at the ends of texts included, each counted once; "
            f"a window of {subject.block_size} tokens moves by {step}."
        )
        if subject.checkpoint.stage == "tuning":
            section.notes.append(f"{subject.name}: tuning on pairs costs a model its plain text; judge pretraining by its own checkpoint.")
        sums.append((nats, tokens))
        curves[subject.name] = _by_position(losses, seed)
    if len(sums) == 2:
        (nats, tokens), (other_nats, other_tokens) = sums
        by_token = resampled(_excess(nats / tokens.sum(), other_nats / other_tokens.sum()), len(texts), seed, "+.2%")
        section.rows["gap"] = (by_token, "", resampled(_excess(nats, other_nats), len(texts), seed, "+.2%"))
        section.notes.append(
            "The gap is by how much the first model's loss is above the second's, on the same texts and the same resamples."
        )
    picture = Picture(
        "report_positions.png", what, "position in the document, in the order in which the model reads", "loss, nats a token", curves
    )
    return section, picture


def _excess(first: Values, second: Values) -> Callable[[NDArray[np.int64]], float]:
    return lambda chosen: float(first[chosen].sum() / second[chosen].sum() - 1)


def _by_position(losses: Sequence[Values], seed: int) -> list[tuple[float, Figure]]:
    """The mean loss of tokens at about the same position, over the documents that are so long."""
    longest = max(map(len, losses))
    edges = np.unique(np.geomspace(1, longest + 1, 24).astype(int))
    curve = []
    for low, high in itertools.pairwise(edges):
        parts = [loss[low - 1 : high - 1] for loss in losses if len(loss) >= low]
        sums, counts = np.array([[part.sum(), len(part)] for part in parts]).T
        curve.append((float(low + high - 1) / 2, ratio(sums, counts, seed)))
    return curve


def responses(pairs: Pairs) -> tuple[Section, dict[str, Values]]:
    """What the model takes from a response, and the log-probabilities that tell it."""
    section = Section("Instructions, given a response", ("bits per byte",))
    scorer, tokenizer = pairs.subject.scorer, pairs.layout.tokenizer
    sizes = np.array([tokenizer.bytes_per_id[example.ids[example.prompt :]].sum() for example in pairs.examples], float)
    found: dict[str, Values] = {}
    for name, examples in (("its own response", pairs.examples), ("another pair's response", pairs.strangers), ("none", pairs.alone())):
        if examples:
            found[name] = np.array(list(_watched(instruction_logprobs(scorer, examples), len(examples), name)))
            section.rows[name] = (ratio(-found[name] / math.log(2), sizes, pairs.seed),)
    if pairs.strangers:
        gain = (found["its own response"] - found["another pair's response"]) / math.log(2)
        section.rows["what its own response saves"] = (ratio(gain, sizes, pairs.seed),)
    section.notes += [
        f"{len(pairs.examples):,} held-out pairs. An instruction's end counts, with no bytes.",
        "Without a response the model is asked with an empty one, which tuning never showed it.",
    ]
    return section, found


def filtering(pairs: Pairs, logprobs: dict[str, Values], share: float) -> Section:
    """Whether the scores tell true pairs from mismatched ones."""
    section = Section("Filtering: true pairs from mismatched ones", ("area under the ROC curve",))
    if not pairs.strangers:
        section.notes.append("Left out: all pairs have the same response.")
        return section
    count = len(pairs.examples)
    is_true = np.ones(count, bool)
    is_true[np.random.default_rng([pairs.seed, count]).permutation(count)[: max(1, round(share * count))]] = False
    given = np.where(is_true, logprobs["its own response"], logprobs["another pair's response"])
    lengths = np.array([len(example.ids) - example.prompt for example in pairs.examples])
    index = WordIndex([pairs.instruction(example) for example in pairs.examples])
    shown = [example if true else stranger for example, stranger, true in zip(pairs.examples, pairs.strangers, is_true, strict=True)]
    overlap = np.array([index.scores(pairs.response(example))[number] for number, example in enumerate(shown)])
    for name, scores in (
        (GIVEN, given),
        ("the same a token", given / lengths),
        (GAIN, given - logprobs["none"]),
        (WORDS, overlap),
    ):
        section.rows[name] = (resampled(_area(scores, is_true), count, pairs.seed),)
    section.notes.append(f"{count - is_true.sum():,} of {count:,} pairs have another pair's response. Chance is 0.5.")
    return section


def _area(scores: Values, is_true: NDArray[np.bool_]) -> Callable[[NDArray[np.int64]], float]:
    return lambda chosen: area_under_curve(scores[chosen], is_true[chosen])


def ranking(pairs: Pairs, pool: Sequence[Example], sizes: Sequence[int], questions: int) -> tuple[Section, Picture | None]:
    """Whether the true instruction is found among others of the pool by its response."""
    section = Section("Ranking: the true instruction among others", (*(f"recall@{places}" for places in PLACES), "mean reciprocal rank"))
    instructions = list({tuple(example.ids[example.prompt :].tolist()): None for example in pool})
    place_of = {instruction: place for place, instruction in enumerate(instructions)}
    possible = sorted(size for size in set(sizes) if size < len(instructions))
    for size in sorted(set(sizes) - set(possible)):
        section.notes.append(f"Among {size:,} others: left out, there are {len(instructions):,} different held-out instructions in all.")
    asked = pairs.examples[:questions]
    if not possible:
        return section, None
    tokenizer, order = pairs.layout.tokenizer, pairs.layout.order
    candidates = [list(instruction) for instruction in instructions]
    prior = np.array([logprobs.sum() for logprobs in pairs.subject.scorer.score_after(pairs.layout.prompt([]), candidates)])
    index = WordIndex([arrange(tokenizer.decode(instruction), order) for instruction in instructions])
    begin = len(pairs.layout.begin)

    def scores_of(number: int) -> list[Values]:
        example = asked[number]
        own = place_of[tuple(example.ids[example.prompt :].tolist())]
        drawn = np.random.default_rng([pairs.seed, number]).choice(len(instructions) - 1, possible[-1], replace=False)
        chosen = np.concatenate([[own], drawn + (drawn >= own)])  # the true one first
        given = candidate_logprobs(pairs.subject.scorer, example.ids[: example.prompt], begin, [candidates[place] for place in chosen])
        return [given, given - prior[chosen], index.scores(pairs.response(example))[chosen]]

    scores = np.array(list(_watched(map(scores_of, range(len(asked))), len(asked), "ranking")))  # (questions, ways, 1 + others)
    curves: dict[str, list[tuple[float, Figure]]] = {GIVEN: [], GAIN: [], WORDS: []}
    for size in possible:
        for way, name in enumerate(curves):
            true, others = scores[:, way, :1], scores[:, way, 1 : size + 1]
            greater, ties = (others > true).sum(axis=1), (others == true).sum(axis=1)
            found = [mean(recall(greater, ties, places), pairs.seed, ".1%") for places in PLACES]
            section.rows[f"{size:,} others: {name}"] = (*found, mean(reciprocal_rank(greater, ties), pairs.seed))
            curves[name].append((size, found[0]))
        chance = [Figure(min(1.0, places / (size + 1)), form=".1%") for places in PLACES]
        section.rows[f"{size:,} others: chance"] = (*chance, Figure(float(np.mean(1 / np.arange(1, size + 2)))))
    section.notes += [
        f"{len(asked):,} responses; the others are drawn from {len(instructions):,} different held-out ones, the fewer among the more.",
        "Where scores tie, the mean over the orders in which they can stand.",
    ]
    title = "how often the true instruction comes first"
    return section, Picture("report_ranking.png", title, "other instructions to choose from", "recall@1", curves)


def generation(pairs: Pairs, training: Sequence[Pair], max_new_tokens: int, rows: int) -> Section:
    """What the model writes greedily, beside what needs no model; without training pairs, beside less of that."""
    section = Section("Writing: the likeliest instruction", ("chrF", "BLEU", "ROUGE-L", "exact", "ends by itself", "different ones"))
    true = [pairs.instruction(example) for example in pairs.examples]
    given = [pairs.response(example) for example in pairs.examples]
    engine = Engine(pairs.subject.scorer.model, rows)
    sampling = Sampling(max_new_tokens, temperature=0)
    answers = write(engine, Responses(pairs.layout, pairs.subject.block_size), given, sampling)
    written, ends = zip(*((text, answer.ending == "stop") for text, answer in _watched(answers, len(given), "writing")), strict=True)
    guesses: dict[str, Sequence[str]] = {"the model": written, "first sentence of the response": [_first_sentence(text) for text in given]}
    if training:
        [(most_frequent, times)] = Counter(pair.instruction for pair in training).most_common(1)
        index = WordIndex([pair.response for pair in training])
        nearest = [training[int(index.scores(text).argmax())].instruction for text in given]
        guesses["most frequent training instruction"] = [most_frequent] * len(true)
        guesses["instruction of the most similar training response"] = nearest
        section.notes.append(f"Training pairs looked at: {len(training):,}; the most frequent instruction occurs {times:,} times.")
    signatures: list[str] = []
    for name, texts in guesses.items():
        likeness, signatures = compare(texts, true, pairs.seed)
        ending: Figure | str = mean(np.array(ends, float), pairs.seed, ".1%") if texts is written else ""
        section.rows[name] = (*likeness.values(), ending, Figure(len(set(texts)) / len(texts), examples=len(texts), form=".1%"))
    section.notes.append(f"{len(true):,} pairs. {'  '.join(signatures)}  ROUGE-L is the F1 of rouge-score, which sees Latin letters only.")
    for response, text in itertools.islice(zip(given, written, strict=True), SHOWN):
        section.notes.append(f"{textwrap.shorten(response, SHOWN_WIDTH)}  ->  {textwrap.shorten(text, SHOWN_WIDTH)}")
    return section


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.!?])\s|\n", text, maxsplit=1)[0]


def hellaswag(subjects: Sequence[Subject], tasks: Sequence[Task], seed: int) -> Section:
    """How often the true ending is chosen: a control, for a backwards model cannot be asked as the published figures were."""
    section = Section("HellaSwag, a control", tuple(subject.name for subject in subjects))
    found: list[list[Choices]] = []
    for subject in subjects:
        checkpoint = subject.checkpoint
        found.append(list(_watched(score_tasks(subject.scorer, checkpoint.tokenizer, checkpoint.order, tasks), len(tasks), "HellaSwag")))
    for whole, what in ((False, "by the second part, given the first"), (True, "by the whole text")):
        for per_byte, how in ((False, "in total"), (True, "a byte")):
            right = [np.array([choices.is_right(whole, per_byte) for choices in all_choices], float) for all_choices in found]
            section.rows[f"{what}, {how}"] = [mean(values, seed, ".1%") for values in right]
    error = math.sqrt(CHANCE * (1 - CHANCE) / len(tasks))
    section.notes += [
        f"{len(tasks):,} tasks; chance is {CHANCE:.0%}, with a standard error of {error:.2%} at chance.",
        "Backwards, the second part is the context and the first the ending: log P(context | ending). As the four contexts are one text, "
        "'a byte' must then choose as 'in total' does. Forwards it is the usual log P(ending | context).",
        *(
            f"{subject.name}: {cut:,} contexts did not fit and lost what lies farthest from the ending."
            for subject, choices in zip(subjects, found, strict=True)
            if (cut := sum(choice.cut for choice in choices))
        ),
    ]
    return section


def _watched(items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
    return iter(tqdm(items, total=total, desc=what, leave=False, disable=None))
