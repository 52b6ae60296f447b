"""Instructions for a file of responses: every row once and in order, with its other fields."""

import json
from pathlib import Path
from unittest import mock

import pyarrow as pa
import pyarrow.parquet
import pytest

from formats.pairs import Pair, pair_from_row
from system.errors import UserError
from tests.conftest import call_script, fails_with
from tests.sampling.conftest import rows_of, run_job, score_command


def test_every_row_has_its_result_in_order(instructions: Path, responses: Path) -> None:
    rows = rows_of(instructions)
    assert len(rows) == 40
    assert [index for index, row in enumerate(rows) if "error" in row] == [2, 7, 8, 39]
    assert "not JSON" in rows[2]["error"]
    assert "an empty response" in rows[7]["error"]
    assert "no text in output or response or completion or answer or text" in rows[8]["error"]
    assert "a JSON list" in rows[39]["error"]
    given = [json.loads(line) for line in responses.read_text(encoding="utf-8").splitlines()[9:39]]
    for row, response in zip(rows[9:39], given, strict=True):
        assert {**row, **response} == row
        assert row.keys() == {"row", "response", "id", "cut", "generated_instruction", "logprob_per_token", "tokens", "complete"}
        assert 0 < row["tokens"] <= 6
        assert row["logprob_per_token"] < 0


def test_a_result_keeps_every_field_of_its_row(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"instruction": "old", "input": "old", "output": "", "response": "It rains.", "context": "c", "id": 1},
        {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "It snows."}], "id": 2},
        {"text": "The cat sleeps. ", "prompt": "p", "id": 3},
        {"output": " The dog runs.", "id": 4, "weight": float("nan")},
        {"response": " ", "instruction": "kept", "id": 5},
        {"response": "lone \ud800 surrogate", "id": 6},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "{not JSON\n", encoding="utf-8")
    fails_with(run_job(checkpoints, tmp_path / "a.jsonl", tmp_path / "b.jsonl"), 1, "3 of 7 rows could not be used")
    text = (tmp_path / "b.jsonl").read_text(encoding="utf-8")
    assert "NaN" not in text
    found = [json.loads(line) for line in text.splitlines()]
    assert [row["row"] for row in found] == [1, 2, 3, 4, 5, 6, 7]
    for row, given in zip(found[:3], rows[:3], strict=True):
        assert {**row, **given} == row
        assert row["generated_instruction"] != given.get("instruction")
    assert [row.get("response") for row in found[:4]] == ["It rains.", "It snows.", "The cat sleeps.", None]
    assert (found[3]["output"], found[3]["weight"]) == (" The dog runs.", None)
    assert (found[4]["instruction"], found[4]["response"]) == ("kept", " ")
    assert [row["error"].partition(":")[0] for row in found[4:]] == ["an empty response", "invalid UTF-8", "not JSON"]
    times = pa.table({"response": ["It rains."], "when": pa.array([0], pa.timestamp("us"))})
    pyarrow.parquet.write_table(times, tmp_path / "c.parquet")
    assert run_job(checkpoints, tmp_path / "c.parquet", tmp_path / "d.jsonl").returncode == 0
    assert rows_of(tmp_path / "d.jsonl")[0]["when"] == "1970-01-01 00:00:00"


def test_a_result_is_a_pair_with_the_generated_instruction(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    rows = [{"text": "It rains."}, {"instruction": "old", "input": "of old", "output": "It snows."}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert run_job(checkpoints, tmp_path / "a.jsonl", tmp_path / "b.jsonl").returncode == 0
    for row, response in zip(rows_of(tmp_path / "b.jsonl"), ("It rains.", "It snows."), strict=True):
        assert pair_from_row({**row, "generated_instruction": "new"}) == Pair("new", response)


def test_candidates_are_sorted_best_first(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("The cat is sleeping.\nIt rains.\n", encoding="utf-8")
    assert run_job(checkpoints, tmp_path / "a.txt", tmp_path / "b.jsonl", "--num-samples", 6).returncode == 0
    for row in rows_of(tmp_path / "b.jsonl"):
        scores = [candidate["logprob_per_token"] for candidate in row["candidates"]]
        assert len(scores) == 6
        assert scores == sorted(scores, reverse=True)
        assert (row["generated_instruction"], row["logprob_per_token"]) == (row["candidates"][0]["generated_instruction"], scores[0])


def test_scores_in_one_pass_are_those_of_two(checkpoints: dict[str, Path], responses: Path, instructions: Path, tmp_path: Path) -> None:
    fails_with(run_job(checkpoints, responses, tmp_path / "one.jsonl", "--with-scores"), 1, "5 of 40 rows could not be used")
    command = score_command(checkpoints, "--pairs", instructions, tmp_path / "two.jsonl", "--batch-size", 4)
    fails_with(call_script(*command), 1, "5 of 40 rows could not be used")  # for one the instruction is empty
    one, two = rows_of(tmp_path / "one.jsonl"), rows_of(tmp_path / "two.jsonl")
    assert sum("logprob_gain" in row for row in one) == 35
    for row, expected in zip(one, two, strict=True):
        assert row.keys() == expected.keys()
        for name, value in expected.items():
            assert row[name] == (pytest.approx(value, abs=2e-4) if isinstance(value, float) else value)


def test_a_run_with_scores_is_not_resumed_without(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("It rains.\n", encoding="utf-8")
    (tmp_path / "b.jsonl.unfinished").touch()
    with mock.patch("sampling.output_file.OutputFile._finish", side_effect=UserError("stopped")):
        fails_with(run_job(checkpoints, tmp_path / "a.txt", tmp_path / "b.jsonl", "--with-scores"), 1, "stopped")
    fails_with(run_job(checkpoints, tmp_path / "a.txt", tmp_path / "b.jsonl"), 2, "work was 'instructions with scores'")
    fails_with(call_script("sample_xcoax_instruct.py", "--with-scores"), 2, "--with-scores: only with --input")


def test_a_table_of_responses_is_read(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('id\tresponse\n1\t"It\nrains."\n2\n', encoding="utf-8")
    fails_with(run_job(checkpoints, tmp_path / "a.tsv", tmp_path / "b.jsonl"), 1, "1 of 2 rows could not be used")
    first, second = rows_of(tmp_path / "b.jsonl")
    assert (first["id"], first["response"], bool(first["generated_instruction"])) == ("1", "It\nrains.", True)
    assert second["error"] == "not a row of the table: line 4: 1 cell, but the header has 2"
    command = score_command(checkpoints, "--pairs", tmp_path / "a.tsv", tmp_path / "c.jsonl")
    fails_with(call_script(*command), 2, "a.tsv has the fields id, response. A pair needs")
    (tmp_path / "d.csv").write_text('instruction,output\n"Say, ""it"".",It.\n', encoding="cp1252")
    assert call_script(*score_command(checkpoints, "--pairs", tmp_path / "d.csv", tmp_path / "e.jsonl")).returncode == 0
    assert rows_of(tmp_path / "e.jsonl")[0]["instruction"] == 'Say, "it".'
    fails_with(
        call_script(*score_command(checkpoints, "--rerank", tmp_path / "d.csv", tmp_path / "f.jsonl")), 2, "a cell of a table holds no"
    )
