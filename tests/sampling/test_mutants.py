"""A damaged unfinished output: the run resumes and writes its output, or is refused in one line."""

from pathlib import Path
from typing import Any

import pytest

from formats.tolerant_rows import Row
from sampling.output_file import OUTPUT_ENDINGS, OutputFile
from system.errors import UserError
from tests.formats.test_damage import LONG, mutants, refused
from tests.sampling.conftest import rows_of

QUICK = 100
SETTINGS: Row = {"seed": 1, "source": "a.txt (10 bytes)", "temperature": 0.8, "nothing": None, "samples": 2}
ROWS: list[Row] = [{"row": index, "text": f'é\n日本 \u0001 "{index}"', "score": -1.5, "list": [index, None]} for index in range(4)]
ROWS[1] = {"row": 1, "error": "bad"}


def interrupted(done: int) -> Any:
    """All rows but the last."""
    yield from ROWS[done:-1]
    raise KeyboardInterrupt


@pytest.mark.parametrize("ending", OUTPUT_ENDINGS)
@pytest.mark.parametrize("count", [QUICK, pytest.param(LONG, marks=pytest.mark.long)])
def test_a_damaged_unfinished_output_is_refused_or_resumed(tmp_path: Path, ending: str, count: int) -> None:
    path = tmp_path / f"a{ending}"
    with pytest.raises(KeyboardInterrupt):
        OutputFile(path, SETTINGS).write(interrupted)
    unfinished = tmp_path / f"a{ending}.unfinished"
    for content in mutants(unfinished.read_bytes(), count):
        unfinished.write_bytes(content)
        if refused(lambda: OutputFile(path, SETTINGS).write(lambda done: ROWS[done:])):
            assert not path.exists()
        else:
            assert len(rows_of(path)) >= len(ROWS)  # more if a line is repeated
            assert not unfinished.exists()
            path.unlink()


def test_a_text_that_is_no_unicode_stays_in_the_unfinished_output(tmp_path: Path) -> None:
    (tmp_path / "b.parquet.unfinished").write_bytes(b'{}\n{"x": "\\ud800"}\n')
    with pytest.raises(UserError, match=r"do not fit into one table .*b.parquet.unfinished"):
        OutputFile(tmp_path / "b.parquet", {}).write(lambda done: [])


@pytest.mark.parametrize("line", [b"[" * 100_000, b"5", b"[1]", b"", b"\xff", b"{"])
def test_a_damaged_line_is_named(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "b.jsonl.unfinished").write_bytes(b'{}\n{"x": 1}\n' + line + b"\n")
    with pytest.raises(UserError, match=r"b.jsonl.unfinished, line 3 is damaged. Delete the file, or use another --output"):
        OutputFile(tmp_path / "b.jsonl", {}).write(lambda done: [])
