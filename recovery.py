"""Recovery: how much of an instruction a tuned model finds in its response, beside what needs no model."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from engine import Engine, Sampling
from evaluation import instruction_logprobs
from figures import Figure, Values, area_under_curve, mean, ratio, recall, reciprocal_rank, resampled
from held_out import Held
from language import Subject
from layout import Layout
from packing import Example, mismatched, strangers
from pairs import Pair
from report import Curve, Picture, Section, watched
from shards import spread
from wording import WordIndex, compare
from writing import Responses, write

PLACES = (1, 5)  # of recall
SHOWN = 3  # written instructions
SHOWN_WIDTH = 100  # characters of each text
PRIORS_TOGETHER = 256  # instructions scored without a response between two looks at the progress
GIVEN, GAIN, WORDS = "log P(instruction | response)", "log P(instruction | response) - log P(instruction)", "BM25 word overlap"
OWN, OTHER, NONE = "its own response", "another pair's response", "none"


class Recovery:
    """Held-out pairs before a model."""

    def __init__(self, subject: Subject, held: Sequence[Held], seed: int) -> None:
        self.subject = subject
        self.held = held
        self.seed = seed
        self.layout = Layout(subject.checkpoint.tokenizer, subject.checkpoint.order)
        self._examples = [one.example for one in held]
        responses = [one.pair.response for one in held]
        # The instruction of each behind another's response, which there is for all unless more than half have the same.
        several = 2 * max(Counter(responses).values()) <= len(held)
        self._others = strangers(responses, seed) if several else []
        self._strangers = mismatched(self._examples, self._others, len(self.layout.begin), subject.block_size) if several else []

    @cached_property
    def logprobs(self) -> dict[str, Values]:
        """Log P of each instruction after its own response, after another's, and after an empty one: the only way to ask without."""
        empty = np.array(self.layout.prompt([]))
        alone = [Example(np.concatenate([empty, example.ids[example.prompt :]]), len(empty)) for example in self._examples]
        found = {}
        for name, examples in ((OWN, self._examples), (OTHER, self._strangers), (NONE, alone)):
            if examples:
                scores = watched(instruction_logprobs(self.subject.scorer, examples), len(examples), f"instructions, given {name}")
                found[name] = np.array(list(scores))
        return found

    def responses(self) -> Section:
        """What the model takes from a response."""
        section = Section("Instructions, given a response", ("bits per byte",))
        bytes_per_id = self.layout.tokenizer.bytes_per_id
        sizes = np.array([bytes_per_id[example.ids[example.prompt :]].sum() for example in self._examples], float)
        bits = {name: -logprobs / math.log(2) for name, logprobs in self.logprobs.items()}
        for name, values in bits.items():
            section.rows[name] = (ratio(values, sizes, self.seed),)
        for name in (OTHER, NONE):
            if name in bits:
                section.rows[f"{name}, minus its own"] = (ratio(bits[name] - bits[OWN], sizes, self.seed),)
        if OTHER not in bits:
            section.notes.append("More than half of the pairs have the same response: left out with another pair's.")
        section.notes += [
            f"{len(self.held):,} pairs. The mark that ends an instruction is counted as a token of no bytes.",
            "Without a response the model is asked with an empty one, which tuning never showed it.",
        ]
        return section

    def filtering(self, share: float) -> Section:
        """Whether the scores tell true pairs from mismatched ones."""
        section = Section("Filtering: true pairs from mismatched ones", ("area under the ROC curve",))
        # A response that another pair gives to the same instruction would be no mismatch.
        answered = defaultdict(set)
        for one in self.held:
            answered[one.pair.response].add(one.pair.instruction)
        usable = [
            place
            for place, other in enumerate(self._others)
            if self.held[place].pair.instruction not in answered[self.held[other].pair.response]
        ]
        if len(usable) < 2:
            section.notes.append("Left out: too few pairs with different responses.")
            return section
        count, false = len(usable), min(len(usable) - 1, max(1, round(share * len(usable))))
        is_true = np.ones(count, bool)
        is_true[np.random.default_rng([self.seed, count]).permutation(count)[:false]] = False
        own, other, none = (self.logprobs[name][usable] for name in (OWN, OTHER, NONE))
        given = np.where(is_true, own, other)
        lengths = np.array([len(self._examples[place].ids) - self._examples[place].prompt for place in usable])
        index = WordIndex([self.held[place].pair.instruction for place in usable])
        texts = [self.held[place if true else self._others[place]].pair.response for place, true in zip(usable, is_true, strict=True)]
        overlap = np.array([index.scores(text)[number] for number, text in enumerate(texts)])
        for name, scores in ((GIVEN, given), (f"{GIVEN} per token", given / lengths), (GAIN, given - none), (WORDS, overlap)):
            section.rows[name] = (resampled(_area(scores, is_true), count, self.seed),)
        section.notes.append(f"{false:,} of {count:,} pairs have another pair's response. Chance is 0.5.")
        return section

    def ranking(self, pool: Sequence[Held], sizes: Sequence[int], questions: int) -> tuple[Section, Picture | None]:
        """Whether the true instruction is found among others of the pool by its response."""
        section = Section(
            "Ranking: the true instruction among others", (*(f"recall@{places}" for places in PLACES), "mean reciprocal rank")
        )
        # The response is cut once for all candidates, so that its length does not tell which is its own: it keeps half of the context.
        longest = self.subject.block_size // 2 - self.layout.frame
        candidates = list(dict.fromkeys(one.instruction_ids for one in pool if len(one.instruction_ids) <= longest))
        place_of = {candidate: place for place, candidate in enumerate(candidates)}
        answered = defaultdict(set)  # by each response, the instructions that it truly belongs to
        for one in pool:
            if one.instruction_ids in place_of:
                answered[one.pair.response].add(place_of[one.instruction_ids])
        others = len(candidates) - max(map(len, answered.values()), default=0)
        possible = sorted(size for size in set(sizes) if size <= others)
        for size in sorted(set(sizes) - set(possible)):
            section.notes.append(f"Among {size:,} others: left out, there are only {others:,} others for every response.")
        usable = [one for one in self.held if one.instruction_ids in place_of]
        asked = [usable[index] for index in spread(len(usable), questions).tolist()]
        if not possible or not asked:
            return section, None
        drawn = []
        for number, one in enumerate(asked):
            free = np.setdiff1d(np.arange(len(candidates)), list(answered[one.pair.response]))
            chosen = np.random.default_rng([self.seed, number]).choice(free, possible[-1], replace=False)
            drawn.append(np.concatenate([[place_of[one.instruction_ids]], chosen]))  # the true one first
        scores = self._score(asked, drawn, [list(candidate) for candidate in candidates])
        curves: dict[str, Curve] = {GIVEN: [], GAIN: [], WORDS: []}
        curves_of_chance: Curve = []
        for size in possible:
            for way, name in enumerate(curves):
                true, rest = scores[:, way, :1], scores[:, way, 1 : size + 1]
                greater, ties = (rest > true).sum(axis=1), (rest == true).sum(axis=1)
                found = [mean(recall(greater, ties, places), self.seed, ".1%") for places in PLACES]
                section.rows[f"{size:,} others: {name}"] = (*found, mean(reciprocal_rank(greater, ties), self.seed))
                curves[name].append((size, found[0]))
            chance = [Figure(min(1.0, places / (size + 1)), form=".1%") for places in PLACES]
            curves_of_chance.append((size, chance[0]))
            section.rows[f"{size:,} others: chance"] = (*chance, Figure(float(np.mean(1 / np.arange(1, size + 2)))))
        section.notes += [
            f"{len(asked):,} responses. The others are drawn from {len(candidates):,} different instructions; none of them belongs to the "
            "same response, and each smaller set is part of the larger. Ties count as the mean over the orders they can stand in.",
            "BM25 reads the whole response; the model reads as much of it as fits beside the longest candidate.",
        ]
        if lost := len(self.held) - len(usable):
            section.notes.append(f"{lost:,} pairs left out: an instruction longer than about half of the context ({longest} tokens).")
        title, curves = "how often the true instruction comes first", {**curves, "chance": curves_of_chance}
        return section, Picture("report_ranking.png", title, "other instructions", "recall@1", curves, y_range=(0, 1.02))

    def _score(self, asked: Sequence[Held], drawn: Sequence[NDArray[np.int64]], candidates: list[list[int]]) -> Values:
        """By each of the three ways, the scores of the candidates drawn for each response (questions, ways, 1 + others)."""
        scorer, layout = self.subject.scorer, self.layout
        wanted = np.unique(np.concatenate(drawn))
        room = self.subject.block_size - layout.frame + len(layout.end) - max(len(candidates[place]) for place in wanted)
        index = WordIndex([layout.read(np.array(candidate)) for candidate in candidates])
        prior = np.zeros(len(candidates))
        portions = [wanted[start : start + PRIORS_TOGETHER] for start in range(0, len(wanted), PRIORS_TOGETHER)]
        for portion in watched(portions, len(portions), "ranking: without a response"):
            prior[portion] = [
                logprobs.sum() for logprobs in scorer.score_after(layout.prompt([]), [candidates[place] for place in portion])
            ]

        def scores_of(one: Held, chosen: NDArray[np.int64]) -> list[Values]:
            response, _ = layout.fit(one.pair.response, room)
            logprobs = scorer.score_after(layout.prompt(response), [candidates[place] for place in chosen])
            given = np.array([values.sum() for values in logprobs])
            return [given, given - prior[chosen], index.scores(one.pair.response)[chosen]]

        return np.array(list(watched(map(scores_of, asked, drawn), len(asked), "ranking")))

    def generation(self, training: Sequence[Pair], max_new_tokens: int, rows: int) -> Section:
        """What the model writes greedily, beside what needs no model; without training pairs, beside less of that."""
        section = Section("Writing: greedily", ("chrF", "BLEU", "ROUGE-L", "exact", "ends by itself", "different ones"))
        true, given = [one.pair.instruction for one in self.held], [one.pair.response for one in self.held]
        form = Responses(self.layout, self.subject.block_size)
        answers = write(Engine(self.subject.scorer.model, rows), form, given, Sampling(max_new_tokens, temperature=0))
        written, ends = zip(*((text, answer.ending == "stop") for text, answer in watched(answers, len(given), "writing")), strict=True)
        guesses: dict[str, Sequence[str]] = {"the model": written, "first sentence of the response": list(map(first_sentence, given))}
        if training:
            [(most_frequent, times)] = Counter(pair.instruction for pair in training).most_common(1)
            index = WordIndex([pair.response for pair in training])
            guesses["most frequent training instruction"] = [most_frequent] * len(true)
            nearest = [training[int(index.scores(text).argmax())].instruction for text in watched(given, len(given), "searching")]
            guesses["instruction of the most similar training response"] = nearest
            known = {pair.instruction for pair in training}
            section.notes.append(
                f"Training pairs looked at: {len(training):,}; the most frequent instruction occurs {times:,} time{'s' * (times > 1)}. "
                f"{np.mean([text in known for text in true]):.1%} of the true instructions occur there word for word."
            )
        signatures: list[str] = []
        for name, texts in guesses.items():
            likeness, signatures = compare(texts, true, self.seed)
            ending: Figure | str = mean(np.array(ends, float), self.seed, ".1%") if texts is written else ""
            section.rows[name] = (*likeness.values(), ending, Figure(len(set(texts)) / len(texts), examples=len(texts), form=".1%"))
        cut = sum(bool(form.request(text, 1, max_new_tokens)[1]) for text in given)
        section.notes += [
            f"{len(true):,} pairs, {cut:,} of their responses cut for the context.",
            f"{len(set(true)) / len(true):.1%} of the true instructions are different ones.",
        ]
        section.notes.append(f"{'  '.join(signatures)}  ROUGE-L is the F1 of rouge-score, which sees a to z and digits only.")
        for place in spread(len(given), SHOWN).tolist():
            response, text = (" ".join(text.split())[:SHOWN_WIDTH].replace("`", "'") for text in (given[place], written[place]))
            section.notes.append(f"`{response}` -> `{text}`")
        return section


def first_sentence(text: str) -> str:
    """Up to the first full stop, question or exclamation mark that a space follows, or the first line."""
    return re.split(r"(?<=[.!?])\s|\n", text, maxsplit=1)[0]


def _area(scores: Values, is_true: NDArray[np.bool_]) -> Callable[[NDArray[np.int64]], float]:
    return lambda chosen: area_under_curve(scores[chosen], is_true[chosen])
