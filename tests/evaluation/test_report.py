"""The report: what is printed and what is on disk, before and after it is complete."""

import errno
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
    for name in ("report_ranking.png", "report_positions7.svg", "report_of_mine.png"):
        (tmp_path / name).write_text("earlier", encoding="utf-8")
    report = Report("Title", tmp_path, {"settings": {"documents": 3, "text": ()}})
    report.add(SECTION, Picture("report_positions.png", "t", "x", "y", {"model": [(1.0, Estimate(1.0)), (2.0, Estimate(2.0, 1.5, 2.5))]}))
    assert (tmp_path / "report.json").read_text(encoding="utf-8") == "earlier"
    assert json.loads((tmp_path / "report_unfinished.json").read_text(encoding="utf-8"))["sections"][0]["title"] == "First"
    files = ["report.json", "report.md", "report.csv", "report_models.csv", "report.tex", "report_positions.png", "report_positions.svg"]
    assert report.finish() == files
    assert rows_of_report(tmp_path)["First"]["row 2"] == {"a | b": {"value": 0.5, "low": 0.25, "high": 1.0, "examples": 3}, "c": "x"}
    assert rows_of_report(tmp_path)["First"]["row | 1"]["a | b"]["value"] is None  # JSON has no nan
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*files, "report_of_mine.png"])


def test_the_json_holds_the_curves_that_the_pictures_show(tmp_path: Path) -> None:
    report = Report("Title", tmp_path, {})
    report.add(SECTION, Picture("report_ranking.png", "t", "x", "y", {"model": [(1.0, Estimate(1.0)), (2.5, Estimate(2.0, 1.5, 2.5, 9))]}))
    report.finish()
    [picture] = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["pictures"]
    assert (picture["name"], picture["title"], picture["x_label"], picture["y_label"]) == ("report_ranking.png", "t", "x", "y")
    first, second = picture["curves"]["model"]
    assert first == {"x": 1.0, "value": 1.0, "low": None, "high": None, "examples": None}
    assert second == {"x": 2.5, "value": 2.0, "low": 1.5, "high": 2.5, "examples": 9}


def test_markdown_has_tables_notes_and_pictures(tmp_path: Path) -> None:
    report = Report("Title", tmp_path, {"settings": {"documents": 3, "text": ()}})
    report.add(SECTION, Picture("report_positions.png", "t", "x", "y", {"model": [(1.0, Estimate(1.0))]}))
    report.finish()
    lines = (tmp_path / "report.md").read_text(encoding="utf-8").splitlines()
    assert "- settings: documents=3" in lines
    assert "|  | a \\| b | c |" in lines and "| row 2 | 0.500 (0.250..1.000) | x |" in lines  # a bar would end the cell
    assert "A note." in lines and "![t](report_positions.png)" in lines


def test_warnings_stand_above_the_table_and_remarks_beside_a_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("Title", tmp_path, {})
    report.add(Section("T", ["c"], {"row": (Estimate(1.0),)}, ["A note."], ["Seen before."], {"row": "but why"}))
    report.finish()
    for text in (capsys.readouterr().out, (tmp_path / "report.md").read_text(encoding="utf-8")):
        places = [text.index(part) for part in ("Seen before.", "row (but why)", "A note.")]
        assert places == sorted(places)


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
    with pytest.raises(UserError, match="cannot write .*file.*: Not a directory. Fix this, or use another --out-dir"):
        Report("Title", tmp_path / "file", {}).add(SECTION)


def test_a_full_disk_names_the_file_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(
        UserError, match=r"cannot write \S+/report_unfinished\.\w+: No space left on device\. Free some space there, or use"
    ):
        Report("Title", tmp_path, {}).add(SECTION)


def test_an_interval_of_few_examples_gets_a_caution() -> None:
    def warnings(**counts: int) -> list[str]:
        rows = {name: (Estimate(1.0, 0.5, 1.5, count) if count > 1 else Estimate(1.0, examples=count),) for name, count in counts.items()}
        return Section("T", ["c"], {**rows, "spread": (Estimate(0.1, examples=2),)}, warnings=["Seen."], rest_on="text").all_warnings

    assert warnings(a=20, b=500) == ["Seen."]
    assert warnings(a=2, b=2)[1:] == ["Caution: these intervals rest on only 2 texts. With fewer than 20 an interval is too narrow."]
    assert warnings(a=200, b=19)[1:] == ["Caution: few texts for b (19 texts). With fewer than 20 an interval is too narrow."]
    assert warnings(a=2, b=1)[1:] == ["Caution: few texts for a (2 texts), b (1 text). With fewer than 20 an interval is too narrow."]
    assert warnings(a=1)[1:] == ["Caution: only 1 text, so there is no interval."]
