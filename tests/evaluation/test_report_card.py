"""The report card as a user gets it: what is measured, what is left out and why, and user errors."""

import csv
import json
import math
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from evaluation.recovery import NONE, OTHER, OWN
from system.errors import UserError
from tests.conftest import ROOT, call_script, fails_with, make_pairs, run_script, write_pairs
from tests.evaluation.conftest import FEW, Card, evaluate_pairs, rows_of_report
from tests.evaluation.test_hellaswag import ROW, write_rows
from tests.ranks import torchrun


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sources")
    (folder / "book.txt").write_text("the cat sleeps under a tree. " * 400, encoding="utf-8")
    tasks = write_rows(folder / "tasks.jsonl", [{**ROW, "label": str(number % 4)} for number in range(8)])
    return {"pairs": write_pairs(folder / "pairs.jsonl", make_pairs(40)), "text": folder / "book.txt", "tasks": Path(tasks)}


@pytest.fixture(scope="module")
def card(checkpoints: dict[str, Path], dataset_folder: Path, sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Card:
    """A report card with every section, from the script in its own process."""
    folder = tmp_path_factory.mktemp("card")
    flags = ["--model-path", checkpoints["tuning"], "--against", checkpoints["pretraining"], "--data-dir", dataset_folder]
    flags += ["--text", sources["text"], "--pairs", sources["pairs"], *FEW, "--hellaswag", sources["tasks"], "--dtype", "float32"]
    result = run_script("evaluate_xcoax.py", *flags, "--out-dir", folder)
    assert result.returncode == 0, result.stderr
    return Card(folder, result.stdout, flags)


def test_every_section_is_in_the_report(card: Card) -> None:
    rows = rows_of_report(card.folder)
    assert [title.partition(":")[0] for title in rows] == [
        "Language", "Language", "Instructions, given a response", "Ranking", "Answers", "Filtering", "Writing", "HellaSwag, a control",
    ]  # fmt: skip
    assert not list(card.folder.glob("report_unfinished*"))
    markdown = (card.folder / "report.md").read_text(encoding="utf-8")
    assert (card.folder / "report_positions.png").read_bytes() != (card.folder / "report_positions1.png").read_bytes()  # of --text
    for name in ("report_positions.png", "report_positions1.png", "report_ranking.png"):
        assert (card.folder / name).read_bytes().startswith(b"\x89PNG")
        assert f"]({name})" in markdown


def test_language_rows(card: Card) -> None:
    rows = rows_of_report(card.folder)["Language: held-out documents of small"]
    for name in ("tuned, backward", "pretrained, backward"):  # the same weights under two names
        loss = rows[name]["loss, nats a token"]
        assert loss["low"] < loss["value"] < loss["high"]
        assert rows[name]["perplexity"]["value"] == pytest.approx(math.exp(loss["value"]))
    assert rows["tuned, backward"] == rows["pretrained, backward"]
    assert "gap" not in rows  # they are not twins


def test_instruction_rows(card: Card) -> None:
    rows = rows_of_report(card.folder)["Instructions, given a response"]
    assert set(rows) == {OWN, OTHER, NONE, f"{OTHER}, minus its own", f"{NONE}, minus its own"}
    for name in (OTHER, NONE):
        saved = rows[name]["bits per byte"]["value"] - rows[OWN]["bits per byte"]["value"]
        assert rows[f"{name}, minus its own"]["bits per byte"]["value"] == pytest.approx(saved)


def test_ranking_rows(card: Card) -> None:
    rows = rows_of_report(card.folder)["Ranking: the true instruction among others"]
    assert rows["5 others: chance"]["recall@1"]["value"] == pytest.approx(1 / 6)
    assert rows["10 others: chance"]["mean reciprocal rank"]["value"] == pytest.approx(np.mean([1 / rank for rank in range(1, 12)]))
    assert not any(name.startswith("99 others") for name in rows)
    assert "99 others: left out. A response has only 39 other instructions." in card.printed
    assert rows["10 others: BM25 word overlap"]["recall@1"]["value"] > 0.6  # these instructions repeat words of the response


def test_answer_rows(card: Card) -> None:
    rows = rows_of_report(card.folder)["Answers: the true answer among others"]
    assert rows["5 others: chance"]["recall@1"]["value"] == pytest.approx(1 / 6)
    assert rows["10 others: log P(instruction | answer)"]["recall@1"]["examples"] == 5  # a quarter of --ranked-pairs
    assert "99 others: left out. An instruction has only 39 other answers." in card.printed


def test_hellaswag_rows(card: Card) -> None:
    rows = rows_of_report(card.folder)["HellaSwag, a control"]
    assert rows["tuned, backward"]["whole text, in total"]["examples"] == 8
    assert rows["difference"]["whole text, in total"]["value"] == 0
    assert "log P(context | ending)" in card.printed and "chance is 25%" in card.printed


def assert_same_values(ours: Path, theirs: Path) -> None:
    """Two report cards of the same model, computed in another way."""
    first, second = rows_of_report(theirs), rows_of_report(ours)
    for title, rows in first.items():
        for name, cells in rows.items():
            for column, cell in cells.items():
                if not isinstance(cell, dict):
                    assert second[title][name][column] == cell
                elif title.partition(":")[0] in ("Language", "Instructions, given a response", "Filtering"):
                    tolerance = 1e-4 if column == "perplexity" else 1e-5
                    assert second[title][name][column]["value"] == pytest.approx(cell["value"], abs=tolerance)


def test_values_do_not_depend_on_the_batch_size(card: Card, tmp_path: Path) -> None:
    result = call_script("evaluate_xcoax.py", *card.flags, "--batch-size", 3, "--out-dir", tmp_path)
    assert result.returncode == 0, result.stderr
    assert_same_values(tmp_path, card.folder)


@pytest.mark.long
def test_two_processes_write_one_card(card: Card, tmp_path: Path) -> None:
    result = torchrun(2, ["evaluate_xcoax.py", *card.flags, "--out-dir", tmp_path])
    assert result.returncode == 0, result.stderr
    assert_same_values(tmp_path, card.folder)
    assert result.stdout.count("HellaSwag, a control") == card.printed.count("HellaSwag, a control")
    assert "wrote report.json" in result.stdout


def test_the_tables_for_a_paper(card: Card) -> None:
    lines = list(csv.DictReader((card.folder / "report.csv").read_text(encoding="utf-8").splitlines()))
    figures = {(line["model"], line["corpus"], line["measure"]): line for line in lines}
    assert len(figures) == len(lines)  # no two figures have the same names
    loss = figures["tuned, backward", "small", "Language: loss, nats a token"]
    cell = rows_of_report(card.folder)["Language: held-out documents of small"]["tuned, backward"]["loss, nats a token"]
    assert [float(loss[end]) for end in ("value", "low", "high")] == [cell[end] for end in ("value", "low", "high")]
    pairs = str(card.flags[card.flags.index("--pairs") + 1])
    assert ("tuned, backward", pairs, "Ranking: 5 others: chance: recall@1") in figures
    tasks = str(card.flags[card.flags.index("--hellaswag", card.flags.index("--hellaswag") + 1) + 1])
    assert ("pretrained, backward", tasks, "HellaSwag, a control: whole text, in total") in figures
    tabulars = (card.folder / "report.tex").read_text(encoding="utf-8")
    for name in ("tabular", "table"):
        assert tabulars.count(rf"\begin{{{name}}}") == tabulars.count(rf"\end{{{name}}}") == 8
    labels = re.findall(r"\\label{(.*)}", tabulars)
    assert len(set(labels)) == 8 and "tab:language-held-out-documents-of-small" in labels


def test_a_pretrained_model_gets_only_language_sections(checkpoints: dict[str, Path], dataset_folder: Path, tmp_path: Path) -> None:
    path = checkpoints["pretraining"]
    flags = ["--model-path", path, "--data-dir", dataset_folder, "--documents", 5, "--hellaswag", "", "--out-dir", tmp_path]
    result = call_script("evaluate_xcoax.py", *flags)
    assert result.returncode == 0, result.stderr
    assert [title for title, rows in rows_of_report(tmp_path).items() if rows] == ["Language: held-out documents of small"]
    assert f"Left out: {path} is pretrained but not tuned" in " ".join(result.stdout.split())
    assert re.search(r"\n5 of [\d,]+ held-out documents of ", result.stdout)


def test_a_run_with_nothing_to_measure_is_an_error(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    flags = ["--model-path", checkpoints["pretraining"], "--hellaswag", "", "--out-dir", tmp_path / "card"]
    result = call_script("evaluate_xcoax.py", *flags)
    fails_with(result, 1, "nothing can be measured. Left out: ", "does not say what it was trained on", "is pretrained but not tuned")
    assert not (tmp_path / "card").exists()


def test_a_hub_that_cannot_be_reached_leaves_hellaswag_out(
    checkpoints: dict[str, Path], dataset_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(source: str, limit: int) -> None:
        raise UserError("cannot reach Rowan/hellaswag on the hub. Name a file with --hellaswag")

    monkeypatch.setattr("evaluation.report_card.read_tasks", unreachable)
    flags = ["--model-path", checkpoints["pretraining"], "--data-dir", dataset_folder, "--documents", 3, "--out-dir", tmp_path]
    result = call_script("evaluate_xcoax.py", *flags)
    assert result.returncode == 0, result.stderr
    assert "Left out: cannot reach Rowan/hellaswag on the hub. Name a file with --hellaswag" in result.stdout


def test_an_interrupted_run_keeps_the_earlier_report_and_its_own_sections(
    checkpoints: dict[str, Path], dataset_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "report.json").write_text("earlier", encoding="utf-8")
    flags = ["--model-path", checkpoints["pretraining"], "--data-dir", dataset_folder, "--out-dir", tmp_path, "--dtype", "float32"]
    flags += ["--documents", 2, "--hellaswag", write_rows(tmp_path / "tasks.jsonl", [ROW] * 3000)]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "evaluate_xcoax.py"), *map(str, flags)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and not (tmp_path / "report_unfinished.json").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert (tmp_path / "report.json").read_text(encoding="utf-8") == "earlier"
    unfinished = json.loads((tmp_path / "report_unfinished.json").read_text(encoding="utf-8"))
    assert unfinished["sections"][0]["rows"]
    result = call_script("evaluate_xcoax.py", *flags, "--hellaswag-tasks", 10)
    assert result.returncode == 0, result.stderr
    assert rows_of_report(tmp_path)["HellaSwag, a control"]
    assert not list(tmp_path.glob("report_unfinished*"))


def test_one_pair_is_enough_and_its_long_response_is_cut(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    result = evaluate_pairs(checkpoints["tuning"], tmp_path, [{"instruction": "What is it?", "output": "word " * 3000}])
    assert result.returncode == 0, result.stderr
    assert "1 cut: response too long" in result.stdout
    assert "Left out: too few pairs with different responses." in result.stdout
    assert result.stdout.count("others: left out. A response has only 0 other instructions.") == 3


def test_few_pairs_and_long_ones(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    rows = [*make_pairs(6), {"instruction": "word " * 30, "output": "It is " * 300}, {"instruction": "x", "output": "y " * 900}]
    result = evaluate_pairs(checkpoints["tuning"], tmp_path, rows, "--candidates", 7)
    assert result.returncode == 0, result.stderr
    found = rows_of_report(tmp_path / "card")
    assert found["Ranking: the true instruction among others"]["7 others: chance"]["recall@5"]["value"] == pytest.approx(5 / 8)
    assert found["Writing: greedily"]["the model"]["chrF"]["examples"] == 8
    assert "No training pairs to compare with, so the evaluated pairs may be among them" in result.stdout


def test_texts_cannot_control_the_terminal(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    rows = [{"instruction": f"x {number}", "output": f"\x1b[2J {number} red"} for number in range(4)]
    result = evaluate_pairs(checkpoints["tuning"], tmp_path, rows)
    assert result.returncode == 0, result.stderr
    assert "\x1b" not in result.stdout + (tmp_path / "card" / "report.md").read_text(encoding="utf-8")
    assert "␛[2J" in result.stdout


@pytest.mark.parametrize(
    ("flags", "code", "part"),
    [
        ("--candidates 7 0", 2, "--candidates 7 0: one or more numbers above 0"),
        ("--stride 513", 2, "--stride 513: above the context of 512 tokens"),
        ("--mismatched-share 1", 2, "--mismatched-share 1.0: above 0 and below 1"),
        ("--pairs a --pairs-dir b", 2, "--pairs and --pairs-dir: use only one of them"),
        ("--data-dir nowhere", 1, "no finished dataset in nowhere"),
        ("--text nowhere.txt", 2, "--text nowhere.txt: no such file"),
        ("--hellaswag nowhere.jsonl", 2, "nowhere.jsonl: no such file"),
        ("--against nowhere.pt", 1, "no checkpoint at nowhere.pt"),
        ("--out-dir README.md/x --text {text}", 1, "cannot write README.md/x: Not a directory"),
    ],
)
def test_a_user_error_is_one_line(checkpoints: dict[str, Path], sources: dict[str, Path], flags: str, code: int, part: str) -> None:
    given = [flag.format(**sources) for flag in flags.split()]
    fails_with(call_script("evaluate_xcoax.py", "--model-path", checkpoints["tuning"], "--hellaswag", "", *given), code, part)
