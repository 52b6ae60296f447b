"""HellaSwag: tasks from files and from a hub, and scores against a plain forward pass of the model."""

import io
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from config import ModelConfig, Order
from evaluation.bootstrap import Estimate
from evaluation.evaluated_model import EvaluatedModel
from evaluation.hellaswag import ChoiceScores, HellaSwagTask, encode_task, measure_hellaswag, read_tasks, score_tasks
from model import GPT
from sampling.scoring import Scorer
from system.errors import UserError
from tests.preprocessing.hub_process import run_with_hub
from tests.preprocessing.hub_stand_in import HubStandIn, Trouble
from tokens.reversal import reorder
from tokens.tokenizer import Tokenizer

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


def test_a_row_is_prepared_as_in_lm_evaluation_harness(tmp_path: Path) -> None:
    [task] = read_tasks(write_rows(tmp_path / "a.jsonl", [ROW]), 0)
    assert task == HellaSwagTask("Roof removal: A man is sitting on a roof. He", CLEAN, 3)
    prepared: dict[str, object] = {"query": "Roof removal: A man. he", "endings": CLEAN, "label": 0}
    [task] = read_tasks(write_rows(tmp_path / "b.jsonl", [prepared]), 0)
    assert (task.context, task.label) == ("Roof removal: A man. he", 0)
    plain: dict[str, object] = {"ctx": "A man. he", "label": 1, "endings": CLEAN}
    [task] = read_tasks(write_rows(tmp_path / "plain.jsonl", [plain]), 0)
    assert task == HellaSwagTask("A man. he", CLEAN, 1)
    pyarrow.parquet.write_table(pa.Table.from_pylist([ROW] * 9), tmp_path / "c.parquet")
    assert len(read_tasks(str(tmp_path / "c.parquet"), 0)) == 9
    assert len(read_tasks(str(tmp_path / "c.parquet"), 4)) == 4


@pytest.mark.parametrize(
    ("rows", "part"),
    [
        ([], "no tasks in it"),
        ([{"text": "x"}], "a row is not a HellaSwag task"),
        ([{**ROW, "endings": ["a", "b"]}], "a task has 2 endings"),
        ([{**ROW, "label": "4"}], "the label 4"),
        ([{**ROW, "label": ""}], "a row is not a HellaSwag task"),
        ([{**ROW, "label": float("inf")}], "a row is not a HellaSwag task"),
        ([{"query": 5, "endings": CLEAN, "label": 0}], "a row is not a HellaSwag task"),
        ([{"query": "x \ud800", "endings": CLEAN, "label": 0}], "a row is not a HellaSwag task"),
        ([{**ROW, "endings": 5}], "a row is not a HellaSwag task"),
    ],
)
def test_a_row_that_is_not_a_task_is_refused(tmp_path: Path, rows: list[dict[str, object]], part: str) -> None:
    with pytest.raises(UserError, match=part):
        read_tasks(write_rows(tmp_path / "a.jsonl", rows), 0)


def test_tasks_come_from_the_hub_with_retries(tmp_path: Path) -> None:
    files: dict[str, bytes] = {}
    for shard in range(2):
        table = io.BytesIO()
        rows = [{**ROW, "label": str(number % 4)} for number in range(shard * 15, shard * 15 + 15)]
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), table)
        files[f"data/validation-0000{shard}-of-00002.parquet"] = table.getvalue()
    code = """
from evaluation.hellaswag import read_tasks
tasks = read_tasks('Rowan/hellaswag', 0)
print([task.label for task in tasks], tasks[1])
"""
    with HubStandIn("Rowan/hellaswag", files) as hub:
        hub.troubles = [Trouble("2.parquet", times=1, status=503)]
        result = run_with_hub(["-c", code], hub.url, tmp_path)
    assert result.returncode == 0, result.stderr
    task = HellaSwagTask("Roof removal: A man is sitting on a roof. He", CLEAN, 1)
    assert result.stdout.splitlines()[-1] == f"{[number % 4 for number in range(30)]} {task}"
    assert "Trying again in 1 s" in result.stdout


def test_an_unreachable_hub_is_one_error_that_names_the_flag(tmp_path: Path) -> None:
    code = """
from evaluation import hellaswag
hellaswag.RETRIES = 0
try:
    hellaswag.read_tasks('Rowan/hellaswag', 0)
except hellaswag.UserError as error:
    print(error)
"""
    result = run_with_hub(["-c", code], "http://127.0.0.1:9", tmp_path)
    assert result.returncode == 0, result.stderr
    message = result.stdout.splitlines()[-1]
    assert message.startswith("cannot reach Rowan/hellaswag on the hub: ")
    assert message.endswith(". Try again later, or name a file of tasks with --hellaswag")
    assert "--input" not in message and "Gave up" not in message


def test_invalid_json_is_refused_with_its_row(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(ROW) + '\n{"query": \n', encoding="utf-8")
    with pytest.raises(UserError, match=r"row 2: not JSON"):
        read_tasks(str(tmp_path / "a.jsonl"), 0)


@pytest.fixture(scope="module")
def model() -> GPT:
    """A model with random weights."""
    torch.manual_seed(0)
    model = GPT(ModelConfig(n_layer=2, n_head=2, n_embed=32, block_size=96, vocab_size=400)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


TASKS = [
    HellaSwagTask("the cat sleeps under a tree.", ["It runs.", "It is red and blue.", "a dog said.", "the house again"], 1),
    HellaSwagTask("a small old house in the", ["tree.", "tree of 42.", "naïve 日本", "x"], 0),
]


@given(st.text(max_size=30), st.text(min_size=1, max_size=20))
def test_the_two_parts_have_the_ids_of_the_whole_text(tokenizer: Tokenizer, context: str, ending: str) -> None:
    orders: tuple[Order, Order] = ("backward", "forward")
    context, ending = " ".join(context.split()), " ".join(ending.split())
    for order in orders:
        parts, cut = encode_task(HellaSwagTask(context, [ending], 0), tokenizer, order, 10_000)
        [(first, second)] = parts
        assert tokenizer.decode(first + second) == tokenizer.decode(tokenizer.encode(reorder(f"{context} {ending}", order)))
        assert first + second == tokenizer.encode(reorder(f"{context} {ending}", order))
        assert not cut


@pytest.mark.parametrize("order", ["backward", "forward"])
def test_scores_are_those_of_a_plain_forward_pass(model: GPT, tokenizer: Tokenizer, order: Order) -> None:
    for task, choices in zip(TASKS, score_tasks(Scorer(model, 3), tokenizer, order, TASKS), strict=True):
        for number, ending in enumerate(task.endings):
            ids = [tokenizer.end_of_text, *tokenizer.encode(reorder(f"{task.context} {ending}", order))]
            logprobs = model(torch.tensor([ids[:-1]])).detach()[0].log_softmax(-1)
            whole = sum(float(logprobs[position, id]) for position, id in enumerate(ids[1:]))
            assert choices.first[number] + choices.second[number] == pytest.approx(whole, abs=1e-3)
            first = ending if order == "backward" else task.context
            length = len(tokenizer.encode(reorder(first, order)))
            assert choices.first[number] == pytest.approx(sum(float(logprobs[at, ids[at + 1]]) for at in range(length)), abs=1e-3)
            assert choices.first_bytes[number] + 1 + choices.second_bytes[number] == len(f"{task.context} {ending}".encode())
        assert not choices.cut


def test_choices_by_hand() -> None:
    log = np.log
    choices = ChoiceScores(
        log([0.1, 0.2, 0.3, 0.4]), log([0.4, 0.3, 0.1, 0.1]), np.array([8.0, 1, 1, 1]), np.array([1.0, 1, 1, 1]), label=1, cut=False
    )
    right = [ChoiceScores(*choices[:4], label, False) for label in range(4)]
    assert [choices.is_right(whole=False, per_byte=False) for choices in right] == [True, False, False, False]  # 0.4
    assert [choices.is_right(whole=True, per_byte=False) for choices in right] == [False, True, False, False]  # 0.06
    assert [choices.is_right(whole=True, per_byte=True) for choices in right] == [True, False, False, False]  # log(0.04) / 9
    assert math.isclose(math.exp(choices.first[0]), 0.1)


@pytest.mark.parametrize("order", ["backward", "forward"])
def test_a_long_context_keeps_the_end_nearest_to_the_ending(model: GPT, tokenizer: Tokenizer, order: Order) -> None:
    long = HellaSwagTask(" ".join(map(str, range(200))), ["the end.", "a much longer ending, again and again.", "x", "word " * 300], 0)
    short = long._replace(endings=[*long.endings[:3], "y"])
    [choices] = score_tasks(Scorer(model, 3), tokenizer, order, [short])
    assert choices.cut and np.isfinite(choices.first + choices.second).all()
    parts, _ = encode_task(short, tokenizer, order, 96)
    contexts = {tuple(second if order == "backward" else first) for first, second in parts}
    assert len(contexts) == 1  # the same for every ending
    kept = reorder(tokenizer.decode(contexts.pop()), order).strip()
    assert long.context.endswith(kept) and kept.endswith("199")
    [choices] = score_tasks(Scorer(model, 3), tokenizer, order, [long])  # an ending longer than the context
    assert choices.cut and np.isfinite(choices.first + choices.second).all()


def test_seeds_have_their_mean_and_spread(bigram_model: EvaluatedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pairs of twins, which choose rightly in all, half, half and none of the tasks."""
    share = {"b0": 4, "b1": 2, "f0": 2, "f1": 0}

    def choose(model: EvaluatedModel, tasks: Sequence[HellaSwagTask]) -> Iterator[ChoiceScores]:
        zero = np.zeros(4)
        return (ChoiceScores(zero, np.array([place < share[model.name], 0.5, 0, 0]), zero, zero, 0, True) for place in range(4))

    monkeypatch.setattr("evaluation.hellaswag._choose", choose)
    models = [bigram_model._replace(name=name, kind=name[0], is_other=name[0] == "f") for name in share]
    section = measure_hellaswag(models, TASKS * 2, 0)
    values = {row: cells[0].value for row, cells in section.rows.items() if isinstance(cells[0], Estimate)}
    half = pytest.approx(0.5 / math.sqrt(2))
    assert values == {
        **{
            "b0": 1,
            "b1": 0.5,
            "f0": 0.5,
            "f1": 0,
            "b: mean of 2": 0.75,
            "b: spread of 2": half,
            "f: mean of 2": 0.25,
            "f: spread of 2": half,
        },
        **{"difference 1": 0.5, "difference 2": 0.5, "mean difference": 0.5, "spread of differences": 0},
    }
    assert section.notes[:2] == [f"{kind}: of 4 tasks the context was cut at the side away from the ending." for kind in "bf"]
