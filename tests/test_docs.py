"""README.md and docs/ tell the truth: their commands exist and run, their links are alive, and the files they name exist."""

import dataclasses
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from model import GPT
from preprocessing.toy_world import pairs, stories
from presets import (
    BENCHMARK_PRESETS,
    EVALUATE_PRESETS,
    EXPORT_PRESETS,
    FINETUNE_PRESETS,
    INSTRUCT_PRESETS,
    PREPROCESS_PRESETS,
    SAMPLE_INSTRUCT_PRESETS,
    SAMPLE_PRESETS,
    SCORE_PRESETS,
    TRAIN_PRESETS,
)
from system.command_line import read_flags
from system.device_names import PEAK_TFLOPS
from tests.conftest import ROOT, copy_project

README = ROOT / "README.md"
MODELS = ROOT / "assets" / "small" / "README.md"
PAGES = [README, ROOT / "RESULTS.md", MODELS, *sorted((ROOT / "docs").glob("*.md"))]  # in this order their commands run
FOLDERS = ("assets", "data", "experiments", "out")
NOTES = [ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *(ROOT / folder / "README.md" for folder in FOLDERS)]
TEXTS = {page: page.read_text(encoding="utf-8") for page in (*PAGES, *NOTES)}
ROOMS = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))
BLOCKS = [block for page in PAGES for block in re.findall(r"^```sh( offline)?\n(.*?)^```", TEXTS[page], flags=re.MULTILINE | re.DOTALL)]
LINES = [re.sub(r"^torchrun (--\S+ )*", "python ", line) for _, block in BLOCKS for line in block.splitlines()]
COMMANDS = list(dict.fromkeys(line for line in LINES if line.startswith("python ")))
PRESETS: dict[str, dict[str, Any]] = {
    "preprocess_xcoax.py": PREPROCESS_PRESETS,
    "train_xcoax.py": TRAIN_PRESETS,
    "preprocess_instruct.py": INSTRUCT_PRESETS,
    "finetune_xcoax.py": FINETUNE_PRESETS,
    "sample_xcoax.py": SAMPLE_PRESETS,
    "sample_xcoax_instruct.py": SAMPLE_INSTRUCT_PRESETS,
    "score_xcoax.py": SCORE_PRESETS,
    "evaluate_xcoax.py": EVALUATE_PRESETS,
    "export_xcoax.py": EXPORT_PRESETS,
    "benchmark_xcoax.py": BENCHMARK_PRESETS,
}
CAPITALS_WITH_A_MEANING = {"XDG_STATE_HOME"}  # names that look like a place to fill in and are none


def prose(page: Path) -> str:
    """A page without its blocks of code, in which `#` begins a comment and brackets are no links."""
    return re.sub(r"^```.*?^```", "", TEXTS[page], flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What can stand behind `#` in a link to a page, as GitHub makes it of the headings."""
    headings = re.findall(r"^#+ (.*)", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def where_things_are() -> str:
    """The README's section that names every room and root file."""
    return TEXTS[README].partition("## Where things are\n")[2].partition("\n## ")[0]


def test_the_blocks_are_found() -> None:
    assert sum(bool(offline) for offline, _ in BLOCKS) >= 3
    assert len(COMMANDS) >= 20


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_flags_that_exist(command: str) -> None:
    _, script, *flags = shlex.split(command.partition(" < ")[0], comments=True)
    assert (ROOT / script).is_file()
    read_flags(PRESETS[script], "", flags)


def test_the_offline_blocks_run_one_after_the_other(tmp_path: Path) -> None:
    """As a newcomer runs them: in a copy of the project, with a folder of texts and a file of pairs."""
    folder = copy_project(tmp_path)
    (folder / "my_texts").mkdir()
    for index, text in enumerate(stories(600)):
        (folder / "my_texts" / f"{index}.txt").write_text(text + " and that was all.\n", encoding="utf-8")
    lines = [json.dumps(pair._asdict()) + "\n" for pair in pairs()[0][:300]]
    (folder / "my_pairs.jsonl").write_text("".join(lines), encoding="utf-8")
    script = "\n".join(block for offline, block in BLOCKS if offline)
    script = f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH\nset -e\n{script}"
    result = subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "and that was all." in result.stdout
    assert (folder / "out" / "mine" / "loss.png").is_file()
    assert (folder / "out" / "my-pairs" / "best_checkpoint.pt").is_file()


def test_the_readme_is_read_in_two_minutes() -> None:
    assert len(TEXTS[README].splitlines()) <= 200


def test_every_room_and_root_file_has_its_place_in_the_readme() -> None:
    section = where_things_are()
    for name in [*(path.name for path in ROOT.glob("*.py")), *(f"{room}/" for room in ROOMS)]:
        assert f"`{name}`" in section, name


def test_every_file_that_is_named_exists() -> None:
    """On the pages by its path from the root; in the README's table of rooms by its name within the room."""
    for line in where_things_are().splitlines():
        first, *rest = line.split("|")[1:-1] or [""]
        room = re.fullmatch(r" `(\w+)/` ", first)
        for name in re.findall(r"`(\w+\.py)`", "".join(rest)):
            assert (ROOT / (room[1] if room else "") / name).is_file(), f"{line[:20]}… {name}"
    for page in TEXTS:
        for name in re.findall(r"`((?:\w+/)*\w+\.py)\b", TEXTS[page] if page != README else TEXTS[page].replace(where_things_are(), "")):
            assert (ROOT / name).is_file(), f"{page.name}: {name}"


def made(preset: str) -> GPT:
    """The model of a preset, without memory for its weights."""
    with torch.device("meta"):
        return GPT(dataclasses.replace(TRAIN_PRESETS[preset].model, vocab_size=PREPROCESS_PRESETS[preset].vocab_size))


def row_of(page: Path, preset: str) -> str:
    """The first row of a table of presets on a page."""
    return next(line for line in TEXTS[page].splitlines() if line.startswith(f"| `{preset}` |"))


@pytest.mark.parametrize("preset", ["xcoax", "tinystories", "demo", "small"])
def test_the_table_of_presets_is_the_config(preset: str) -> None:
    train, row = TRAIN_PRESETS[preset], row_of(README, preset)
    shape = train.model
    assert (
        f"| {shape.n_layer}, {shape.n_head}, {shape.n_embed}, {shape.block_size} | {made(preset).count_parameters() / 1e6:.1f} M |" in row
    )
    assert f"{PREPROCESS_PRESETS[preset].vocab_size:,} ids" in row
    assert f"{train.sequences_per_step * shape.block_size:,} tokens × {train.max_steps:,} steps" in row
    assert f" {train.schedule}," in row


@pytest.mark.parametrize("preset", ["tinystories", "fineweb", "gibberish", "babygpt"])
def test_the_table_of_relatives_is_the_config_and_what_it_computes(preset: str) -> None:
    train, model = TRAIN_PRESETS[preset], made(preset)
    shape, count, ids = train.model, model.count_parameters(), PREPROCESS_PRESETS[preset].vocab_size
    tokens = train.sequences_per_step * shape.block_size
    recomputing = 4 / 3 if train.checkpoint_activations else 1
    hours = model.flops_per_token() * tokens * train.max_steps * recomputing / (0.4 * 1e12 * PEAK_TFLOPS["NVIDIA L40"]) / 3600
    row = row_of(ROOT / "docs" / "relatives.md", preset)
    assert row.startswith(f"| `{preset}` | {shape.n_layer}, {shape.n_head}, {shape.n_embed}, {shape.block_size} | {count / 1e6:,.1f} M |")
    assert row.endswith(f"| {ids:,} | {tokens:,} × {train.max_steps:,} | {hours:.1f} | {16 * count / 1e9:.1f} |")


def test_every_preset_is_in_the_readme() -> None:
    assert all(f"`{preset}`" in TEXTS[README] for preset in TRAIN_PRESETS)


def test_no_link_is_dead() -> None:
    for page in TEXTS:
        for target in re.findall(r"\]\(([^)]+)\)", prose(page)):
            if not target.startswith("https://"):
                file, _, anchor = target.partition("#")
                there = (page.parent / file).resolve() if file else page
                assert there.is_file(), f"{page.name}: {target}"
                assert not anchor or anchor in anchors(there), f"{page.name}: {target}"


def test_the_readme_links_to_every_page() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", TEXTS[README])
    assert {page.relative_to(ROOT).as_posix() for page in PAGES[1:]} <= set(targets)


def test_nothing_is_left_to_fill_in() -> None:
    for page in PAGES:
        assert not set(re.findall(r"\b[A-Z]+_[A-Z_]+\b", TEXTS[page])) - CAPITALS_WITH_A_MEANING, page.name
        assert not re.search(r"\b(TODO|FIXME|TBD)\b", TEXTS[page]), page.name


def test_nothing_of_a_machine_is_in_the_project() -> None:
    modules = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    for path in [*modules, *ROOT.glob("*.py"), *ROOT.glob("*.md"), *TEXTS, ROOT / "Makefile"]:
        if path != Path(__file__):
            assert not re.search(r"/(home|root|work|Users)/", path.read_text(encoding="utf-8")), path
