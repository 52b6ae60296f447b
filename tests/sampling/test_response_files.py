"""Instructions for a file of responses: every row once and in order, with its other fields."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from tests.sampling.conftest import rows_of, run_job


def test_every_row_has_its_result_in_order(instructions: Path, responses: Path) -> None:
    rows = rows_of(instructions)
    assert len(rows) == 40
    assert [index for index, row in enumerate(rows) if "error" in row] == [2, 7, 8, 39]
    assert "not JSON" in rows[2]["error"]
    assert "an empty response" in rows[7]["error"]
    assert "no text in output or response or completion or text" in rows[8]["error"]
    assert "a JSON list" in rows[39]["error"]
    given = [json.loads(line) for line in responses.read_text(encoding="utf-8").splitlines()[9:39]]
    for row, response in zip(rows[9:39], given, strict=True):
        assert {**row, **response} == row
        assert row.keys() == {"response", "id", "cut", "instruction", "logprob_per_token", "tokens", "complete"}
        assert 0 < row["tokens"] <= 6
        assert row["logprob_per_token"] < 0


def test_a_result_keeps_the_other_fields_of_its_row(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    rows = [
        {"instruction": "old", "input": "old", "output": "", "response": "It rains.", "error": None, "candidates": [1], "id": 1},
        {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "It snows."}], "id": 2},
        {"text": "The cat sleeps.", "error": "of an earlier run", "id": 3},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert run_job(checkpoints, tmp_path / "a.jsonl", tmp_path / "b.parquet").returncode == 0
    found = rows_of(tmp_path / "b.parquet")
    assert [(row["response"], row["id"]) for row in found] == [("It rains.", 1), ("It snows.", 2), ("The cat sleeps.", 3)]
    assert found[0].keys() == {"id", "response", "cut", "instruction", "logprob_per_token", "tokens", "complete"}
    assert "old" not in found[0]["instruction"]
    times = pa.table({"response": ["It rains."], "when": pa.array([0], pa.timestamp("us"))})
    pyarrow.parquet.write_table(times, tmp_path / "c.parquet")
    assert run_job(checkpoints, tmp_path / "c.parquet", tmp_path / "d.jsonl").returncode == 0
    assert rows_of(tmp_path / "d.jsonl")[0]["when"] == "1970-01-01 00:00:00"


def test_candidates_are_sorted_best_first(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("The cat is sleeping.\nIt rains.\n", encoding="utf-8")
    assert run_job(checkpoints, tmp_path / "a.txt", tmp_path / "b.jsonl", "--num-samples", 6).returncode == 0
    for row in rows_of(tmp_path / "b.jsonl"):
        scores = [candidate["logprob_per_token"] for candidate in row["candidates"]]
        assert len(scores) == 6
        assert scores == sorted(scores, reverse=True)
        assert (row["instruction"], row["logprob_per_token"]) == (row["candidates"][0]["instruction"], scores[0])
