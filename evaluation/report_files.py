"""The report of a run: sections are printed as they come, and the files of the complete report replace those of the earlier one."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from evaluation.drawing import draw
from evaluation.paper_tables import as_csv, as_latex, models_as_csv
from evaluation.report import Picture, Section
from evaluation.terminal_table import print_section
from system.errors import UserError, remedy
from system.escapes import escape_controls
from system.files import atomic_write, write_json

PICTURES = re.compile(r"report_(positions\d*|ranking|training_bits|training_shares)\.(png|svg)")
PIPE_WIDTH = 200  # columns when the output is not a terminal


@dataclass
class Report:
    """The sections so far and the facts of the run, such as models and settings; each new section is printed and written at once."""

    title: str
    folder: Path
    facts: dict[str, Any]
    sections: list[Section] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # the facts of each model, by its name
    is_kept: bool = True  # False: in a process whose results another one writes

    def print_facts(self) -> None:
        """Print the facts of the run."""
        console = _console()
        for line in self._fact_lines():
            console.print(Text(escape_controls(line)))

    def add(self, section: Section, *pictures: Picture | None) -> None:
        """Print a section and write it to the unfinished report; an earlier report stays until this one is complete."""
        self.sections.append(section)
        self.pictures += filter(None, pictures)
        if self.is_kept:
            print_section(_console(), section)
            self._write("report_unfinished")

    def finish(self) -> list[str]:
        """Replace the earlier report, and return the names of the files written."""
        if not self.is_kept:
            return []
        with _as_user_errors(self.folder):
            for picture in self.pictures:
                draw(self.folder, picture)
            texts = {
                "report.csv": as_csv(self.sections),
                "report_models.csv": models_as_csv(self.models),
                "report.tex": as_latex(self.sections),
            }
            for name, text in texts.items():
                _write_text(self.folder / name, text)
        self._write("report")
        drawn = [name for picture in self.pictures for name in picture.file_names]
        for path in self.folder.glob("report_*"):
            if PICTURES.fullmatch(path.name) and path.name not in drawn:
                path.unlink(missing_ok=True)  # of an earlier report
        for ending in (".md", ".json"):
            (self.folder / f"report_unfinished{ending}").unlink(missing_ok=True)
        return ["report.json", "report.md", *texts, *drawn]

    def _write(self, name: str) -> None:
        content = {
            **self.facts,
            "models": self.models,
            "sections": [each.as_json() for each in self.sections],
            "pictures": [each.as_json() for each in self.pictures],
        }
        with _as_user_errors(self.folder):
            _write_text(self.folder / f"{name}.md", escape_controls(self._as_markdown()))
            write_json(self.folder / f"{name}.json", content)

    def _as_markdown(self) -> str:
        lines = [f"# {self.title}", "", *(f"- {line}" for line in self._fact_lines())]
        if self.models:
            columns = list(next(iter(self.models.values())))
            lines += ["", _table_row(["model", *columns]), "|---" * (len(columns) + 1) + "|"]
            lines += [_table_row([name, *(_shown(facts[column]) for column in columns)]) for name, facts in self.models.items()]
        lines += ["", "What each row means, and which pitfall it avoids, is explained in docs/evaluation.md."]
        for section in self.sections:
            lines += ["", f"## {section.title}", *(line for warning in section.all_warnings for line in ("", f"**{warning}**")), ""]
            if section.rows:
                lines += [_table_row(["", *section.columns]), "|---" * (len(section.columns) + 1) + "|"]
                lines += [_table_row([section.label(name), *map(str, cells)]) for name, cells in section.rows.items()]
            lines += [line for note in section.notes for line in ("", note)]
        lines += [line for picture in self.pictures for line in ("", f"![{picture.title}]({picture.name})")]
        return "\n".join(lines) + "\n"

    def _fact_lines(self) -> list[str]:
        """One line for each fact; settings that are empty are left out."""
        lines = []
        for name, value in self.facts.items():
            if isinstance(value, dict):
                value = ", ".join(f"{key}={inner}" for key, inner in value.items() if inner not in ("", (), None))
            lines.append(f"{name}: {value}")
        return lines


@contextmanager
def _as_user_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {error.filename or folder}: {error.strerror}. {remedy(error)}, or use another --out-dir") from error


def _console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PIPE_WIDTH)


def _write_text(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode("utf-8", "replace"))


def _shown(fact: Any) -> str:
    return "" if fact is None else f"{fact:,}" if isinstance(fact, int) else str(fact)


def _table_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
