"""The report: what is printed and what is on disk, before and after it is complete."""

import json
from pathlib import Path

import pytest

from evaluation.bootstrap import Estimate
from evaluation.report import Picture, Section
from evaluation.report_files import Report
from system.errors import UserError
from tests.evaluation.conftest import rows_of_report

SECTION = Section(
    "First", ["a | b", "c"], {"row | 1": (Estimate(float("nan")), ""), "row 2": (Estimate(0.5, 0.25, 1.0, 3), "x")}, ["A note."]
)


def test_an_earlier_report_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("earlier", encoding="utf-8")
    (tmp_path / "report_ranking.png").write_text("earlier", encoding="utf-8")
    report = Report("Title", tmp_path, {"settings": {"documents": 3, "text": ()}})
    report.add(SECTION, Picture("report_positions.png", "t", "x", "y", {"model": [(1.0, Estimate(1.0)), (2.0, Estimate(2.0, 1.5, 2.5))]}))
    assert (tmp_path / "report.json").read_text(encoding="utf-8") == "earlier"
    assert json.loads((tmp_path / "report_unfinished.json").read_text(encoding="utf-8"))["sections"][0]["title"] == "First"
    assert report.finish() == ["report.json", "report.md", "report_positions.png"]
    assert rows_of_report(tmp_path)["First"]["row 2"] == {"a | b": {"value": 0.5, "low": 0.25, "high": 1.0, "examples": 3}, "c": "x"}
    assert rows_of_report(tmp_path)["First"]["row | 1"]["a | b"]["value"] is None  # JSON has no nan
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "report.md", "report_positions.png"]


def test_markdown_has_tables_notes_and_pictures(tmp_path: Path) -> None:
    report = Report("Title", tmp_path, {"settings": {"documents": 3, "text": ()}})
    report.add(SECTION, Picture("report_positions.png", "t", "x", "y", {"model": [(1.0, Estimate(1.0))]}))
    report.finish()
    lines = (tmp_path / "report.md").read_text(encoding="utf-8").splitlines()
    assert "- settings: documents=3" in lines
    assert "|  | a \\| b | c |" in lines and "| row 2 | 0.500 (0.250..1.000) | x |" in lines  # a bar would end the cell
    assert "A note." in lines and "![t](report_positions.png)" in lines


def test_a_table_wider_than_the_output_is_printed_as_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wide = Section("Wide", ["column " * 20, "other " * 20], {"row": (Estimate(1.0), "")})
    Report("Title", tmp_path, {}).add(wide)
    assert f"  {'column ' * 20}: 1.000" in capsys.readouterr().out


def test_control_characters_are_escaped_on_screen_and_on_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("Title", tmp_path, {"model": "\x1b[2J"})
    report.print_facts()
    report.add(Section("\x1b[2J", ["a"], {"\x1b[2J": ("\x1b[2J",)}, ["`\x1b[2J`"]))
    report.finish()
    printed = capsys.readouterr().out
    assert "\x1b" not in printed + (tmp_path / "report.md").read_text(encoding="utf-8")
    assert printed.count("␛[2J") == 5


def test_a_folder_that_cannot_be_written_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write the report to .*file: Not a directory. Give another --out-dir"):
        Report("Title", tmp_path / "file", {}).add(SECTION)
