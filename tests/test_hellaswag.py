"""HellaSwag: tasks out of files and from a hub, and choices against a plain pass over the model."""

import io
import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from config import ModelConfig
from errors import UserError
from hellaswag import Choices, Task, _sequences, read_tasks, score_tasks
from model import GPT
from scoring import Scorer
from tests.hub_stand_in import HubStandIn, Trouble
from tests.test_hub import run
from text import Order, arrange
from tokenizer import Tokenizer

ROW = {
    "ind": 24,
    "activity_label": "Roof removal",
    "ctx_a": "A man is sitting on a roof.",
    "ctx_b": "he",
    "ctx": "A man is sitting on a roof. he",
    "endings": ["[step] is using wrap.", "is ripping tiles [title] Tools off.", "is  holding a cube.", "starts pulling up roofing."],
    "label": "3",
}
CLEAN = ["is using wrap.", "is ripping tiles. Tools off.", "is holding a cube.", "starts pulling up roofing."]


def write_rows(path: Path, rows: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_a_row_is_read_as_the_field_reads_it(tmp_path: Path) -> None:
    [task] = read_tasks(write_rows(tmp_path / "a.jsonl", [ROW]), 0)
    assert task == Task("Roof removal: A man is sitting on a roof. He", CLEAN, 3)
    prepared: dict[str, object] = {"query": "Roof removal: A man. he", "endings": CLEAN, "label": 0}
    [task] = read_tasks(write_rows(tmp_path / "b.jsonl", [prepared]), 0)
    assert (task.context, task.label) == ("Roof removal: A man. he", 0)
    pyarrow.parquet.write_table(pa.Table.from_pylist([ROW] * 9), tmp_path / "c.parquet")
    assert len(read_tasks(str(tmp_path / "c.parquet"), 0)) == 9
    assert len(read_tasks(str(tmp_path / "c.parquet"), 4)) == 4


@pytest.mark.parametrize(
    ("rows", "part"),
    [
        ([], "no task in it"),
        ([{"text": "x"}], "a row that is no task of HellaSwag"),
        ([{**ROW, "endings": ["a", "b"]}], "a task with 2 endings"),
        ([{**ROW, "label": "4"}], "the label 4"),
        ([{**ROW, "label": ""}], "a row that is no task of HellaSwag"),
        ([{**ROW, "label": float("inf")}], "a row that is no task of HellaSwag"),
        ([{"query": 5, "endings": CLEAN, "label": 0}], "a row that is no task of HellaSwag"),
        ([{"query": "x \ud800", "endings": CLEAN, "label": 0}], "a row that is no task of HellaSwag"),
        ([{**ROW, "endings": 5}], "a row that is no task of HellaSwag"),
    ],
)
def test_what_is_no_task_is_named(tmp_path: Path, rows: list[dict[str, object]], part: str) -> None:
    with pytest.raises(UserError, match=part):
        read_tasks(write_rows(tmp_path / "a.jsonl", rows), 0)


def test_tasks_come_from_the_hub(tmp_path: Path) -> None:
    table = io.BytesIO()
    pyarrow.parquet.write_table(pa.Table.from_pylist([{**ROW, "label": str(number % 4)} for number in range(30)]), table)
    code = "from hellaswag import read_tasks; tasks = read_tasks('Rowan/hellaswag', 0); print(len(tasks), tasks[1])"
    with HubStandIn("Rowan/hellaswag", {"data/validation-00000-of-00001.parquet": table.getvalue()}) as hub:
        hub.troubles = [Trouble(".parquet", times=1, status=503)]
        result = run(["-c", code], hub.url, tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == f"30 {Task('Roof removal: A man is sitting on a roof. He', CLEAN, 1)}"
    assert "Trying again in 1 s" in result.stdout


def test_a_hub_that_is_not_there_leaves_them_out(checkpoints: dict[str, Path], dataset_folder: Path, tmp_path: Path) -> None:
    flags = ["--model-path", checkpoints["pretraining"], "--data-dir", dataset_folder, "--documents", 3, "--out-dir", tmp_path / "card"]
    result = run(["evaluate_xcoax.py", *map(str, flags)], "http://127.0.0.1:9", tmp_path)
    assert result.returncode == 0, result.stderr
    assert "Left out: cannot reach Rowan/hellaswag on the hub" in result.stdout
    assert "name a file of tasks with --hellaswag" in " ".join(result.stdout.split())


def test_broken_json_is_named_with_its_row(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(ROW) + '\n{"query": \n', encoding="utf-8")
    with pytest.raises(UserError, match=r"row 2: not JSON"):
        read_tasks(str(tmp_path / "a.jsonl"), 0)


@pytest.fixture(scope="module")
def tokenizer(dataset_folder: Path) -> Tokenizer:
    return Tokenizer.load(dataset_folder)


@pytest.fixture(scope="module")
def model() -> GPT:
    torch.manual_seed(0)
    model = GPT(ModelConfig(n_layer=2, n_head=2, n_embed=32, block_size=96, vocab_size=400)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


TASKS = [
    Task("the cat sleeps under a tree.", ["It runs.", "It is red and blue.", "a dog said.", "the house again"], 1),
    Task("a small old house in the", ["tree.", "tree of 42.", "naïve 日本", "x"], 0),
]


@given(st.text(max_size=30), st.text(min_size=1, max_size=20))
def test_the_two_parts_are_the_ids_of_the_whole_text(tokenizer: Tokenizer, context: str, ending: str) -> None:
    orders: tuple[Order, Order] = ("backward", "forward")
    context, ending = " ".join(context.split()), " ".join(ending.split())
    for order in orders:
        parts, cut = _sequences(Task(context, [ending], 0), tokenizer, order, 10_000)
        [(first, second)] = parts
        assert tokenizer.decode(first + second) == tokenizer.decode(tokenizer.encode(arrange(f"{context} {ending}", order)))
        assert first + second == tokenizer.encode(arrange(f"{context} {ending}", order))
        assert not cut


@pytest.mark.parametrize("order", ["backward", "forward"])
def test_choices_are_the_models(model: GPT, tokenizer: Tokenizer, order: Order) -> None:
    for task, choices in zip(TASKS, score_tasks(Scorer(model, 3), tokenizer, order, TASKS), strict=True):
        for number, ending in enumerate(task.endings):
            ids = [tokenizer.end_of_text, *tokenizer.encode(arrange(f"{task.context} {ending}", order))]
            logprobs = model(torch.tensor([ids[:-1]])).detach()[0].log_softmax(-1)
            whole = sum(float(logprobs[place, id]) for place, id in enumerate(ids[1:]))
            assert choices.first[number] + choices.second[number] == pytest.approx(whole, abs=1e-3)
            first = ending if order == "backward" else task.context
            length = len(tokenizer.encode(arrange(first, order)))
            assert choices.first[number] == pytest.approx(sum(float(logprobs[place, ids[place + 1]]) for place in range(length)), abs=1e-3)
            assert choices.first_bytes[number] + choices.second_bytes[number] == len(f"{task.context} {ending}".encode())
        assert not choices.cut


def test_choosing_by_hand() -> None:
    log = np.log
    choices = Choices(
        log([0.1, 0.2, 0.3, 0.4]), log([0.4, 0.3, 0.1, 0.1]), np.array([8.0, 1, 1, 1]), np.array([1.0, 1, 1, 1]), label=1, cut=False
    )
    right = [Choices(*choices[:4], label, False) for label in range(4)]
    assert [choices.is_right(whole=False, per_byte=False) for choices in right] == [True, False, False, False]  # 0.4
    assert [choices.is_right(whole=True, per_byte=False) for choices in right] == [False, True, False, False]  # 0.06
    assert [choices.is_right(whole=True, per_byte=True) for choices in right] == [True, False, False, False]  # log(0.04) / 9
    assert math.isclose(math.exp(choices.first[0]), 0.1)


@pytest.mark.parametrize("order", ["backward", "forward"])
def test_too_long_a_context_keeps_what_is_nearest_the_ending(model: GPT, tokenizer: Tokenizer, order: Order) -> None:
    long = Task(" ".join(map(str, range(200))), ["the end.", "a much longer ending, again and again.", "x", "word " * 300], 0)
    short = long._replace(endings=[*long.endings[:3], "y"])
    [choices] = score_tasks(Scorer(model, 3), tokenizer, order, [short])
    assert choices.cut and np.isfinite(choices.first + choices.second).all()
    parts, _ = _sequences(short, tokenizer, order, 96)
    contexts = {tuple(second if order == "backward" else first) for first, second in parts}
    assert len(contexts) == 1  # the same for every ending
    kept = arrange(tokenizer.decode(contexts.pop()), order).strip()
    assert long.context.endswith(kept) and kept.endswith("199")
    [choices] = score_tasks(Scorer(model, 3), tokenizer, order, [long])  # an ending longer than the context
    assert choices.cut and np.isfinite(choices.first + choices.second).all()
