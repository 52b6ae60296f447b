"""Reverse reward: answers sorted by what scoring them pair by pair gives, each row whole, and bad rows explained."""

import itertools
import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from formats.checkpoint import load_checkpoint
from formats.tolerant_rows import Row
from sampling.reranking import rerank
from sampling.scoring import Scorer
from tests.conftest import ROOT, call_script, fails_with, make_pairs, write_pairs
from tests.sampling.conftest import rows_of, score_command
from tokens.prompt_format import PromptFormat
from tokens.reversal import reorder

Parts = tuple[Scorer, PromptFormat]

ANSWER = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip)
ROW = st.lists(ANSWER, min_size=1, max_size=5).flatmap(
    lambda answers: st.fixed_dictionaries(
        {"instruction": st.sampled_from(["Say it.", "What is red?"]), "answers": st.just(answers), "id": st.integers()},
        optional={"logprobs": st.lists(st.floats(-100, 0), min_size=len(answers), max_size=len(answers))},
    )
)


@pytest.fixture(scope="module")
def parts(checkpoints: dict[str, Path]) -> Parts:
    """A small random model, and its prompt format."""
    checkpoint = load_checkpoint(checkpoints["tuning"])
    return Scorer(checkpoint.make_model(torch.device("cpu")), 4), PromptFormat(checkpoint.tokenizer, checkpoint.order)


def reranked(parts: Parts, *rows: Any) -> list[Row]:
    """The results for rows, as they come from a file."""
    return list(rerank(*parts, iter(json.loads(json.dumps(rows)))))


@settings(max_examples=40)
@given(rows=st.lists(ROW, max_size=4))
def test_answers_are_sorted_and_nothing_is_lost(parts: Parts, rows: list[dict[str, Any]]) -> None:
    found = list(rerank(*parts, iter(rows), done=10))
    assert [row["row"] for row in found] == list(range(11, 11 + len(rows)))
    for row, read in zip(found, rows, strict=True):
        order = row["order"]
        assert sorted(order) == list(range(len(read["answers"])))
        assert row["scores"] == sorted(row["scores"], reverse=True)
        for name in {"answers", "logprobs"} & read.keys():
            assert row[name] == [read[name][index] for index in order]
        assert all(order[place] < order[place + 1] for place in range(len(order) - 1) if row["scores"][place] == row["scores"][place + 1])
        assert row["cut"] == [False] * len(order)
        assert row.keys() == {"row", *read, "scores", "cut", "order"}
        assert {name: row[name] for name in ("instruction", "id")} == {name: read[name] for name in ("instruction", "id")}


def test_the_scores_are_those_of_pairs(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """Through the script, with other spellings, from and to Parquet."""
    pairs = make_pairs(24, seed=1)
    rows = [
        {
            "prompt": asked["instruction"],
            "context": asked["input"],
            "answers": [f" {pair['output']}\r\n" for pair in pairs[start : start + 4]],
        }
        for start, asked in zip(range(0, 24, 4), pairs, strict=False)
    ]
    flat = [{"instruction": row["prompt"], "input": row["context"], "output": answer} for row in rows for answer in row["answers"]]
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "answers.parquet")
    write_pairs(tmp_path / "pairs.jsonl", flat)
    for command in (
        score_command(checkpoints, "--rerank", tmp_path / "answers.parquet", tmp_path / "best.parquet"),
        score_command(checkpoints, "--pairs", tmp_path / "pairs.jsonl", tmp_path / "scored.jsonl"),
    ):
        result = call_script(*command)
        assert result.returncode == 0, result.stderr
    single = [row["logprob_per_token"] for row in rows_of(tmp_path / "scored.jsonl")]
    assert len(set(single)) > 20
    best = rows_of(tmp_path / "best.parquet")
    assert any(row["order"] != [0, 1, 2, 3] for row in best)
    for number, (row, read) in enumerate(zip(best, rows, strict=True)):
        expected = single[4 * number : 4 * number + 4]
        assert row["scores"] == pytest.approx([expected[index] for index in row["order"]], abs=3e-5)
        assert row["scores"] == sorted(row["scores"], reverse=True)
        assert row["answers"] == [read["answers"][index] for index in row["order"]]


def test_forward_log_probabilities_are_added_by_the_token_of_the_whole_answer(parts: Parts) -> None:
    _, prompt_format = parts
    answers = ["It is red.", "7 " * 900, " It was a small old tree. "]
    tokens = [len(prompt_format.tokenizer.encode(reorder(answer.strip(), "backward"))) for answer in answers]
    assert tokens[1] > 900 and len(set(tokens)) == 3
    row: dict[str, Any] = {"instruction": "What is red?", "answers": answers}
    alone, null, with_forward = reranked(parts, row, {**row, "logprobs": None}, {**row, "logprobs": [-30, -2000.5, -1]})
    scores = dict(zip(alone["order"], alone["scores"], strict=True))
    assert dict(zip(null["order"], null["scores"], strict=True)) == pytest.approx(scores, abs=2e-5)
    assert null["logprobs"] is None and "logprobs" not in alone
    expected = {index: scores[index] + logprob / tokens[index] for index, logprob in enumerate([-30, -2000.5, -1])}
    assert dict(zip(with_forward["order"], with_forward["scores"], strict=True)) == pytest.approx(expected, abs=3e-5)
    assert [with_forward["cut"][place] for place in map(with_forward["order"].index, range(3))] == [False, True, False]
    assert with_forward["logprobs"] == [[-30, -2000.5, -1][index] for index in with_forward["order"]]


def test_equal_answers_keep_their_order(parts: Parts) -> None:
    """They differ in white space around them, which does not count; each stays as it is in the row."""
    answers = ["It is red.", " It is red.", "It is red.\r\n", "The cat sleeps under a tree.", "It is red. "] * 3
    [row] = reranked(parts, {"instruction": "What is red?", "answers": answers})
    assert [index for index in row["order"] if index % 5 != 3] == [index for index in range(15) if index % 5 != 3]
    assert row["answers"] == [answers[index] for index in row["order"]]
    assert len(set(row["scores"])) == 2


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({"answers": ["x"]}, "no instruction in instruction or prompt"),
        ({"instruction": " ", "answers": ["x"]}, "empty instruction"),
        ({"instruction": 3, "answers": ["x"]}, "not text"),
        ({"instruction": "a " * 900, "answers": ["x", "y"]}, "tokens, too many for a context of 512 with its response"),
        ({"instruction": "x"}, "no list of texts in answers"),
        ({"instruction": "x", "answers": "y"}, "no list of texts in answers"),
        ({"instruction": "x", "answers": []}, "no text in answers: the list is empty"),
        ({"instruction": "x", "answers": ["y", 3]}, "answer 2 of 2 is not text"),
        ({"instruction": "x", "answers": ["y", None]}, "answer 2 of 2 is not text"),
        ({"instruction": "x", "answers": ["y", " \n"], "output": "z"}, "answer 2 of 2 is empty"),
        ({"instruction": "x", "answers": ["y", "\ud800"]}, "answer 2 of 2 is invalid UTF-8"),
        ({"instruction": "x", "answers": ["y"], "logprobs": []}, "logprobs has 0 numbers for 1 answers"),
        ({"instruction": "x", "answers": ["y"], "logprobs": -3.0}, "logprobs has no list for 1 answers"),
        ({"instruction": "x", "answers": ["y", "z"], "logprobs": [-1, math.nan]}, "number 2 of logprobs is not a finite number"),
        ({"instruction": "x", "answers": ["y"], "logprobs": [-math.inf]}, "number 1 of logprobs is not a finite number"),
        ({"instruction": "x", "answers": ["y"], "logprobs": [-(10**400)]}, "number 1 of logprobs is not a finite number"),
        ({"instruction": "x", "answers": ["y"], "logprobs": ["-3"]}, "number 1 of logprobs is not a finite number"),
        ({"instruction": "x", "answers": ["y"], "logprobs": [True]}, "number 1 of logprobs is not a finite number"),
        ({"instruction": "x", "answers": ["y"], "logprobs": [None]}, "number 1 of logprobs is not a finite number"),
        ("not JSON", "not JSON"),
        ({"answers": [], "error": "of the job before"}, "of the job before"),
    ],
)
def test_a_bad_row_says_why_and_the_others_go_on(parts: Parts, row: Any, error: str) -> None:
    good = {"instruction": "Say it.", "answers": ["It.", "No."]}
    first, bad, last = reranked(parts, good, row, good)
    assert error in bad["error"]
    assert "scores" not in bad and bad["row"] == 2
    assert isinstance(row, str) or bad.get("answers") == row.get("answers")  # as they were
    assert "error" not in first and "error" not in last
    assert (first["scores"], first["order"]) == (pytest.approx(last["scores"], abs=2e-5), last["order"])


def test_bad_rows_fail_the_run_at_its_end_and_a_table_without_answers_at_once(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"instruction": "Say it.", "answers": ["It.", "No."]}\n{bad\n{"instruction": "x"}\n')
    fails_with(call_script(*score_command(checkpoints, "--rerank", tmp_path / "a.jsonl", tmp_path / "b.jsonl")), 1, "2 of 3 rows")
    assert ["error" in row for row in rows_of(tmp_path / "b.jsonl")] == [False, True, True]
    pyarrow.parquet.write_table(pa.table({"instruction": ["x"], "response": ["y"]}), tmp_path / "c.parquet")
    result = call_script(*score_command(checkpoints, "--rerank", tmp_path / "c.parquet", tmp_path / "d.jsonl"))
    fails_with(result, 2, "c.parquet has the fields instruction, response. It needs instruction or prompt or question, and answers")


def test_many_rows_are_scored_together_and_a_long_list_needs_no_second_pass(parts: Parts) -> None:
    scorer, prompt_format = parts
    rows = [{"instruction": "Say it.", "answers": ["It.", "No.", "Yes."]}] * 20
    rows += [{"instruction": "Say it.", "answers": ["It."] * 700}, {"instruction": "Say it.", "answers": ["It."]}]
    with mock.patch.object(Scorer, "score", autospec=True, side_effect=Scorer.score) as score:
        found = list(rerank(scorer, prompt_format, iter(rows)))
    assert [len(call.args[1]) for call in score.call_args_list] == [760, 1]
    assert [len(row["scores"]) for row in found] == [3] * 20 + [700, 1]


def test_a_killed_run_resumes_with_the_same_rows(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    pairs = make_pairs(400)
    rows = [{"instruction": one["instruction"], "answers": [two["output"], one["output"]]} for one, two in itertools.pairwise(pairs)]
    source = write_pairs(tmp_path / "answers.jsonl", rows)
    whole, best = (
        score_command(checkpoints, "--rerank", source, tmp_path / name, "--dtype", "float32") for name in ("whole.jsonl", "best.jsonl")
    )
    assert call_script(*whole).returncode == 0
    command, unfinished = best, tmp_path / "best.jsonl.unfinished"
    process = subprocess.Popen([sys.executable, str(ROOT / command[0]), *command[1:]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and (not unfinished.exists() or unfinished.read_bytes().count(b"\n") < 100):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert unfinished.exists(), "the run was over before it could be killed"
    with unfinished.open("ab") as file:
        file.write(b'{"cut off in the mid')
    result = call_script(*command)
    assert result.returncode == 0, result.stderr
    assert "resuming " in result.stdout and "399 rows" in result.stdout
    for resumed, expected in zip(rows_of(tmp_path / "best.jsonl"), rows_of(tmp_path / "whole.jsonl"), strict=True):
        assert resumed.pop("scores") == pytest.approx(expected.pop("scores"), abs=2e-5)  # a batch is rounded as a whole
        assert resumed == expected
