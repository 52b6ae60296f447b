"""Damaged files of jobs: each row of endings, responses, pairs, answers or tasks gets a result or an error; a job resumes or is refused."""

import json
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from config import SampleConfig, SampleInstructConfig
from evaluation.hellaswag import ENDINGS, HellaSwagTask, read_tasks
from formats.checkpoint import Checkpoint, load_checkpoint
from formats.tolerant_rows import Row
from model import GPT
from sampling.ending_files import texts_job
from sampling.engine import Engine, Request, TokenEvent
from sampling.file_jobs import Job, run_file_job
from sampling.generation import EndingPrompter, ResponsePrompter
from sampling.output_file import OUTPUT_ENDINGS, OutputFile
from sampling.pair_scores import pair_scores_job
from sampling.reranking import reranking_job
from sampling.response_files import instructions_job
from sampling.scoring import Scorer
from tests.faults.in_children import Start, counts, refused, try_each
from tests.faults.json_mutants import json_mutants
from tests.faults.mutants import byte_mutants, in_file, text_places
from tests.faults.trials import Outcome
from tests.sampling.conftest import rows_of
from tokens.prompt_format import PromptFormat

QUICK = 20
ANSWERS = {"instruction": "Say it.", "answers": ["It.", "é", "no"], "logprobs": [-1.5, -2, -3]}
CHAT = {"messages": [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": [{"type": "text", "text": "Hello."}]}]}
GIVEN: dict[str, list[Row]] = {
    "endings": [{"prompt": "The end.", "id": 1}, {"ending": "They slept."}, {"text": " naïve 日本", "row": 3}],
    "responses": [{"response": "It.", "id": 1, "list": [1, {}]}, {"output": "é", "generated_instruction": "x", "candidates": []}, CHAT],
    "pairs": [
        {"instruction": "Say it.", "input": "now", "output": "It."},
        CHAT,
        {"prompt": "Say", "chosen": [{"role": "assistant", "content": "é"}]},
    ],
    "answers": [ANSWERS, {**ANSWERS, "logprobs": None, "error": "x"}],
}


class OneToken(Engine):
    """Writes one token for each request: what is tried here is what is read."""

    def run(self, requests: Iterable[Request], params: Any, stop_ids: Any) -> Iterator[TokenEvent]:
        for number, request in enumerate(requests):
            assert all(0 <= id < self.model.config.vocab_size for id in request.prompt)
            yield from (TokenEvent(number, sample, 300, -1.0, "tokens") for sample in range(request.samples))


class OneScore(Scorer):
    """Gives each token the same score."""

    def score(self, sequences: Any) -> Iterator[Any]:
        for prompt, continuation in sequences:
            assert all(0 <= id < self.model.config.vocab_size for id in (*prompt, *continuation))
            yield np.full(len(continuation), -1.0)


def make_job(kind: str, source: str, checkpoint: Checkpoint, model: GPT) -> Job:
    prompt_format = PromptFormat(checkpoint.tokenizer, checkpoint.order)
    engine, scorer = OneToken(model, 4), OneScore(model, 4)
    if kind == "endings":
        prompter = EndingPrompter(checkpoint.tokenizer, checkpoint.order, model.config.block_size)
        return texts_job(SampleConfig(input=source, num_samples=2), engine, prompter)
    if kind == "responses":
        return instructions_job(SampleInstructConfig(input=source), engine, ResponsePrompter(prompt_format, model.config.block_size))
    return (pair_scores_job if kind == "pairs" else reranking_job)(source, scorer, prompt_format)


@pytest.mark.parametrize("kind", GIVEN)
@counts(QUICK)
def test_damaged_inputs_of_jobs(trials: Start, checkpoints: dict[str, Path], tmp_path: Path, kind: str, count: int) -> None:
    checkpoint = load_checkpoint(checkpoints["tuning"])
    model = checkpoint.make_model(torch.device("cpu"))
    source, output = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    lines = [json.dumps(row, ensure_ascii=False).encode() for row in GIVEN[kind]]
    sound: dict[bytes, Row] = {}  # what comes of each line

    def read(damaged: bytes) -> int:
        source.write_bytes(damaged)
        output.unlink(missing_ok=True)
        is_refused = refused(lambda: run_file_job(make_job(kind, str(source), checkpoint, model), checkpoint, model, str(output)))
        if output.is_file():  # with an error for each row that cannot be used
            results = rows_of(output)
            assert [row["row"] for row in results] == [*range(1, len(results) + 1)]
            given = [line for line in damaged.split(b"\n") if line.decode(errors="replace").strip()]
            assert len(results) == len(given)
            expected = [sound.get(line) for line in given]
            assert all(row == {**wanted, "row": row["row"]} for row, wanted in zip(results, expected, strict=True) if wanted)
            assert is_refused == any("error" in row for row in results)
            if not is_refused and sound and results != [*sound.values()]:
                return Outcome.CHANGED
        return is_refused

    content = b"\n".join([*lines, b""])
    assert not read(content), rows_of(output)
    sound.update(zip(lines, rows_of(output), strict=True))
    values = (
        in_file(json_mutants(row, count // 4 // len(lines), seed=number), lines[:number], lines[number + 1 :])
        for number, row in enumerate(GIVEN[kind])
    )
    try_each(trials("damage in a file of a job"), chain(byte_mutants(content, text_places(content), count // 4), *values), read)


@counts(QUICK)
def test_damaged_hellaswag_tasks(trials: Start, tmp_path: Path, count: int) -> None:
    path = tmp_path / "tasks.jsonl"
    endings = [f"he goes {place}." for place in ("home", "[title] away", "é", "日本")]
    rows: list[Row] = [
        {"activity_label": "Going", "ctx_a": "A man stands.", "ctx_b": "the man", "endings": endings, "label": "2"},
        {"query": "Going: A man stands.", "endings": endings, "label": 0},
    ]

    def read(damaged: bytes) -> int:
        path.write_bytes(damaged)

        found: list[HellaSwagTask] = []

        def use() -> None:
            tasks = read_tasks(str(path), 0)
            given = [line for line in damaged.split(b"\n") if line.decode(errors="replace").strip()]
            assert len(tasks) == len(given)
            assert all(task == sound.get(line, task) for task, line in zip(tasks, given, strict=True))
            found.extend(tasks)
            for task in tasks:
                assert len(task.endings) == ENDINGS
                assert 0 <= task.label < ENDINGS
                assert all(isinstance(text, str) and text.encode() is not None for text in (task.context, *task.endings))

        if refused(use):
            return Outcome.REFUSED
        return Outcome.CHANGED if sound and found != [*sound.values()] else Outcome.RIGHT

    lines = [json.dumps(row).encode() for row in rows]
    sound: dict[bytes, HellaSwagTask] = {}  # what each line says
    content = b"\n".join([*lines, b""])
    assert not read(content)
    sound.update(zip(lines, read_tasks(str(path), 0), strict=True))
    assert [task.label for task in sound.values()] == [2, 0]
    kind = trials("damage in a file of HellaSwag tasks")
    values = chain.from_iterable(json_mutants(row, count // 4) for row in rows)
    try_each(kind, chain(byte_mutants(content, text_places(content), count // 2), values), read)


SETTINGS: Row = {"seed": 1, "source": "a.txt (10 bytes)", "temperature": 0.8, "nothing": None, "samples": 2}
ROWS: list[Row] = [{"row": index, "text": f'é\n日本 \u0001 "{index}"', "score": -1.5, "list": [index, None]} for index in range(1, 5)]
ROWS[1] = {"row": 2, "error": "bad"}


def interrupted(done: int) -> Any:
    """All rows but the last."""
    yield from ROWS[done:-1]
    raise KeyboardInterrupt


@pytest.mark.parametrize("ending", OUTPUT_ENDINGS)
@counts(QUICK)
def test_damaged_unfinished_outputs(trials: Start, tmp_path: Path, ending: str, count: int) -> None:
    path = tmp_path / f"a{ending}"
    with pytest.raises(KeyboardInterrupt):
        OutputFile(path, SETTINGS).write(interrupted)
    unfinished = tmp_path / f"a{ending}.unfinished"

    def read(damaged: bytes) -> int:
        unfinished.write_bytes(damaged)
        path.unlink(missing_ok=True)
        is_refused = refused(lambda: OutputFile(path, SETTINGS).write(lambda done: ROWS[done:]), unfinished)
        assert is_refused != path.exists()
        if not is_refused:
            found = [{name: value for name, value in row.items() if value is not None} for row in rows_of(path)]
            intact = {*damaged.split(b"\n")[:-1]}
            assert [row["row"] for row in found] == [row["row"] for row in ROWS]
            assert all(row == given for row, given, line in zip(found, ROWS, [*rest, None], strict=True) if line is None or line in intact)
            assert not unfinished.exists()
            return Outcome.RIGHT if found == ROWS else Outcome.CHANGED
        return Outcome.REFUSED

    content = unfinished.read_bytes()
    first, *rest = content.splitlines()
    assert read(content) == Outcome.RIGHT
    kind = trials("damage in an unfinished output")
    of_settings = in_file(json_mutants(SETTINGS, count // 4), [], rest)
    of_rows = in_file(json_mutants(ROWS[0], count // 4), [first], rest[1:])
    try_each(kind, chain(byte_mutants(content, text_places(content), count // 2), of_settings, of_rows), read)
