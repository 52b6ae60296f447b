"""HellaSwag in either word order: four endings to a context, of which a model chooses one."""

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from config import SourceConfig
from errors import UserError
from evaluation import portions
from figures import Values, mean
from hub import HubTrouble, Patience, open_hub
from language import Subject
from report import Section, watched
from results import READ_ENDINGS, read_rows
from scoring import Scorer
from shards import spread
from text import Order, arrange
from tokenizer import Tokenizer

ENDINGS = 4
CHANCE = 1 / ENDINGS
FIELDS = ("query", "endings", "label", "activity_label", "ctx_a", "ctx_b")


class Task(NamedTuple):
    """A context and what may have come next."""

    context: str
    endings: list[str]
    label: int  # which of them is true


class Choices(NamedTuple):
    """How likely a model finds the parts of a task, in nats, for each ending."""

    first: Values  # the part that it reads first, in its own order
    second: Values  # the other part, given the first
    first_bytes: Values
    second_bytes: Values
    label: int
    cut: bool  # the context was too long

    def is_right(self, whole: bool, per_byte: bool) -> bool:
        """Whether the true ending is chosen, by the whole text or by the second part given the first."""
        scores = self.second + (self.first if whole else 0)
        sizes = self.second_bytes + (self.first_bytes if whole else 0)
        scores = scores / np.maximum(sizes, 1) if per_byte else scores
        return int(scores.argmax()) == self.label


def is_file(source: str) -> bool:
    """Whether a file is meant, not a data set on the hub."""
    return source.endswith(READ_ENDINGS) or Path(source).exists()


def read_tasks(source: str, limit: int) -> list[Task]:
    """Tasks of a file, or of a data set on the hub; at most `limit`, evenly spread, or all for 0."""
    rows = list(_rows_of_file(source) if is_file(source) else _rows_of_hub(source))
    if not rows:
        raise UserError(f"--hellaswag {source}: no task in it")
    return [_task(rows[index], source) for index in spread(len(rows), limit or len(rows)).tolist()]


def _rows_of_file(path: str) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(read_rows(path, lambda fields: [name for name in fields if name in FIELDS])):
        if isinstance(row, str):
            raise UserError(f"{path}, row {number + 1}: {row}")
        yield row


def _rows_of_hub(name: str) -> Iterator[dict[str, Any]]:
    config = SourceConfig(data_dir="", dataset=name, split="validation", retries=2)
    try:
        hub = open_hub(config, "")
        patience = Patience(config.retries)
        for file in range(len(hub.names)):
            rows: list[dict[str, Any]] = []
            while True:
                try:
                    for table in hub.read(file, len(rows), None):
                        rows += table.to_pylist()
                    break
                except HubTrouble as error:
                    patience.wait(f"lost the connection while reading {hub.names[file]}", error)
            yield from rows
    except UserError as error:  # the way out is another here
        what = str(error).partition(". Gave up")[0].replace(" Check --dataset, or read local files with --input", "")
        raise UserError(f"{what}. Try again later, or name a file of tasks with --hellaswag", error.exit_code) from error


def _task(row: dict[str, Any], source: str) -> Task:
    """A row as the field reads it: the activity, then the context, without the marks of the site it comes from."""
    try:
        ready = row.get("query")  # in files that somebody prepared
        context = ready or f"{row['activity_label']}: {_clean(row['ctx_a'] + ' ' + row['ctx_b'].capitalize())}"
        task = Task(context, [_clean(ending) for ending in list(row["endings"])], int(row["label"]))
        "".join([context, *task.endings]).encode()
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(f"--hellaswag {source}: a row that is no task of HellaSwag ({type(error).__name__}: {error})") from error
    if len(task.endings) != ENDINGS or not 0 <= task.label < ENDINGS:
        raise UserError(f"--hellaswag {source}: a task with {len(task.endings)} endings and the label {task.label}")
    return task


def _clean(text: str) -> str:
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ").strip()


def score_tasks(scorer: Scorer, tokenizer: Tokenizer, order: Order, tasks: Sequence[Task]) -> Iterator[Choices]:
    """What a model makes of each task, reading in its own order: backwards the ending comes first, forwards the context."""
    block_size = scorer.model.config.block_size
    for together in portions(tasks, lambda task: ENDINGS * (len(task.context) + len(task.endings[0])) // 4, scorer):
        prepared = [_sequences(task, tokenizer, order, block_size) for task in together]
        scores = scorer.score([([tokenizer.end_of_text], first + second) for parts, _ in prepared for first, second in parts])
        for task, (parts, cut) in zip(together, prepared, strict=True):
            logprobs = [np.split(next(scores), [len(first)]) for first, _ in parts]
            sizes = [[tokenizer.bytes_per_id[ids].sum() for ids in part] for part in parts]
            first, second = np.array([[part.sum() for part in pair] for pair in logprobs]).T
            first_bytes, second_bytes = np.array(sizes, float).T
            yield Choices(first, second, first_bytes, second_bytes, task.label, cut)


def _sequences(task: Task, tokenizer: Tokenizer, order: Order, block_size: int) -> tuple[list[tuple[list[int], list[int]]], bool]:
    """For each ending the ids of what is read first and second; of too long a context what is nearest to the ending."""
    backward = order == "backward"
    # The space between them goes with what is read second: no piece reaches over it, so the ids are those of the whole text.
    context = tokenizer.encode(arrange(f"{task.context} " if backward else task.context, order))
    endings = [tokenizer.encode(arrange(ending if backward else f" {ending}", order))[: block_size - 1] for ending in task.endings]
    room = block_size - max(map(len, endings))
    cut = len(context) > room
    kept = (context[:room] if backward else context[len(context) - room :]) if cut else context
    return [(ending, kept) if backward else (kept, ending) for ending in endings], cut


def judge_choices(subjects: Sequence[Subject], tasks: Sequence[Task], seed: int) -> Section:
    """How often the true ending is chosen: a control, for a backwards model cannot be asked as the published figures were."""
    section = Section("HellaSwag, a control", [subject.name for subject in subjects])
    found: list[list[Choices]] = []
    for subject in subjects:
        tokenizer, order = subject.checkpoint.tokenizer, subject.checkpoint.order
        choices = watched(score_tasks(subject.scorer, tokenizer, order, tasks), len(tasks), f"HellaSwag, {subject.name}")
        found.append(list(choices))
        if cut := sum(choice.cut for choice in found[-1]):
            section.notes.append(f"{subject.name}: {cut:,} contexts did not fit and lost what lies farthest from the ending.")
    if len(subjects) == 2:
        section.columns = [*section.columns, "difference"]
    for whole, what in ((False, "by the second part, given the first"), (True, "by the whole text")):
        for per_byte, how in ((False, "in total"), (True, "a byte")):
            right = [np.array([choices.is_right(whole, per_byte) for choices in all_choices], float) for all_choices in found]
            difference = [mean(right[0] - right[1], seed, "+.1%")] if len(right) == 2 else []
            section.rows[f"{what}, {how}"] = [*(mean(values, seed, ".1%") for values in right), *difference]
    error = math.sqrt(CHANCE * (1 - CHANCE) / len(tasks))
    section.notes += [
        f"{len(tasks):,} tasks; chance is {CHANCE:.0%}, with a standard error of {error:.2%} at chance.",
        "Backwards, the second part is the context and the first the ending: log P(context | ending). As the four contexts are one text, "
        "'a byte' must then choose as 'in total' does. Forwards it is the usual log P(ending | context).",
    ]
    return section
