"""Jobs over files: they survive kills and a full disk, read and write every format, and explain what they refuse."""

import gzip
import json
import random
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import pyarrow as pa
import pyarrow.parquet

from formats.pairs import response_from_row
from sampling.scoring import Scorer
from tests.conftest import ROOT, call_script, fails_with, file_size_limit, make_pairs, write_pairs
from tests.sampling.conftest import job_command, rows_of, run_job, score_command


def test_a_killed_job_resumes_to_the_same_bytes(checkpoints: dict[str, Path], instructions: Path, responses: Path, tmp_path: Path) -> None:
    output, unfinished = tmp_path / "instructions.jsonl", tmp_path / "instructions.jsonl.unfinished"
    script, *flags = job_command(checkpoints, responses, output)
    for lines in (12, 30):
        process = subprocess.Popen([sys.executable, str(ROOT / script), *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and (not unfinished.exists() or unfinished.read_bytes().count(b"\n") < lines):
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
    if unfinished.exists():
        with unfinished.open("ab") as file:
            file.write(b'{"cut off in the mid')
    fails_with(run_job(checkpoints, responses, output), 1, "4 of 40 rows could not be used")
    assert output.read_bytes() == instructions.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["instructions.jsonl"]


def test_a_full_disk_loses_no_finished_row(checkpoints: dict[str, Path], instructions: Path, responses: Path, tmp_path: Path) -> None:
    output = tmp_path / "instructions.jsonl"
    with file_size_limit(2500):
        fails_with(run_job(checkpoints, responses, output), 1, "File too large", f"{output}.unfinished", "Raise the file size limit")
    assert not output.exists()
    fails_with(run_job(checkpoints, responses, output), 1, "4 of 40 rows could not be used")
    assert output.read_bytes() == instructions.read_bytes()


def test_every_format_is_read_and_written(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    texts = [pair["output"] for pair in make_pairs(9)]
    (tmp_path / "a.txt").write_text("\n".join(texts) + "\n\n", encoding="utf-8")
    with gzip.open(tmp_path / "b.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write("".join(json.dumps({"output": text}) + "\n" for text in texts))
    pyarrow.parquet.write_table(pa.table({"text": texts, "n": list(range(9))}), tmp_path / "c.parquet")
    (tmp_path / "d.json").write_text(json.dumps([{"completion": text} for text in texts]), encoding="utf-8")
    found = []
    for name, output in (("a.txt", "a.jsonl.gz"), ("b.jsonl.gz", "b.parquet"), ("c.parquet", "c.jsonl.zst"), ("d.json", "d.jsonl")):
        result = run_job(checkpoints, tmp_path / name, tmp_path / "out" / output)
        assert result.returncode == 0, result.stderr
        rows = rows_of(tmp_path / "out" / output)
        assert [response_from_row(row) for row in rows] == texts
        found.append([(row["generated_instruction"], row["logprob_per_token"]) for row in rows])
    assert found[0] == found[1] == found[2] == found[3]


def test_an_empty_file_gives_an_empty_file(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    assert run_job(checkpoints, tmp_path / "empty.txt", tmp_path / "c.jsonl").returncode == 0
    assert rows_of(tmp_path / "c.jsonl") == []


def test_an_unreadable_input_leaves_no_output_behind(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    fails_with(run_job(checkpoints, tmp_path / "nowhere.jsonl", tmp_path / "b.jsonl"), 2, "nowhere.jsonl: no such file")
    pyarrow.parquet.write_table(pa.table({"n": [1]}), tmp_path / "a.parquet")
    assert run_job(checkpoints, tmp_path / "a.parquet", tmp_path / "b.jsonl").returncode == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_a_changed_or_damaged_input_is_named(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("It rains.\n", encoding="utf-8")
    other = {"source": "a.txt (10 bytes, 000000000000)"}
    (tmp_path / "b.jsonl.unfinished").write_text(json.dumps(other) + "\n", encoding="utf-8")
    fails_with(run_job(checkpoints, tmp_path / "a.txt", tmp_path / "b.jsonl"), 2, "was started with other settings", "source was")
    noise = random.Random(0)  # compresses badly, so that the file is longer than the beginning that a reader checks
    lines = b"".join(b'{"response": "%s"}\n' % noise.randbytes(50_000).hex().encode() for _ in range(30))
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(lines)[:-2000])
    fails_with(run_job(checkpoints, tmp_path / "c.jsonl.gz", tmp_path / "d.jsonl"), 1, "c.jsonl.gz cannot be read")
    (tmp_path / "e.json").write_text("[" * 100_000)
    fails_with(run_job(checkpoints, tmp_path / "e.json", tmp_path / "f.jsonl"), 1, "e.json is not JSON")


def test_impossible_jobs_are_refused_in_one_line(checkpoints: dict[str, Path], instructions: Path, responses: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    fails_with(run_job(checkpoints, responses, tmp_path / "file" / "a.jsonl"), 1, "cannot write", "--output")
    fails_with(run_job(checkpoints, responses, instructions), 2, "already exists")
    fails_with(run_job(checkpoints, responses, tmp_path / "a.csv"), 2, "supported endings: .jsonl")
    fails_with(run_job(checkpoints, tmp_path / "none.jsonl", tmp_path / "a.jsonl"), 2, "no such file")
    fails_with(call_script("sample_xcoax_instruct.py", "--input", responses), 2, "name the file to write with --output")
    fails_with(call_script("sample_xcoax_instruct.py", "--input", "x", "--response", "y"), 2, "one of them")
    fails_with(
        call_script(*score_command({"tuning": checkpoints["pretraining"]}, "--pairs", responses, tmp_path / "a.jsonl")), 1, "not tuned"
    )
    (tmp_path / "b.jsonl.unfinished").write_text(json.dumps({"model": "another"}) + "\n", encoding="utf-8")
    fails_with(run_job(checkpoints, responses, tmp_path / "b.jsonl"), 2, "was started with other settings: model was 'another'")


def test_a_file_of_pairs_is_scored(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    source = tmp_path / "pairs.jsonl"
    source.write_text("".join(json.dumps(pair) + "\n" for pair in make_pairs(30)) + "{bad\n", encoding="utf-8")
    command = score_command(checkpoints, "--pairs", source, tmp_path / "scores.jsonl")
    fails_with(call_script(*command), 1, "1 of 31 rows could not be used")
    rows = rows_of(tmp_path / "scores.jsonl")
    assert [row["output"] for row in rows[:30]] == [pair["output"] for pair in make_pairs(30)]
    assert all(row["logprob"] < 0 and row["tokens"] > 0 for row in rows[:30])


def test_the_batch_size_counts_for_scores(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    source = write_pairs(tmp_path / "pairs.jsonl", make_pairs(5))
    with mock.patch("sampling.scoring.Scorer", wraps=Scorer) as scorer:
        result = call_script(*score_command(checkpoints, "--pairs", source, tmp_path / "scores.jsonl", "--batch-size", 3))
    assert result.returncode == 0, result.stderr
    assert [call.args[1] for call in scorer.call_args_list] == [3]
    assert len(rows_of(tmp_path / "scores.jsonl")) == 5


def test_lines_that_separate_documents_are_no_responses(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("It rains.\n<|endoftext|>\nIt snows.\n", encoding="utf-8")
    assert run_job(checkpoints, tmp_path / "a.txt", tmp_path / "b.jsonl").returncode == 0
    assert [row["response"] for row in rows_of(tmp_path / "b.jsonl")] == ["It rains.", "It snows."]
    for job in ("--pairs", "--rerank"):
        fails_with(call_script(*score_command(checkpoints, job, tmp_path / "a.txt", tmp_path / "c.jsonl")), 2, job, "a .txt file has no")


def test_scores_keep_the_errors_of_the_job_before(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"instruction": "Say it.", "output": "It."}\n{"row": 2, "error": "an empty response"}\n')
    fails_with(
        call_script(*score_command(checkpoints, "--pairs", tmp_path / "a.jsonl", tmp_path / "b.jsonl")), 1, "1 of 2 rows could not be used"
    )
    assert rows_of(tmp_path / "b.jsonl")[1] == {"row": 2, "error": "an empty response"}


def test_the_flag_of_before_answers_with_the_command_of_now(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    source = write_pairs(tmp_path / "my pairs.jsonl", make_pairs(5))
    flags = ["--model-path", checkpoints["tuning"], "--score", source, "--output", tmp_path / "scores.jsonl"]
    result = call_script("sample_xcoax_instruct.py", *flags)
    fails_with(result, 2, "--score is a script of its own now: python score_xcoax.py --pairs ")
    assert not (tmp_path / "scores.jsonl").exists()
    command = shlex.split(result.stderr.partition("now: python ")[2])
    assert call_script(*command).returncode == 0
    assert len(rows_of(tmp_path / "scores.jsonl")) == 5
