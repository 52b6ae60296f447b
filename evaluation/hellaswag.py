"""HellaSwag in either word order: four endings for a context, one of which is true."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from config import Order, SourceConfig, TrainConfig
from evaluation.bootstrap import Estimate, Values, mean_estimate
from evaluation.evaluated_model import EvaluatedModel, kin, twins
from evaluation.gaps import mean_name, spread_name
from evaluation.logprobs import grouped
from evaluation.report import Section, with_progress
from formats.batches import evenly_spaced
from formats.tolerant_rows import READ_ENDINGS, read_rows_or_errors
from model import GPT
from preprocessing.hub import open_hub_dataset
from preprocessing.sources import Source
from sampling.scoring import Scorer
from system.amounts import amount
from system.device import autocast, choose_dtype
from system.errors import UserError
from system.ranks import Ranks
from tokens.reversal import reorder
from tokens.tokenizer import Tokenizer

ENDINGS = 4
CHANCE = 1 / ENDINGS
FIELDS = ("query", "endings", "label", "activity_label", "ctx_a", "ctx_b", "ctx")
# How a choice is made: whether by the whole text, and whether by the score per byte.
WAYS = {
    "second part, in total": (False, False),
    "second part, per byte": (False, True),
    "whole text, in total": (True, False),
    "whole text, per byte": (True, True),
}
RETRIES = 2  # of the hub; few, since the rest of the report does not need the tasks


class HellaSwagTask(NamedTuple):
    """A context and its possible endings."""

    context: str
    endings: list[str]
    label: int  # the index of the true ending


class ChoiceScores(NamedTuple):
    """The log-probabilities, in nats, of the two parts of a task for each ending.

    Forwards the first part is the context and the second the ending; backwards the other way round.
    """

    first: Values
    second: Values  # given the first
    first_bytes: Values
    second_bytes: Values  # without the space that joins the parts
    label: int
    cut: bool  # the context was too long

    def is_right(self, whole: bool, per_byte: bool) -> bool:
        """Whether the true ending scores best, by the whole text or by the second part given the first."""
        scores = self.second + (self.first if whole else 0)
        sizes = self.second_bytes + (self.first_bytes + 1 if whole else 0)
        scores = scores / np.maximum(sizes, 1) if per_byte else scores
        return int(scores.argmax()) == self.label


def is_file(source: str) -> bool:
    """Whether the source is a file and not a data set on the hub."""
    return source.endswith(READ_ENDINGS) or Path(source).exists()


def read_tasks(source: str, limit: int) -> list[HellaSwagTask]:
    """At most `limit` tasks of a file or of a data set on the hub, evenly spaced; all tasks if `limit` is 0."""
    rows = list(_rows_of_file(source) if is_file(source) else _rows_of_hub(source))
    if not rows:
        raise UserError(f"--hellaswag {source}: no tasks in it")
    return [_task(rows[index], source) for index in evenly_spaced(len(rows), limit or len(rows)).tolist()]


def _rows_of_file(path: str) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(read_rows_or_errors(path, lambda fields: [name for name in fields if name in FIELDS])):
        if isinstance(row, str):
            raise UserError(f"{path}, row {number + 1}: {row}")
        yield row


def _rows_of_hub(name: str) -> Iterator[dict[str, Any]]:
    config = SourceConfig(data_dir="", dataset=name, split="validation", retries=RETRIES)
    try:
        hub = open_hub_dataset(config, "")

        def open_file(file: int, row: int) -> Iterator[list[dict[str, Any]]]:
            return ([fields] for table in hub.read(file, row, None) for fields in table.to_pylist())

        source = Source(hub.names, open_file, config.retries)
        for file in range(len(hub.names)):
            for rows in source.rows(file):
                yield from rows
    except UserError as error:  # it names the flags of preprocessing
        what = str(error).partition(". Gave up")[0].removesuffix(", or read local files with --input").removesuffix(" Check --dataset")
        raise UserError(f"{what.rstrip('.')}. Try again later, or name a file of tasks with --hellaswag", error.exit_code) from error


def _task(row: dict[str, Any], source: str) -> HellaSwagTask:
    """The task of a row, prepared as in lm-evaluation-harness: the activity, then the context, without WikiHow's markup."""
    try:
        prepared = row.get("query") or ("activity_label" not in row and row.get("ctx"))  # in some files, ready to use
        context = prepared or f"{row['activity_label']}: {_clean(row['ctx_a'] + ' ' + row['ctx_b'].capitalize())}"
        task = HellaSwagTask(context, [_clean(ending) for ending in list(row["endings"])], int(row["label"]))
        "".join([context, *task.endings]).encode()
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(f"--hellaswag {source}: a row is not a HellaSwag task ({type(error).__name__}: {error})") from error
    if len(task.endings) != ENDINGS or not 0 <= task.label < ENDINGS:
        raise UserError(f"--hellaswag {source}: a task has {amount(len(task.endings), 'ending')} and the label {task.label}")
    return task


def _clean(text: str) -> str:
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ").strip()


def score_tasks(scorer: Scorer, tokenizer: Tokenizer, order: Order, tasks: Sequence[HellaSwagTask]) -> Iterator[ChoiceScores]:
    """Score each task in the word order of the model: backwards it reads the ending first, forwards the context."""
    block_size = scorer.model.config.block_size
    for group in grouped(tasks, lambda task: ENDINGS * (len(task.context) + len(task.endings[0])) // 4, scorer):
        prepared = [encode_task(task, tokenizer, order, block_size) for task in group]
        scores = scorer.score([([tokenizer.end_of_text], first + second) for parts, _ in prepared for first, second in parts])
        for task, (parts, cut) in zip(group, prepared, strict=True):
            logprobs = [np.split(next(scores), [len(first)]) for first, _ in parts]
            sizes = [[tokenizer.bytes_per_id[ids].sum() for ids in part] for part in parts]
            first, second = np.array([[part.sum() for part in pair] for pair in logprobs]).T
            first_bytes, second_bytes = np.array(sizes, float).T - [[0], [1]]
            yield ChoiceScores(first, second, first_bytes, second_bytes, task.label, cut)


def encode_task(task: HellaSwagTask, tokenizer: Tokenizer, order: Order, block_size: int) -> tuple[list[tuple[list[int], list[int]]], bool]:
    """For each ending the ids of the first and second part, and whether the context was cut. It keeps the side nearest to the ending."""
    backward = order == "backward"
    # The space between the parts belongs to the second one. No token crosses it, so the ids are those of the whole text.
    context = tokenizer.encode(reorder(f"{task.context} " if backward else task.context, order))
    endings = [tokenizer.encode(reorder(ending if backward else f" {ending}", order))[: block_size - 1] for ending in task.endings]
    room = block_size - max(map(len, endings))
    cut = len(context) > room
    kept = (context[:room] if backward else context[len(context) - room :]) if cut else context
    return [(ending, kept) if backward else (kept, ending) for ending in endings], cut


def hellaswag_while_training(
    config: TrainConfig, tokenizer: Tokenizer, order: Order
) -> Callable[[GPT, int, int, Ranks], Mapping[str, float]]:
    """How often a model in training gives the true ending the best score per byte of the second part, given the first."""
    tasks = read_tasks(config.hellaswag, config.hellaswag_tasks)

    def measure(model: GPT, step: int, batch_size: int, ranks: Ranks) -> Mapping[str, float]:
        if step % config.hellaswag_every:
            return {}
        device = model.embedding.weight.device

        def choose(tasks: Sequence[HellaSwagTask]) -> Iterator[bool]:
            scores = score_tasks(Scorer(model, batch_size), tokenizer, order, tasks)
            return (choice.is_right(whole=False, per_byte=True) for choice in with_progress(scores, len(tasks), "HellaSwag"))

        with autocast(device, choose_dtype(config.dtype, device)):
            right = ranks.divided(choose, tasks)
        return {"HellaSwag": sum(right) / len(right)}

    return measure


def _choose(model: EvaluatedModel, tasks: Sequence[HellaSwagTask]) -> Iterator[ChoiceScores]:
    scores = score_tasks(model.scorer, model.checkpoint.tokenizer, model.checkpoint.order, tasks)
    return with_progress(scores, len(tasks), f"HellaSwag, {model.name}")


def measure_hellaswag(models: Sequence[EvaluatedModel], tasks: Sequence[HellaSwagTask], seed: int) -> Section:
    """How often each model chooses the true ending. A control: a backwards model cannot be asked as in published results."""
    section = Section("HellaSwag, a control", list(WAYS), models_in_rows=True, rest_on="task")
    right: list[list[Values]] = []  # of each model in each way
    cuts: list[str] = []
    for model in models:
        choices = model.ranks.divided(partial(_choose, model), tasks)
        right.append([np.array([choice.is_right(*way) for choice in choices], float) for way in WAYS.values()])
        section.rows[model.name] = [mean_estimate(values, seed, ".1%") for values in right[-1]]
        if cut := sum(choice.cut for choice in choices):
            cuts.append(f"{model.kind or model.name}: of {amount(cut, 'task')} the context was cut at the side away from the ending.")
    section.notes += dict.fromkeys(cuts)  # seeds have the same one
    for kind, places in kin(models).items():
        mean, spread = mean_name(kind, len(places)), spread_name(kind, len(places))
        section.rows |= _mean_and_spread(mean, spread, [right[place] for place in places], seed, ".1%")
    pairs = twins(models)
    differences = [[ours - others for ours, others in zip(right[one], right[other], strict=True)] for one, other in pairs]
    for number, of_pair in enumerate(differences, 1):
        name = f"difference {number}" if len(pairs) > 1 else "difference"
        section.rows[name] = [mean_estimate(values, seed, "+.1%") for values in of_pair]
    if len(pairs) > 1:
        section.rows |= _mean_and_spread("mean difference", "spread of differences", differences, seed, "+.1%")
        section.notes.append(
            "A difference is that of the models of a gap. Spreads are between models or differences, intervals are over the tasks."
        )
    error = math.sqrt(CHANCE * (1 - CHANCE) / len(tasks))
    section.notes += [
        f"{amount(len(tasks), 'task')}; chance is {CHANCE:.0%}, with a standard error of {error:.2%} at chance.",
        "The second part is scored given the first. Backwards that is log P(context | ending): the first part is the ending. All four "
        "endings share one context, so 'per byte' and 'in total' must choose the same. Forwards it is the usual log P(ending | context).",
    ]
    return section


def _mean_and_spread(mean: str, spread: str, values: Sequence[Sequence[Values]], seed: int, format_spec: str) -> dict[str, list[Estimate]]:
    """The rows of several models, or of several differences, of each the values of all tasks in each way."""
    ways = [np.array(way) for way in zip(*values, strict=True)]  # (models, tasks)
    deviations = [Estimate(float(way.mean(axis=1).std(ddof=1)), None, None, len(values), format_spec.strip("+")) for way in ways]
    return {mean: [mean_estimate(way.mean(axis=0), seed, format_spec) for way in ways], spread: deviations}
