"""The history of what was typed comes back as it was, whatever characters it has."""

import json
from pathlib import Path

import pytest

from sampling.history import History


class Editor:
    """A line editor without a terminal."""

    def __init__(self) -> None:
        self.entries: list[str] = []

    def get_current_history_length(self) -> int:
        return len(self.entries)

    def get_history_item(self, number: int) -> str:
        return self.entries[number - 1]

    def add_history(self, entry: str) -> None:
        self.entries.append(entry)


def test_entries_come_back(tmp_path: Path) -> None:
    entries = ["one", "two\nlines", "a\u2028b\x85c", "日本", '"quoted"', "\\n", " "]
    before, after = Editor(), Editor()
    before.entries = list(entries)
    History(before, tmp_path / "h").save()  # type: ignore[arg-type]
    History(after, tmp_path / "h").load()  # type: ignore[arg-type]
    assert after.entries == entries


@pytest.mark.parametrize("line", ["an old entry", "[" * 100_000, '{"a": 1}', '"broken'])
def test_a_line_that_is_no_json_string_is_an_entry_as_it_stands(line: str, tmp_path: Path) -> None:
    (tmp_path / "h").write_text(line + "\n")
    editor = Editor()
    History(editor, tmp_path / "h").load()  # type: ignore[arg-type]
    assert editor.entries == [line]


def test_the_newest_thousand_are_kept(tmp_path: Path) -> None:
    editor = Editor()
    editor.entries = [str(number) for number in range(1500)]
    History(editor, tmp_path / "h").save()  # type: ignore[arg-type]
    assert [json.loads(line) for line in (tmp_path / "h").read_text().splitlines()] == editor.entries[500:]
