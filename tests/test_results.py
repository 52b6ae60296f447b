"""Files of responses and pairs, worked through: every row once and in order, whatever happens on the way."""

import gzip
import json
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
import torch

from checkpoint import load_checkpoint
from errors import UserError
from layout import Layout
from pairs import Pair
from results import Results
from sample_xcoax_instruct import score_pairs
from scoring import Scorer
from tests.conftest import ROOT, fails_with, make_pairs, run_script
from text import arrange

FLAGS = ("--max-new-tokens", 6, "--batch-size", 4, "--seed", 1)


def work(checkpoints: dict[str, Path], source: Path, output: Path, *flags: object) -> subprocess.CompletedProcess[str]:
    everything = ["--model-path", checkpoints["tuning"], "--input", source, "--output", output, *FLAGS, *flags]
    return run_script("sample_xcoax_instruct.py", *everything)


def rows_of(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
        return rows
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    elif path.suffix == ".zst":
        data = pa.input_stream(pa.py_buffer(data), compression="zstd").read()
    return [json.loads(line) for line in data.decode().splitlines()]


@pytest.fixture(scope="module")
def responses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty rows, of which four cannot be used."""
    rows: list[str] = [json.dumps({"response": pair["output"], "id": index}) for index, pair in enumerate(make_pairs(40))]
    rows[2] = "{bad JSON"
    rows[7] = json.dumps({"response": " ", "id": 7})
    rows[8] = json.dumps({"other": "x", "id": 8})
    rows[39] = json.dumps([1])
    path = tmp_path_factory.mktemp("responses") / "responses.jsonl"
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def whole(checkpoints: dict[str, Path], responses: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one undisturbed run makes of them."""
    output = tmp_path_factory.mktemp("whole") / "instructions.jsonl"
    result = work(checkpoints, responses, output)
    fails_with(result, 1, "4 of 40 rows could not be used")
    return output


def test_every_row_has_its_result_in_order(whole: Path, responses: Path) -> None:
    rows = rows_of(whole)
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


def test_killed_at_any_moment_no_row_is_lost_or_comes_twice(
    checkpoints: dict[str, Path], whole: Path, responses: Path, tmp_path: Path
) -> None:
    output, part = tmp_path / "instructions.jsonl", tmp_path / "instructions.jsonl.unfinished"
    everything = ["--model-path", checkpoints["tuning"], "--input", responses, "--output", output, *FLAGS]
    for lines in (1, 12, 30):
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "sample_xcoax_instruct.py"), *map(str, everything)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None and (not part.exists() or part.read_bytes().count(b"\n") < lines):
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
    if part.exists():
        with part.open("ab") as file:
            file.write(b'{"cut off in the mid')
    result = work(checkpoints, responses, output)
    fails_with(result, 1, "4 of 40 rows could not be used")
    assert output.read_bytes() == whole.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["instructions.jsonl"]


def test_other_files_in_and_out(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    texts = [pair["output"] for pair in make_pairs(9)]
    (tmp_path / "a.txt").write_text("\n".join(texts) + "\n\n", encoding="utf-8")
    with gzip.open(tmp_path / "b.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write("".join(json.dumps({"output": text}) + "\n" for text in texts))
    pyarrow.parquet.write_table(pa.table({"text": texts, "n": list(range(9))}), tmp_path / "c.parquet")
    (tmp_path / "d.json").write_text(json.dumps([{"completion": text} for text in texts]), encoding="utf-8")
    found = []
    for name, output in (("a.txt", "a.jsonl.gz"), ("b.jsonl.gz", "b.parquet"), ("c.parquet", "c.jsonl.zst"), ("d.json", "d.jsonl")):
        result = work(checkpoints, tmp_path / name, tmp_path / "out" / output)
        assert result.returncode == 0, result.stderr
        rows = rows_of(tmp_path / "out" / output)
        assert [row["response"] for row in rows] == texts
        found.append([(row["instruction"], row["logprob_per_token"]) for row in rows])
    assert found[0] == found[1] == found[2] == found[3]


def test_a_source_that_cannot_be_read_leaves_nothing_behind(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    fails_with(work(checkpoints, tmp_path / "nowhere.jsonl", tmp_path / "b.jsonl"), 2, "nowhere.jsonl: no such file")
    pyarrow.parquet.write_table(pa.table({"n": [1]}), tmp_path / "a.parquet")
    assert work(checkpoints, tmp_path / "a.parquet", tmp_path / "b.jsonl").returncode == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_what_fits_into_no_table_stays(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"response": "It rains.", "id": 1 << 70}) + "\n", encoding="utf-8")
    fails_with(work(checkpoints, tmp_path / "a.jsonl", tmp_path / "b.parquet"), 1, "do not fit into one table", "b.parquet.unfinished")
    _, line = (tmp_path / "b.parquet.unfinished").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["id"] == 1 << 70


def test_what_a_row_brings_with_it(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    rows = [
        {"instruction": "old", "input": "old", "output": "", "response": "It rains.", "error": None, "candidates": [1], "id": 1},
        {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "It snows."}], "id": 2},
        {"text": "The cat sleeps.", "error": "of an earlier run", "id": 3},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert work(checkpoints, tmp_path / "a.jsonl", tmp_path / "b.parquet").returncode == 0
    found = rows_of(tmp_path / "b.parquet")
    assert [(row["response"], row["id"]) for row in found] == [("It rains.", 1), ("It snows.", 2), ("The cat sleeps.", 3)]
    assert found[0].keys() == {"id", "response", "cut", "instruction", "logprob_per_token", "tokens", "complete"}
    assert "old" not in found[0]["instruction"]
    times = pa.table({"response": ["It rains."], "when": pa.array([0], pa.timestamp("us"))})
    pyarrow.parquet.write_table(times, tmp_path / "c.parquet")
    assert work(checkpoints, tmp_path / "c.parquet", tmp_path / "d.jsonl").returncode == 0
    assert rows_of(tmp_path / "d.jsonl")[0]["when"] == "1970-01-01 00:00:00"


def test_a_source_that_changed_or_is_broken_is_named(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("It rains.\n", encoding="utf-8")
    other = {"source": "a.txt (10 bytes, 000000000000)"}
    (tmp_path / "b.jsonl.unfinished").write_text(json.dumps(other) + "\n", encoding="utf-8")
    fails_with(work(checkpoints, tmp_path / "a.txt", tmp_path / "b.jsonl"), 2, "was begun with other settings", "source was")
    (tmp_path / "b.jsonl.unfinished").write_text("[]\n", encoding="utf-8")
    fails_with(work(checkpoints, tmp_path / "a.txt", tmp_path / "b.jsonl"), 2, "is not of this program")
    noise = random.Random(0)  # that compresses badly, so that the file is longer than what a reader looks at first
    lines = b"".join(b'{"response": "%s"}\n' % noise.randbytes(50_000).hex().encode() for _ in range(30))
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(lines)[:-2000])
    fails_with(work(checkpoints, tmp_path / "c.jsonl.gz", tmp_path / "d.jsonl"), 1, "c.jsonl.gz cannot be read")
    (tmp_path / "e.json").write_text("[" * 100_000)
    fails_with(work(checkpoints, tmp_path / "e.json", tmp_path / "f.jsonl"), 1, "e.json is not JSON")


def test_several_candidates_come_best_first(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("The cat is sleeping.\nIt rains.\n", encoding="utf-8")
    assert work(checkpoints, tmp_path / "a.txt", tmp_path / "b.jsonl", "--num-samples", 6).returncode == 0
    for row in rows_of(tmp_path / "b.jsonl"):
        scores = [candidate["logprob_per_token"] for candidate in row["candidates"]]
        assert len(scores) == 6
        assert scores == sorted(scores, reverse=True)
        assert (row["instruction"], row["logprob_per_token"]) == (row["candidates"][0]["instruction"], scores[0])


def test_a_disk_that_fills_up_keeps_what_is_done(checkpoints: dict[str, Path], whole: Path, responses: Path, tmp_path: Path) -> None:
    """A limit on the size of a file stands in for the full disk: the write fails in the same place with an OSError."""
    output = tmp_path / "instructions.jsonl"

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2500, 2500))

    everything = ["--model-path", checkpoints["tuning"], "--input", responses, "--output", output, *FLAGS]
    command = [sys.executable, str(ROOT / "sample_xcoax_instruct.py"), *map(str, everything)]
    result = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, check=False)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "File too large" in result.stderr
    assert not output.exists()
    fails_with(work(checkpoints, responses, output), 1, "4 of 40 rows could not be used")
    assert output.read_bytes() == whole.read_bytes()


def test_what_does_not_go_together_is_one_line(checkpoints: dict[str, Path], whole: Path, responses: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    fails_with(work(checkpoints, responses, tmp_path / "file" / "a.jsonl"), 1, "cannot write", "--output")
    fails_with(work(checkpoints, responses, whole), 2, "is there already")
    fails_with(work(checkpoints, responses, tmp_path / "a.csv"), 2, "what can be written ends in .jsonl")
    fails_with(work(checkpoints, tmp_path / "none.jsonl", tmp_path / "a.jsonl"), 2, "no such file")
    fails_with(run_script("sample_xcoax_instruct.py", "--input", responses), 2, "--output goes with --input or --score")
    fails_with(run_script("sample_xcoax_instruct.py", "--input", "x", "--score", "y"), 2, "one of them")
    (tmp_path / "b.jsonl.unfinished").write_text(json.dumps({"model": "another"}) + "\n", encoding="utf-8")
    fails_with(work(checkpoints, responses, tmp_path / "b.jsonl"), 2, "was begun with other settings: model was 'another'")
    (tmp_path / "empty.txt").write_text("")
    assert work(checkpoints, tmp_path / "empty.txt", tmp_path / "c.jsonl").returncode == 0
    assert rows_of(tmp_path / "c.jsonl") == []


def test_two_runs_cannot_write_one_file(tmp_path: Path) -> None:
    first, second = (Results(tmp_path / "a.jsonl", {}) for _ in range(2))

    def rows(done: int) -> list[dict[str, Any]]:
        with pytest.raises(UserError, match="another process is writing"):
            second.write(lambda done: [])
        return [{"x": 1}]

    first.write(rows)
    assert rows_of(tmp_path / "a.jsonl") == [{"x": 1}]


def test_scores_are_log_probabilities(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    checkpoint = load_checkpoint(checkpoints["tuning"])
    model = checkpoint.make_model(torch.device("cpu"))
    layout = Layout(checkpoint.tokenizer, checkpoint.order)
    pairs = [Pair("Say it.", "It."), Pair("What now?", "word " * 900), Pair("a " * 900, "too long")]
    rows = [{"instruction": pair.instruction, "output": pair.response, "error": None} for pair in pairs]
    found = list(score_pairs(Scorer(model, 1), layout, iter([*rows, "a bad row"])))
    for pair, row in zip(pairs[:2], found, strict=False):
        instruction = [*checkpoint.tokenizer.encode(arrange(pair.instruction, "backward")), *layout.end]
        response, _ = layout.fit(pair.response, 512 - layout.frame - len(instruction) + 1)
        given, alone = (next(Scorer(model, 1).score([(layout.prompt(ids), instruction)])).sum() for ids in (response, []))
        assert row["logprob"] == pytest.approx(given, abs=1e-2)
        assert row["logprob_gain"] == pytest.approx(given - alone, abs=1e-2)
        assert row["logprob_per_token"] == pytest.approx(given / len(instruction), abs=1e-3)
    assert [row.get("cut") for row in found] == [False, True, None, None]
    assert "more tokens than the context of 512 holds" in found[2]["error"]
    assert found[3] == {"error": "a bad row"}


def test_a_file_of_pairs_is_scored(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    source = tmp_path / "pairs.jsonl"
    source.write_text("".join(json.dumps(pair) + "\n" for pair in make_pairs(30)) + "{bad\n", encoding="utf-8")
    flags = ["--model-path", checkpoints["tuning"], "--score", source, "--output", tmp_path / "scores.jsonl"]
    fails_with(run_script("sample_xcoax_instruct.py", *flags), 1, "1 of 31 rows could not be used")
    rows = rows_of(tmp_path / "scores.jsonl")
    assert [row["output"] for row in rows[:30]] == [pair["output"] for pair in make_pairs(30)]
    assert all(row["logprob"] < 0 and row["tokens"] > 0 for row in rows[:30])
