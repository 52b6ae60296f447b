"""The report card as a user gets it: what is measured, what is left out and why, and what a person can get wrong."""

import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from checkpoint import load_checkpoint, save_checkpoint
from config import ModelConfig
from figures import Figure
from held_out import Held, _example
from language import Reading, Subject, gaps
from layout import Layout
from model import GPT
from packing import strangers
from pairs import Pair
from recovery import GIVEN, NONE, OTHER, OWN, Recovery, first_sentence
from scoring import Scorer
from tests.conftest import ROOT, fails_with, make_pairs, run_script, write_pairs
from tests.test_hellaswag import ROW, write_rows
from tokenizer import Tokenizer

FEW = ["--max-new-tokens", "4", "--ranked-pairs", "20", "--candidates", "5", "10", "99", "--hellaswag", ""]


def figures(folder: Path) -> dict[str, Any]:
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return {section["title"]: section["rows"] for section in report["sections"]}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sources")
    (folder / "book.txt").write_text("the cat sleeps under a tree. " * 400, encoding="utf-8")
    tasks = write_rows(folder / "tasks.jsonl", [{**ROW, "label": str(number % 4)} for number in range(8)])
    return {"pairs": write_pairs(folder / "pairs.jsonl", make_pairs(40)), "text": folder / "book.txt", "tasks": Path(tasks)}


@pytest.fixture(scope="module")
def whole(checkpoints: dict[str, Path], dataset_folder: Path, sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A card of everything, and what was printed."""
    folder = tmp_path_factory.mktemp("card")
    flags = ["--model-path", checkpoints["tuning"], "--against", checkpoints["pretraining"], "--data-dir", dataset_folder]
    flags += ["--text", sources["text"], "--pairs", sources["pairs"], *FEW, "--hellaswag", sources["tasks"], "--dtype", "float32"]
    result = run_script("evaluate_xcoax.py", *flags, "--out-dir", folder)
    assert result.returncode == 0, result.stderr
    return folder, result.stdout, flags


def test_everything_is_in_the_report(whole: Any, dataset_folder: Path) -> None:
    folder, printed, _ = whole
    found = figures(folder)
    assert [title.partition(":")[0] for title in found] == [
        "Language", "Language", "Instructions, given a response", "Ranking", "Filtering", "Writing", "HellaSwag, a control",
    ]  # fmt: skip
    language = found["Language: held-out documents"]
    for name in ("tuned, backward", "pretrained, backward"):  # the same weights under two names
        loss = language[name]["loss, nats a token"]
        assert loss["low"] < loss["value"] < loss["high"]
        assert language[name]["perplexity"]["value"] == pytest.approx(math.exp(loss["value"]))
    assert language["tuned, backward"] == language["pretrained, backward"]
    assert "gap" not in language  # they are no twins
    ranking = found["Ranking: the true instruction among others"]
    assert ranking["5 others: chance"]["recall@1"]["value"] == pytest.approx(1 / 6)
    assert ranking["10 others: chance"]["mean reciprocal rank"]["value"] == pytest.approx(np.mean([1 / place for place in range(1, 12)]))
    assert not any(name.startswith("99 others") for name in ranking)
    assert "Among 99 others: left out, there are only 39 others for every response." in printed
    assert ranking["10 others: BM25 word overlap"]["recall@1"]["value"] > 0.6  # these instructions repeat words of the response
    assert found["HellaSwag, a control"]["by the whole text, in total"]["tuned, backward"]["examples"] == 8
    assert found["HellaSwag, a control"]["by the whole text, in total"]["difference"]["value"] == 0
    assert "log P(context | ending)" in printed and "chance is 25%" in printed
    assert not list(folder.glob("report_unfinished*"))
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    assert (folder / "report_positions.png").read_bytes() != (folder / "report_positions1.png").read_bytes()  # of the text
    for name in ("report_positions.png", "report_positions1.png", "report_ranking.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
        assert f"]({name})" in markdown
    for line in markdown.splitlines():
        if line.startswith("| ") and "log P(instruction" in line:
            assert "log P(instruction \\| response)" in line  # a bar would end the cell
    bits = found["Instructions, given a response"]
    differences = {f"{name}, minus its own" for name in (OTHER, NONE)}
    assert set(bits) == {OWN, OTHER, NONE} | differences
    for name in (OTHER, NONE):
        saved = bits[name]["bits per byte"]["value"] - bits[OWN]["bits per byte"]["value"]
        assert bits[f"{name}, minus its own"]["bits per byte"]["value"] == pytest.approx(saved)


def test_the_same_again_whatever_the_batch(whole: Any, tmp_path: Path) -> None:
    folder, _, flags = whole
    result = run_script("evaluate_xcoax.py", *flags, "--batch-size", 3, "--out-dir", tmp_path)
    assert result.returncode == 0, result.stderr
    first, second = figures(folder), figures(tmp_path)
    for title, rows in first.items():
        for name, cells in rows.items():
            for column, cell in cells.items():
                if isinstance(cell, dict) and title.partition(":")[0] in ("Language", "Instructions, given a response", "Filtering"):
                    assert second[title][name][column]["value"] == pytest.approx(
                        cell["value"], abs=1e-4 if column == "perplexity" else 1e-5
                    )
                elif not isinstance(cell, dict):
                    assert second[title][name][column] == cell


def test_a_model_that_was_never_tuned_is_judged_by_its_language(checkpoints: dict[str, Path], dataset_folder: Path, tmp_path: Path) -> None:
    path = checkpoints["pretraining"]
    flags = ["--model-path", path, "--data-dir", dataset_folder, "--documents", 5, "--hellaswag", "", "--out-dir", tmp_path]
    result = run_script("evaluate_xcoax.py", *flags)
    assert result.returncode == 0, result.stderr
    assert [title for title, rows in figures(tmp_path).items() if rows] == ["Language: held-out documents"]
    assert f"Left out: {path} was pretrained and not tuned" in result.stdout.replace("\n", " ").replace("  ", " ")
    assert "5 of the " in result.stdout
    nothing = run_script("evaluate_xcoax.py", "--model-path", path, "--hellaswag", "", "--out-dir", tmp_path / "b")
    fails_with(nothing, 1, "nothing can be measured. Left out: ", "does not say what it was trained on", "was pretrained and not tuned")
    assert not (tmp_path / "b").exists()


def test_an_earlier_report_stays_until_the_new_one_is_whole(checkpoints: dict[str, Path], dataset_folder: Path, tmp_path: Path) -> None:
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
    kept = json.loads((tmp_path / "report_unfinished.json").read_text(encoding="utf-8"))
    assert kept["sections"][0]["rows"]
    result = run_script("evaluate_xcoax.py", *flags, "--hellaswag-tasks", 10)
    assert result.returncode == 0, result.stderr
    assert figures(tmp_path)["HellaSwag, a control"]
    assert not list(tmp_path.glob("report_unfinished*"))


def pairs_card(checkpoints: dict[str, Path], tmp_path: Path, rows: list[Any], *flags: object) -> Any:
    source = tmp_path / "pairs.jsonl"
    source.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8")
    common = ["--model-path", checkpoints["tuning"], "--pairs", source, *FEW, "--out-dir", tmp_path / "card"]
    return run_script("evaluate_xcoax.py", *common, *flags)


def test_pairs_that_are_none(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    fails_with(pairs_card(checkpoints, tmp_path, []), 2, "no usable pairs (none cut or left out here)")
    long = {"instruction": "word " * 2000, "output": "It is."}
    rows = [long, {"instruction": "", "output": "x"}, "{ no json", {"text": "x"}]
    fails_with(
        pairs_card(checkpoints, tmp_path, rows),
        2,
        "1 left out: empty instruction",
        "1 left out: instruction too long",
        "no pair in the row",
    )
    fails_with(
        run_script("evaluate_xcoax.py", "--model-path", checkpoints["tuning"], "--pairs", tmp_path / "none.jsonl"), 2, "no such file"
    )


def test_few_pairs_and_long_ones(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    one = pairs_card(checkpoints, tmp_path, [{"instruction": "What is it?", "output": "word " * 3000}])
    assert one.returncode == 0, one.stderr
    assert "1 responses cut" in one.stdout
    assert "Left out: too few pairs with different responses." in one.stdout
    assert one.stdout.count("others: left out, there are only 0 others") == 3
    rows = [*make_pairs(6), {"instruction": "word " * 30, "output": "It is " * 300}, {"instruction": "x", "output": "y " * 900}]
    several = pairs_card(checkpoints, tmp_path, rows, "--candidates", 7)
    assert several.returncode == 0, several.stderr
    found = figures(tmp_path / "card")
    assert found["Ranking: the true instruction among others"]["7 others: chance"]["recall@5"]["value"] == pytest.approx(5 / 8)
    assert found["Writing: greedily"]["the model"]["chrF"]["examples"] == 8
    assert "Without training pairs to compare with, so these may have been among them" in several.stdout


@pytest.mark.parametrize(
    ("flags", "code", "part"),
    [
        ("--candidates 7 0", 2, "--candidates 7 0: one number or more, above 0"),
        ("--stride 513", 2, "--stride 513: at most the context of 512 tokens"),
        ("--mismatched-share 1", 2, "--mismatched-share 1.0"),
        ("--pairs a --pairs-dir b", 2, "one of them"),
        ("--data-dir nowhere", 1, "no finished dataset in nowhere"),
        ("--text nowhere.txt", 2, "--text nowhere.txt: no such file"),
        ("--hellaswag nowhere.jsonl", 2, "nowhere.jsonl: no such file"),
        ("--against nowhere.pt", 1, "no checkpoint at nowhere.pt"),
        ("--out-dir README.md/x --text {text}", 2, "cannot write README.md/x: Not a directory"),
    ],
)
def test_what_cannot_be_is_one_line(checkpoints: dict[str, Path], sources: dict[str, Path], flags: str, code: int, part: str) -> None:
    given = [flag.format(**sources) for flag in flags.split()]
    fails_with(run_script("evaluate_xcoax.py", "--model-path", checkpoints["tuning"], "--hellaswag", "", *given), code, part)


def test_what_a_model_may_have_learnt_is_named(checkpoints: dict[str, Path], dataset_folder: Path, tmp_path: Path) -> None:
    flags = ["--model-path", checkpoints["pretraining"], "--data-dir", dataset_folder, "--documents", 3, "--hellaswag", ""]
    result = run_script("evaluate_xcoax.py", *flags, "--against", checkpoints["tuning"], "--out-dir", tmp_path)
    assert result.returncode == 0, result.stderr
    printed = " ".join(result.stdout.split())
    for path in checkpoints.values():
        assert f"{path}: the data folder of its training cannot be looked at" in printed
    assert printed.count("so these may have been in its training") == 2


def test_nothing_of_a_text_drives_the_terminal(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    result = pairs_card(checkpoints, tmp_path, [{"instruction": f"x {n}", "output": f"\x1b[2J {n} red"} for n in range(4)])
    assert result.returncode == 0, result.stderr
    assert "\x1b" not in result.stdout + (tmp_path / "card" / "report.md").read_text(encoding="utf-8")
    assert "␛[2J" in result.stdout


def test_the_gap_by_hand() -> None:
    tokens = np.array([10.0, 20.0, 40.0])
    one, other = (Reading([], factor * tokens, tokens * length) for factor, length in ((2.2, 1.1), (2.0, 1.0)))
    by_token, by_byte = gaps(one, other)
    for chosen in (np.array([0, 1, 2]), np.array([2, 2, 0])):
        assert by_token(chosen) == pytest.approx(0)  # 2 nats a token in both
        assert by_byte(chosen) == pytest.approx(0.1)


def test_first_sentences() -> None:
    assert [first_sentence(text) for text in ("It is 3.5 m. Or not.", "Who? Me", "One\ntwo.", "one", "")] == [
        "It is 3.5 m.", "Who?", "One", "one", "",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def forgetful(dataset_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """A model whose blocks add nothing, as it begins: it sees the last id alone, and so nothing of the response."""
    torch.manual_seed(0)
    model = GPT(ModelConfig(n_layer=1, n_head=2, n_embed=32, block_size=128, vocab_size=400))
    torch.nn.init.normal_(model.embedding.weight, std=0.4)
    path = tmp_path_factory.mktemp("forgetful") / "best_checkpoint.pt"
    save_checkpoint(
        path, model=model, train_config={}, stage="tuning", identity={}, tokenizer=Tokenizer.load(dataset_folder),
        order="backward", step=1, tokens=1, val_loss=6.0,
    )  # fmt: skip
    checkpoint = load_checkpoint(path)
    return Subject("forgetful", checkpoint, Scorer(checkpoint.make_model(torch.device("cpu")), 4))


def held(subject: Subject, pairs: list[Pair]) -> list[Held]:
    layout = Layout(subject.checkpoint.tokenizer, subject.checkpoint.order)
    return [Held(pair, example) for pair in pairs if (example := _example(pair, layout, subject.block_size)[0])]


def test_a_model_that_ignores_the_response_takes_nothing_from_it(forgetful: Subject) -> None:
    pairs = held(forgetful, [Pair(f"{pair['instruction']} {pair['input']}", pair["output"]) for pair in make_pairs(60)])
    judged = Recovery(forgetful, pairs, seed=0)
    assert judged.logprobs[OWN] == pytest.approx(judged.logprobs[NONE], abs=1e-4)
    assert judged.logprobs[OWN] == pytest.approx(judged.logprobs[OTHER], abs=1e-4)
    ranking, _ = judged.ranking(pairs, [10], 60)
    for column, chance in enumerate(ranking.rows["10 others: chance"]):
        found = ranking.rows[f"10 others: {GIVEN}"][column]
        assert isinstance(found, Figure) and isinstance(chance, Figure) and found.low is not None and found.high is not None
        assert found.low <= chance.value <= found.high


def test_what_is_no_mismatch_is_not_called_one(forgetful: Subject) -> None:
    same = held(forgetful, [Pair(f"Say {number}.", "Yes." if number % 3 else f"No {number}.") for number in range(30)])
    section = Recovery(forgetful, same, 0).filtering(0.5)
    assert not section.rows and "too few pairs with different responses" in section.notes[0]  # two thirds answer the same
    assert OTHER not in Recovery(forgetful, same, 0).logprobs
    # Each response answers two instructions, so another pair's response can be true of an instruction.
    twice = [Pair(f"Say {number % 3}.", f"It is {number // 2 % 3}.") for number in range(12)]
    true = set(twice)
    for seed in range(4):
        judged = Recovery(forgetful, held(forgetful, twice), seed)
        others = strangers([pair.response for pair in twice], seed)
        mismatches = [place for place, other in enumerate(others) if Pair(twice[place].instruction, twice[other].response) not in true]
        assert 0 < len(mismatches) < len(twice)
        assert judged.filtering(0.5).notes[0].startswith(f"{round(len(mismatches) / 2)} of {len(mismatches)} pairs")


def test_a_long_response_is_the_same_however_it_was_cut(forgetful: Subject) -> None:
    long = "word " * 400
    pairs = held(forgetful, [Pair("Say it.", long), Pair("Say it again, and once more.", long), Pair("What?", "No."), Pair("Who?", "Me.")])
    assert len({one.example.prompt for one in pairs[:2]}) == 2  # cut differently
    for seed in range(6):
        assert {*Recovery(forgetful, pairs, seed)._others[:2]} == {2, 3}


def test_instructions_with_the_same_response_are_no_wrong_answers(forgetful: Subject) -> None:
    pairs = held(forgetful, [Pair(f"Say {number} now.", "Yes." if number < 5 else f"No {number}.") for number in range(12)])
    section, _ = Recovery(forgetful, pairs, 0).ranking(pairs, [7, 8], 12)
    assert "7 others: chance" in section.rows
    assert section.notes[0] == "Among 8 others: left out, there are only 7 others for every response."
