"""Owns the report on a GPU: its tests, the benchmark and a short training, as JSON and as a page."""

import json
import statistics
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarking.gpu import file_stem
from benchmarking.stages import Stage
from system.errors import UserError, first_line
from system.files import atomic_write, write_json
from training.metrics import read_metrics

CURVE_ROWS = 15  # of the log lines, evenly spaced
LONGEST_REASON = 300  # characters of a failed test's message


def read_tests(path: Path, stage: Stage) -> dict[str, Any]:
    """How many tests passed, failed or were skipped, by pytest's JUnit file; and why the run ended early."""
    failed: list[dict[str, str]] = []
    skipped: list[dict[str, str]] = []
    count, unreadable = 0, ""
    try:
        cases = list(ElementTree.parse(path).getroot().iter("testcase")) if path.is_file() else []
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # not XML, or in an encoding that is none; cut off on a full disk
        cases, unreadable = [], f"its results cannot be read ({first_line(error)})"
    for case in cases:
        count += 1
        for result in case:
            if result.tag in ("failure", "error", "skipped"):
                name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name', '')}"
                reason = " ".join(result.get("message", "").split())[:LONGEST_REASON]
                (skipped if result.tag == "skipped" else failed).append({"name": name, "reason": reason})
                break
    problem = unreadable or (
        stage.describe_end() if stage.is_cut or not failed else ""
    )  # failed tests are named, and are the reason for the exit code
    passed = count - len(failed) - len(skipped)
    return {"seconds": stage.seconds, "problem": problem, "passed": passed, "failed": failed, "skipped": skipped}


def read_benchmark(path: Path, stage: Stage) -> dict[str, Any]:
    """The benchmark's figures, and its tables as it printed them; and why it ended early."""
    figures, unreadable = None, ""
    try:
        figures = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (ValueError, RecursionError) as error:
        unreadable = f"its figures cannot be read ({first_line(error)})"
    return {
        "command": stage.command,
        "seconds": stage.seconds,
        "problem": stage.describe_end() or unreadable,
        "figures": figures,
        "printed": stage.output,
    }


def read_training(folder: Path, stage: Stage) -> dict[str, Any]:
    """The log lines and evaluations of the run, its rate over all log lines but the first two, and why it ended early."""
    try:
        rows = read_metrics(folder)
    except UserError:  # it failed before its first step
        rows = []
    steps = [row for row in rows if "loss" in row]
    steady = steps[2:] or steps  # the first ones compile
    rate = {
        name: statistics.median(values)
        for name in ("tokens_per_second", "tflops", "share_of_peak")
        if (values := [row[name] for row in steady if name in row])
    }
    evaluations = [{name: row[name] for name in row if name != "sample"} for row in rows if "val_loss" in row]
    return {
        "command": stage.command,
        "seconds": stage.seconds,
        "problem": stage.describe_end(),
        "rate": rate,
        "steps": steps,
        "evaluations": evaluations,
    }


def problems_of(report: dict[str, dict[str, Any]]) -> list[str]:
    """What did not go as it should, a line each."""
    found = [f"{part}: {report[part]['problem']}" for part in ("tests", "benchmark", "training") if report[part]["problem"]]
    tests = report["tests"]
    if tests["failed"]:
        return [f"tests: {len(tests['failed'])} failed", *found]
    return found if tests["passed"] or tests["problem"] else ["tests: 0 passed", *found]


def write_report(folder: Path, report: dict[str, dict[str, Any]]) -> Path:
    """Write NAME.json and NAME.md, named after the GPU, into the folder; returns the page."""
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / f"{file_stem(report['machine']['gpu'])}.md"
    write_json(page.with_suffix(".json"), report)
    with atomic_write(page) as file:
        file.write(as_page(report).encode())
    return page


def as_page(report: dict[str, dict[str, Any]]) -> str:
    """The report as Markdown."""
    machine, tests, benchmark, training = (report[part] for part in ("machine", "tests", "benchmark", "training"))
    problems = problems_of(report)
    parts = [
        f"# {machine['gpu']}",
        "Written by `make gpu`." + ("" if problems else " Everything passed and finished."),
        *([_list(problems)] if problems else []),
        "## Machine",
        _table(("", ""), ((name.replace("_", " "), value) for name, value in machine.items() if value not in ("", None))),
        "## Tests",
        f"{tests['passed']} passed, {len(tests['failed'])} failed, {len(tests['skipped'])} skipped in {tests['seconds']:.0f} s.",
        _list(f"`{test['name']}`: {test['reason']}" for test in (*tests["failed"], *tests["skipped"])),
        "## Benchmark",
        f"`{benchmark['command']}`, {benchmark['seconds']:.0f} s.",
        benchmark["printed"].strip(),
        "## Training",
        f"`{training['command']}`, {training['seconds']:.0f} s. {_describe_rate(training)}",
        _table(("step", "tokens", "seconds", "loss", "validation loss", "tokens/s"), _curve(training)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _describe_rate(training: dict[str, Any]) -> str:
    rate = training["rate"]
    if not rate:
        return "No step was measured."
    share = f", {rate['share_of_peak']:.0%} of the peak in its data sheet" if "share_of_peak" in rate else ""
    return f"Medians of the log lines: {rate['tokens_per_second']:,.0f} tokens/s, {rate['tflops']:.1f} TFLOP/s{share}."


def _curve(training: dict[str, Any]) -> list[tuple[str, ...]]:
    """Rows for evenly spaced log lines and for every evaluation, by step."""
    steps, count = training["steps"], len(training["steps"])
    shown = [steps[index * (count - 1) // (CURVE_ROWS - 1)] for index in range(CURVE_ROWS)] if count > CURVE_ROWS else steps
    rows: dict[int, dict[str, Any]] = {}
    for row in (*shown, *training["evaluations"]):
        rows.setdefault(row["step"], {}).update(row)
    forms = {"step": ",", "tokens": ",", "seconds": ",.0f", "loss": ".4f", "val_loss": ".4f", "tokens_per_second": ",.0f"}
    return [tuple(format(rows[step][name], form) if name in rows[step] else "" for name, form in forms.items()) for step in sorted(rows)]


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *lines]) if lines else ""


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)
