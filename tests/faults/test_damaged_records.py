"""Damaged logs, records and reports of runs: a run resumes, is imitated or draws its curve, or one line says what is wrong."""

import dataclasses
import json
import types
from collections.abc import Callable
from functools import partial
from itertools import chain
from pathlib import Path

import pytest

from benchmarking.gpu_report import read_benchmark, read_tests
from benchmarking.stages import Stage
from config import LoopConfig
from exporting.model_card import write_model_card
from formats.checkpoint import load_checkpoint
from presets import FINETUNE_PRESETS, TRAIN_PRESETS
from sampling.history import History
from system.files import write_json
from tests.faults.in_children import Start, counts, refused, try_each
from tests.faults.json_mutants import json_mutants
from tests.faults.mutants import are_among, byte_mutants, in_file, intact, text_places
from tests.faults.trials import Outcome, Trials
from training.loss_curve import draw_loss_curve
from training.metrics import METRICS, MetricsLog, read_metrics
from training.run_record import DATA, GIVEN, RECORD, RESOLVED, like_run, likeness

QUICK = 20
DRAWN = 100  # of this many mutants, one is drawn, which is slow


def try_text(trials: Trials, path: Path, count: int, read: Callable[[], int]) -> None:
    """Damage the bytes of a text file and, if it is JSON or JSON lines, the values in it."""
    content = path.read_bytes()
    lines = content.splitlines()

    def write_and_read(damaged: bytes) -> int:
        path.write_bytes(damaged)
        return read()

    assert read() == Outcome.RIGHT, "the sound file is not read right"
    damaged = byte_mutants(content, text_places(content), count // 2)
    if path.suffix == ".json":
        values = json_mutants(json.loads(content), count // 2, indent=1)
    else:
        values = in_file(json_mutants(json.loads(lines[0]), count // 2), lines[:2], lines[2:])
    try_each(trials, chain(damaged, values), write_and_read)


@counts(QUICK)
def test_damaged_metrics(trials: Start, tmp_path: Path, count: int) -> None:
    """They never keep a run from resuming: nothing is refused, and each row that is whole is kept."""
    with MetricsLog(tmp_path, resumed_step=0, tensorboard=False) as metrics:
        for step in range(1, 5):
            metrics.add(step, tokens=step * 1000, loss=7.25 / step, learning_rate=3e-4, grad_norm=0.5)
            metrics.add(step, tokens=step * 1000, val_loss=7.5 / step, sample='naïve 日本\n\u2028 "x" \u0001')
    before = (tmp_path / METRICS).read_bytes()
    sound = {line: json.loads(line) for line in before.splitlines()}
    tried = 0

    def read() -> int:
        nonlocal tried
        damaged = (tmp_path / METRICS).read_bytes()
        whole = intact(damaged, sound)
        found = read_metrics(tmp_path)
        assert are_among(whole, found)
        assert len(found) <= len(damaged.split(b"\n"))
        if (tried := tried + 1) % DRAWN == 1:
            draw_loss_curve(tmp_path)
        with MetricsLog(tmp_path, resumed_step=2, tensorboard=False) as metrics:
            metrics.add(3, loss=1.0)
        *kept, last = read_metrics(tmp_path)
        assert last == {"step": 3, "loss": 1.0}
        assert len(kept) == sum(row["step"] <= 2 for row in found)
        assert are_among([row for row in whole if row["step"] <= 2], kept)
        return Outcome.RIGHT if found == [*sound.values()] else Outcome.CHANGED

    read()
    (tmp_path / METRICS).write_bytes(before)
    try_text(trials("damage in metrics.jsonl"), tmp_path / METRICS, count, read)


@pytest.mark.parametrize("preset", [TRAIN_PRESETS["demo"], FINETUNE_PRESETS["demo"]], ids=["pretraining", "tuning"])
@counts(QUICK)
def test_damaged_records(trials: Start, tmp_path: Path, preset: LoopConfig, count: int) -> None:
    """config.json, for --like."""
    record = {**dataclasses.asdict(preset), RESOLVED: ["1.0 M parameters", "data"], GIVEN: {"epochs": 2}, DATA: "0123", "command": "python"}
    write_json(tmp_path / RECORD, record)

    def read() -> int:
        def use() -> None:
            config = like_run(preset, tmp_path, {"out_dir"})
            assert type(config) is type(preset)
            config.check()
            for field in dataclasses.fields(config):
                assert not isinstance(getattr(config, field.name), list), field.name

            likeness(dataclasses.replace(preset, like=str(tmp_path)))

        if refused(use, tmp_path):
            return Outcome.REFUSED
        return Outcome.RIGHT if same_facts(tmp_path / RECORD, json.loads(json.dumps(record))) else Outcome.CHANGED

    try_text(trials("damage in config.json"), tmp_path / RECORD, count // 2, read)


@counts(QUICK)
def test_damaged_reports_beside_a_model(trials: Start, checkpoints: dict[str, Path], tmp_path: Path, count: int) -> None:
    """report.json and the data folder's meta.json, from which the card of an exported model takes what it can: nothing is refused."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "best_checkpoint.pt").write_bytes(checkpoints["tuning"].read_bytes())
    (folder / "report.md").write_text("# Report\n\n## Loss\n\n| a |\n|---|\n")
    sound = load_checkpoint(folder)
    checkpoint = dataclasses.replace(sound, train_config={"data_dir": str(folder), "lr": 1e-3})
    write_json(folder / "report.json", {"model": f"step {sound.step:,}, {sound.tokens:,} tokens seen", "settings": {"pairs": "a/b"}})
    write_json(folder / "meta.json", {"settings": {"input": ["a.txt (1 bytes)"], "dataset": "x", "subset": ""}})
    out = tmp_path / "out"
    out.mkdir()

    def card() -> str:
        write_model_card(checkpoint, out, "")
        return (out / "README.md").read_text()

    whole = card()
    head, tail = whole[: whole.index("Tuned on ")], whole[whole.index("## Limits") :]
    assert "Tuned on a.txt: step" in whole
    assert "### Loss" in whole

    def read(path: Path, facts: object) -> int:
        found = card()
        assert found == whole or not same_facts(path, facts)
        assert found.startswith(f"{head}Tuned on ")
        assert found.endswith(tail)
        assert "### Loss" in found or "\nNot measured: " in found
        assert path.name == "report.json" or "### Loss" in found
        assert path.name == "meta.json" or "Tuned on a.txt: step" in found
        return Outcome.RIGHT if found == whole else Outcome.CHANGED

    kind = trials("damage in a report beside a model")
    for name in ("report.json", "meta.json"):
        content = (folder / name).read_bytes()
        try_text(kind, folder / name, count // 2, partial(read, folder / name, json.loads(content)))
        (folder / name).write_bytes(content)


def same_facts(path: Path, facts: object) -> bool:
    """Whether a damaged file still says the same, for whoever reads JSON."""
    try:
        return json.dumps(json.loads(path.read_bytes().decode())) == json.dumps(facts)
    except (ValueError, RecursionError):
        return False


@counts(QUICK)
def test_damaged_history(trials: Start, tmp_path: Path, count: int) -> None:
    """Of the prompt: whatever is in the file, the prompt starts, each entry is a text, and those whose lines are whole are there."""
    entries: list[str] = []
    editor = types.ModuleType("readline")
    editor.add_history = entries.append  # type: ignore[attr-defined]
    path = tmp_path / "prompt.history"
    typed = {json.dumps(text).encode(): text for text in ("one", 'two\n"é"', "日本 \u0001")}
    path.write_bytes(b"\n".join([*typed, b""]))

    def read() -> int:
        entries.clear()
        History(editor, path).load()
        assert all(isinstance(entry, str) for entry in entries)
        assert are_among(intact(path.read_bytes(), typed), entries)
        return Outcome.RIGHT if entries == [*typed.values()] else Outcome.CHANGED

    try_text(trials("damage in the history of the prompt"), path, count, read)


@counts(QUICK)
def test_damaged_results_of_stages(trials: Start, tmp_path: Path, count: int) -> None:
    """What a stage of `make gpu` left behind, perhaps on a full disk."""
    figures, tests = tmp_path / "benchmark.json", tmp_path / "tests.xml"
    figures.write_text('{"machine": {"cores": 2}, "figures": [1.5, null]}')
    case = '<testcase classname="tests.a" name="b"><failure message="x">y</failure></testcase>'
    tests.write_text(f'<?xml version="1.0" encoding="utf-8"?><testsuites><testsuite>{case}</testsuite></testsuites>')
    stage = Stage("python -m x", "", 0, 30.0)
    kind = trials("damage in results of a stage")
    try_text(kind, figures, count // 2, lambda: bool(read_benchmark(figures, stage)["problem"]))
    content = tests.read_bytes()

    def read(damaged: bytes) -> bool:
        tests.write_bytes(damaged)
        found = read_tests(tests, stage)
        assert found["passed"] >= 0
        return "cannot be read" in found["problem"]

    try_each(kind, byte_mutants(content, text_places(content), count // 2), read)
