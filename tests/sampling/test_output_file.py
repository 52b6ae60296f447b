"""The output file: one run writes it at a time, an earlier run is resumed only with the same settings."""

import contextlib
import errno
import io
import json
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from formats.tolerant_rows import Row
from sampling.output_file import OUTPUT_ENDINGS, OutputFile
from system.errors import BAD_FLAGS, UserError
from tests.sampling.conftest import rows_of


@pytest.mark.parametrize("ending", OUTPUT_ENDINGS)
def test_an_interrupted_run_is_resumed_after_its_last_complete_row(tmp_path: Path, ending: str) -> None:
    rows: list[Row] = [{"row": index, "text": "é\n日本"} for index in range(1, 6)]
    rows[1] = {**rows[1], "error": "bad"}

    def interrupted(done: int) -> Any:
        yield from rows[done : done + 2]
        raise KeyboardInterrupt

    path = tmp_path / f"a{ending}"
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            OutputFile(path, {"seed": 1}).write(interrupted)
    assert not path.exists()
    with (tmp_path / f"a{ending}.unfinished").open("ab") as file:
        file.write(b'{"row": 5, "te')
    output = OutputFile(path, {"seed": 1})
    output.write(lambda done: rows[done:])
    assert (output.done, output.errors) == (5, 1)
    assert [{name: value for name, value in row.items() if value is not None} for row in rows_of(path)] == rows
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_run_that_ended_just_before_it_removed_the_unfinished_file_is_finished(tmp_path: Path) -> None:
    """By the same command, which does nothing again; another one is refused."""
    path, unfinished = tmp_path / "a.jsonl", tmp_path / "a.jsonl.unfinished"
    rows: list[Row] = [{"row": 1}, {"row": 2, "error": "bad"}]
    with mock.patch.object(Path, "unlink"):
        OutputFile(path, {"seed": 1}).write(lambda done: rows)
    before = path.read_bytes()
    with pytest.raises(UserError, match="with other settings"):
        OutputFile(path, {"seed": 2}).write(lambda done: [])
    output = OutputFile(path, {"seed": 1})
    output.write(lambda done: pytest.fail("again"))
    assert (output.done, output.errors, path.read_bytes(), unfinished.exists()) == (2, 1, before, False)
    with pytest.raises(UserError, match="already exists"):
        OutputFile(path, {"seed": 1})


def test_two_runs_cannot_write_one_file(tmp_path: Path) -> None:
    first, second = (OutputFile(tmp_path / "a.jsonl", {}) for _ in range(2))

    def rows(done: int) -> list[Row]:
        with pytest.raises(UserError, match="another process is writing"):
            second.write(lambda done: [])
        return [{"x": 1}]

    first.write(rows)
    with pytest.raises(UserError, match="already exists"):  # the first began and ended after the second had looked
        second.write(lambda done: [])
    assert rows_of(tmp_path / "a.jsonl") == [{"x": 1}]
    assert [file.name for file in tmp_path.iterdir()] == ["a.jsonl"]


def test_rows_that_fit_into_no_table_are_kept_as_lines(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"do not fit into one table.*b.parquet.unfinished"):
        OutputFile(tmp_path / "b.parquet", {}).write(lambda done: [{"id": 1 << 70}])
    _, line = (tmp_path / "b.parquet.unfinished").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["id"] == 1 << 70
    deep = json.loads("[" * 200 + "]" * 200)
    with pytest.raises(UserError, match=r"too deeply nested.*c.parquet.unfinished"):  # pyarrow would write it, but could not read it
        OutputFile(tmp_path / "c.parquet", {}).write(lambda done: [{"id": deep}])
    assert not (tmp_path / "c.parquet").exists()


def test_an_unfinished_file_of_another_run_is_refused(tmp_path: Path) -> None:
    unfinished = tmp_path / "b.jsonl.unfinished"
    unfinished.write_text(json.dumps({"source": "a.txt (10 bytes)"}) + "\n", encoding="utf-8")
    output = OutputFile(tmp_path / "b.jsonl", {"source": "a.txt (11 bytes)"})
    with pytest.raises(UserError, match=r"with other settings: source was 'a.txt \(10 bytes\)', now 'a.txt \(11 bytes\)'") as error:
        output.write(lambda done: [])
    assert error.value.exit_code == BAD_FLAGS
    for line in ("[]", "null", "5", '"x"', "{"):
        unfinished.write_text(f"{line}\n", encoding="utf-8")
        with pytest.raises(UserError, match="was not written by this program") as error:
            output.write(lambda done: [])
        assert error.value.exit_code == BAD_FLAGS


class FullDisk(io.BytesIO):
    """A file on a full disk."""

    def write(self, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_failed_write_names_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sampling.output_file.lock_file", lambda path, flag: contextlib.nullcontext(FullDisk()))
    with pytest.raises(OSError, match="No space left") as caught:
        OutputFile(tmp_path / "a.jsonl", {}).write(lambda done: [{"x": 1}])
    assert caught.value.filename == str(tmp_path / "a.jsonl.unfinished")


def test_a_row_nested_too_deeply_does_not_end_the_job(tmp_path: Path) -> None:
    nested: list[Any] = []
    for _ in range(5000):
        nested = [nested]
    output = OutputFile(tmp_path / "a.jsonl", {})
    output.write(lambda done: [{"row": 1, "x": 1}, {"row": 2, "x": nested}, {"row": 3, "x": 3}])
    assert rows_of(tmp_path / "a.jsonl") == [{"row": 1, "x": 1}, {"row": 2, "error": "nested too deeply"}, {"row": 3, "x": 3}]
    assert (output.done, output.errors) == (3, 1)


def test_a_text_that_is_no_unicode_stays_in_the_unfinished_output(tmp_path: Path) -> None:
    (tmp_path / "b.parquet.unfinished").write_bytes(b'{}\n{"row": 1, "x": "\\ud800"}\n')
    with pytest.raises(UserError, match=r"do not fit into one table .*b.parquet.unfinished"):
        OutputFile(tmp_path / "b.parquet", {}).write(lambda done: [])


@pytest.mark.parametrize("line", [b"[" * 100_000, b"5", b"[1]", b"", b"\xff", b"{", b'{"x": "\xed\xa0\x80"}'])
def test_a_damaged_line_is_named(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "b.jsonl.unfinished").write_bytes(b'{}\n{"row": 1}\n' + line + b"\n")
    with pytest.raises(UserError, match=r"b.jsonl.unfinished, line 3 is damaged. Delete the file, or use another --output"):
        OutputFile(tmp_path / "b.jsonl", {}).write(lambda done: [])


@pytest.mark.parametrize("rows", [[2], [1, 3], [1, 1], [1, 2, 1], [0], [None], ["1"], [True], [1.0]])
def test_a_missing_or_repeated_row_is_not_resumed(tmp_path: Path, rows: list[object]) -> None:
    (tmp_path / "b.jsonl.unfinished").write_text("".join(json.dumps(row) + "\n" for row in [{}, *({"row": row} for row in rows)]))
    last = len(rows)
    with pytest.raises(UserError, match=rf"line {last + 1} is not of row {last}: it is damaged, or lines are missing. Delete the file"):
        OutputFile(tmp_path / "b.jsonl", {}).write(lambda done: [])
