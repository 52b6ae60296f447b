"""Texts for a file of endings: every row once and in order, with its fields and a whole text."""

import json
from pathlib import Path
from unittest import mock

import pyarrow as pa
import pyarrow.parquet
import pytest

from tests.conftest import call_script, fails_with
from tests.sampling.conftest import JOB_FLAGS, rows_of


def flags_for(checkpoints: dict[str, Path], source: Path, output: Path) -> list[object]:
    return ["sample_xcoax.py", "--model-path", checkpoints["pretraining"], "--input", source, "--output", output, *JOB_FLAGS]


def test_every_row_keeps_its_fields_and_gets_a_text(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"ending": "They slept.", "id": 1},
        {"prompt": "The end.", "text": "not this", "id": 2},
        {"id": 3},
        {"text": " A night.", "id": 4},
        {"prompt": None, "ending": "", "id": 5},
    ]
    source, output = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{\n", encoding="utf-8")
    fails_with(call_script(*flags_for(checkpoints, source, output)), 1, "2 of 6 rows could not be used")
    found = rows_of(output)
    assert [row["row"] for row in found] == [1, 2, 3, 4, 5, 6]
    assert [index for index, row in enumerate(found) if "error" in row] == [2, 5]
    assert found[2]["error"] == "no text in prompt or ending or text"
    for row, given, ending in ((found[0], rows[0], "They slept."), (found[1], rows[1], "The end."), (found[3], rows[3], " A night.")):
        assert {**row, **given} == row
        assert row.keys() == {"row", *given, "cut", "generated_text", "logprob_per_token", "tokens", "complete"}
        assert row["generated_text"].endswith(ending) and len(row["generated_text"]) > len(ending)
        assert row["logprob_per_token"] < 0 < row["tokens"] <= 6
    again = tmp_path / "c.jsonl"
    fails_with(call_script(*flags_for(checkpoints, output, again)), 1, "2 of 6 rows could not be used")  # replaces what it added
    assert [row.keys() for row in rows_of(again)] == [row.keys() for row in found]


def test_several_texts_are_in_the_order_of_the_samples(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("They slept.\n\nThe end.\n", encoding="utf-8")
    flags = flags_for(checkpoints, tmp_path / "a.txt", tmp_path / "b.parquet")
    assert call_script(*flags, "--num-samples", 3).returncode == 0
    rows = rows_of(tmp_path / "b.parquet")
    assert [row["prompt"] for row in rows] == ["They slept.", "The end."]
    assert call_script(*flags_for(checkpoints, tmp_path / "a.txt", tmp_path / "c.jsonl")).returncode == 0
    for row, alone in zip(rows, rows_of(tmp_path / "c.jsonl"), strict=True):
        assert len(row["candidates"]) == 3
        assert row["candidates"][0]["generated_text"] == row["generated_text"] == alone["generated_text"]


@pytest.mark.parametrize("lines", [1, 3])
def test_a_stopped_job_resumes_to_the_same_rows(checkpoints: dict[str, Path], tmp_path: Path, lines: int) -> None:
    (tmp_path / "a.csv").write_text('id,prompt\n1,"The\nend."\n2,It rains.\n3,"They slept, all."\n', encoding="utf-16")
    flags = [*flags_for(checkpoints, tmp_path / "a.csv", tmp_path / "b.jsonl"), "--encoding", "utf-16"]
    assert call_script(*flags).returncode == 0
    rows = rows_of(tmp_path / "b.jsonl")
    assert [row["prompt"] for row in rows] == ["The\nend.", "It rains.", "They slept, all."]
    kept: list[bytes] = []
    with mock.patch("sampling.output_file.OutputFile._finish", lambda self: kept.append(self.unfinished.read_bytes())):
        assert call_script(*flags_for(checkpoints, tmp_path / "a.csv", tmp_path / "c.jsonl"), "--encoding", "utf-16").returncode == 0
    (tmp_path / "c.jsonl.unfinished").write_bytes(b"".join(kept[0].splitlines(keepends=True)[: 1 + lines]))
    flags = flags_for(checkpoints, tmp_path / "a.csv", tmp_path / "c.jsonl")
    fails_with(call_script(*flags, "--encoding", "utf-16-le"), 2, "other settings: encoding was 'utf-16', now 'utf-16-le'")
    fails_with(call_script(*flags), 2, "other settings: encoding was 'utf-16', now None")
    result = call_script(*flags, "--encoding", "utf-16")
    assert (result.returncode, f"{lines:,} rows are done" in result.stdout) == (0, True)
    assert rows_of(tmp_path / "c.jsonl") == rows


def test_what_cannot_be_done_is_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    fails_with(call_script("sample_xcoax.py", "--input", "x"), 2, "name the file to write with --output")
    fails_with(call_script("sample_xcoax.py", "--input", "x", "--output", "y", "--prompt", "z"), 2, "--prompt and --input: use only one")
    fails_with(call_script("sample_xcoax.py", "--prompt", "x", "--output", "y"), 2, "--output needs --input", "--format jsonl")
    pyarrow.parquet.write_table(pa.table({"story": ["x"]}), tmp_path / "a.parquet")
    refused = call_script(*flags_for(checkpoints, tmp_path / "a.parquet", tmp_path / "b.jsonl"))
    fails_with(refused, 1, "--input has the fields story; an ending is expected in prompt or ending or text")
    (tmp_path / "a.csv").write_text("story\nx\n")
    fails_with(call_script(*flags_for(checkpoints, tmp_path / "a.csv", tmp_path / "b.jsonl")), 1, "--input has the fields story")
