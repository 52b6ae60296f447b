"""Escape sequences in texts, names of files, fields and settings: none reaches the terminal, and every text stays text."""

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pexpect
import pytest
import torch

from exporting.hugging_face_export import write_hugging_face_folder
from formats.checkpoint import load_checkpoint
from system.escapes import escape_controls
from tests.conftest import ROOT, call_script, make_documents, make_pairs, write_jsonl, write_pairs
from tests.faults.sealed import sealed_in
from tests.faults.trials import Trials
from tokens.reversal import reorder

SEQUENCES = {
    "color": "\x1b[38;5;201m",
    "clear the screen": "\x1b[2J\x1b[3J",
    "title": "\x1b]0;owned\x07",
    "link": "\x1b]8;;http:owned\x1b\\text\x1b]8;;\x1b\\",
    "clipboard": "\x1b]52;c;b3duZWQ=\x07",
    "device control": "\x1bP$qm\x1b\\",
    "application command": "\x1b_owned\x1b\\",
    "report of the position": "\x1b[6n",
    "reset": "\x1bc",
    "C1 control sequence": "\x9b31m",
    "C1 operating system command": "\x9d0;owned\x9c",
    "overwriting the line": "safe\rowned",
    "overwriting characters": "safe\x08\x08owned",
    "moving the cursor": "owned\x1b[7;7H\x1b[9Aowned",
    "erasing": "owned\x1b[1K\x1b[9P",
    "what a screen of ours sends": "owned\x1b[2m\x1b[1;1H\x1b[Kowned",
    "bell": "\x07",
    "right to left override": "\u202eowned\u202c",
    "isolate": "\u2066owned\u2069",
    "marks of direction": "\u200f\u061c\u200e",
    "separators": "a\u2028b\u2029c\x85d\x0be\x0cf",
}
# What our programs send: the other screen, where a line begins, its end erased, and the plain styles of words.
OURS = re.compile(r"\x1b\[(\?(1049|25|2026)[hl]|\?2004[hl]\r?|[0-9]*;1H|[JK]|(0|[1-9]|[39][0-7])(;([1-9]|[39][0-7]))*m)")
BAR = re.compile(r"\r {9,}(\r|(?=\n))|\r(?=[^\r\n]*\[[0-9:]+[0-9][<,])")  # how far it is, drawn over what was there
EDITOR = re.compile(r"\x1b\[[0-9;]*[HJKABCDP@]|\x1b\[27m|\x1b[=>]")  # and the line editor, while it shows what is pasted
TURNS = re.compile("[\u202a-\u202e\u2066-\u2069\u200e\u200f\u061c\u2028\u2029]")
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def unsafe(shown: str) -> list[str]:
    """What a message must not hold."""
    return CONTROLS.findall(shown) + TURNS.findall(shown)


def unsafe_bytes(shown: str) -> list[str]:
    """The same for a terminal, beside what our programs send themselves, and the ends of lines."""
    whole = [name for name, sequence in SEQUENCES.items() if sequence in shown]
    return whole + unsafe(BAR.sub("", OURS.sub("", re.sub(r"\r+\n", "\n", shown))))


@contextmanager
def prompt(folder: Path, script: str, *flags: object) -> Iterator["pexpect.spawn[str]"]:
    """A script in a real terminal, without the bell of the line editor."""
    (folder / "inputrc").write_text("set bell-style none\n")
    inherited = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
    variables = {"TERM": "xterm-256color", "XDG_STATE_HOME": str(folder), "OMP_NUM_THREADS": "1", "INPUTRC": str(folder / "inputrc")}
    variables["PYTHONPATH"] = str(ROOT)
    line = [str(ROOT / script), *map(str, flags)]
    child = pexpect.spawn(sys.executable, line, env=inherited | variables, encoding="utf-8", codec_errors="replace", timeout=60, cwd=folder)
    try:
        yield child
    finally:
        child.close(force=True)


@pytest.mark.faults
@pytest.mark.parametrize(("script", "stage"), [("sample_xcoax.py", "pretraining"), ("sample_xcoax_instruct.py", "tuning")])
def test_nothing_drives_the_terminal_at_the_prompt(
    trials: Callable[..., Trials], checkpoints: dict[str, Path], tmp_path: Path, script: str, stage: str
) -> None:
    """Pasted, as settings and as commands."""
    tried = trials("escape sequences at the prompt, in a real terminal")
    place = tmp_path / "a\x1b]0;owned\x07b\x9b31m"
    shutil.copytree(checkpoints[stage].parent, place)
    label = "Response: " if stage == "tuning" else "Prompt: "
    with prompt(tmp_path, script, "--model-path", place / "best_checkpoint.pt", "--max-new-tokens", 60, "--num-samples", 2) as child:
        child.expect_exact(label)
        for name, sequence in SEQUENCES.items():
            lines = (
                f"the {sequence} cat",
                f"temp={sequence}",
                f"/save {sequence}x",
                f"/picture {sequence}.svg",
                f"/pick {sequence}",
                f"raw{sequence}",
            )
            for line in lines:
                with tried.one(f"{name}: {line!r}"):
                    child.send(f"\x1b[200~{line}\x1b[201~\r")
                    child.expect_exact(f"\n{label}")
                    echo, _, shown = (child.before or "").partition("\x1b[?2004l\r")
                    assert shown and not unsafe_bytes(shown), (unsafe_bytes(shown), shown)
                    # The line editor shows what was pasted: C0 made visible, C1 and direction as the terminal let them through.
                    assert "\x1b" not in EDITOR.sub("", OURS.sub("", echo)) and "\x07" not in echo, echo
        child.sendeof()
        child.expect(pexpect.EOF)


@pytest.mark.faults
def test_a_model_that_writes_them_shows_them(trials: Callable[..., Trials], checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """It is made to: what it writes must be on the screen, and nothing but its shown form."""
    tried = trials("escape sequences that a model writes, in a real terminal")
    model = checkpoints["pretraining"]
    text = f"before {' and '.join(SEQUENCES.values())} after "
    ids = load_checkpoint(model).tokenizer.encode(reorder(text, "backward"))
    flags = ["--model-path", model, "--prompt", "x", "--max-new-tokens", len(ids) + 9, "--num-samples", 1]
    with prompt(tmp_path, "tests/faults/rigged_script.py", ids, ROOT / "sample_xcoax.py", *flags) as child:
        child.expect(pexpect.EOF)
        shown = child.before or ""
    live, _, kept = (re.sub(r"\s", "", OURS.sub("", each)) for each in shown.rpartition("\x1b[?1049l"))
    for name, sequence in SEQUENCES.items():
        with tried.one(name):
            assert not unsafe_bytes(shown), (unsafe_bytes(shown), shown)
            visible = re.sub(r"\s", "", escape_controls(sequence))
            assert visible in kept and "\u241b" in live, (visible, shown)


@pytest.mark.faults
def test_nothing_drives_the_terminal_while_scripts_run(
    trials: Callable[..., Trials], checkpoints: dict[str, Path], dataset_folder: Path, tmp_path: Path
) -> None:
    """In a terminal they draw tables, bars and colors; every name that they show is hostile."""
    tried = trials("escape sequences in names and settings")
    sequence = "".join(SEQUENCES.values()).replace("/", "")
    model, data = hostile_checkpoint(checkpoints["tuning"], tmp_path / "m" / "best_checkpoint.pt", sequence), tmp_path / f"d{sequence}"
    shutil.copytree(dataset_folder, data)
    texts = tmp_path / "texts"
    texts.mkdir()
    write_jsonl(texts / f"texts{sequence}.jsonl", make_documents(60))
    (texts / f"other{sequence}.bin").touch()
    made = ["--data-dir", tmp_path / f"new{sequence}", "--tokenizer", model, "--workers", 1, "--val-share", 0.1]
    for command in (
        ["evaluate_xcoax.py", "--model-path", model, "--data-dir", data, "--documents", 4, "--hellaswag", "", "--device", "cpu"],
        ["preprocess_xcoax.py", "--input", texts, *made],
        ["preprocess_xcoax.py", "--input", texts, "--field", sequence, *made],
    ):
        with tried.one(command[0]) as trial, prompt(tmp_path, *map(str, command)) as child:
            child.expect(pexpect.EOF)
            shown = child.before or ""
            assert "Traceback" not in shown and not unsafe_bytes(shown), (unsafe_bytes(shown), shown)
            assert "\u241b[7;7H" in re.sub(r"\s", "", shown), f"no name was shown: {shown}"
            child.close()
            trial.refused = child.exitstatus != 0


def hostile_checkpoint(sound: Path, path: Path, sequence: str, **changes: Any) -> Path:
    """A sound checkpoint with the sequence in every setting that is a text."""
    content = torch.load(sound, weights_only=True)
    path.parent.mkdir(exist_ok=True)
    settings = dict.fromkeys(("data_dir", "init_from", "model_path", "out_dir", "dataset", "optimizer", sequence), sequence)
    with path.open("wb") as file:  # torch itself refuses some of these names
        torch.save({**content, "train_config": settings, "identity": {"the data": sequence, sequence: sequence}, **changes}, file)
    return path


def hostile_messages(folder: Path, sequence: str, checkpoints: dict[str, Path], dataset: Path) -> Iterator[list[object]]:
    """Commands that have something to say about what is hostile in files."""
    name = sequence.replace("/", "")
    sound = checkpoints["tuning"]
    model = hostile_checkpoint(sound, folder / f"model{name}.pt", sequence)
    pairs = write_pairs(folder / f"pairs{name}.jsonl", make_pairs(3))
    fields = write_pairs(folder / "fields.jsonl", [{sequence: "x", f"b{sequence}": 1}])
    (folder / f"table{name}.csv").write_text(f'"{sequence.replace(chr(13), "")}","b"\nx,y\n', encoding="utf-8")
    (folder / f"bad{name}.jsonl").write_text(f'{{"text": {sequence}\n', encoding="utf-8")
    (folder / f"kind{name}.bin").touch()
    out = folder / f"out{name}"
    wrong: list[dict[str, Any]] = [{name: sequence} for name in ("order", "stage", "format", "step")]
    for changes in (*wrong, {"model_config": {sequence: 1}}):
        changed = hostile_checkpoint(sound, folder / "x.pt", sequence, **changes)
        yield ["score_xcoax.py", "--model-path", changed, "--pairs", pairs, "--output", out / "a.jsonl"]
    yield ["sample_xcoax.py", "--model-path", folder / f"absent{name}.pt", "--prompt", "x"]
    yield ["score_xcoax.py", "--model-path", model, "--pairs", fields, "--output", out / "b.jsonl"]
    yield ["score_xcoax.py", "--model-path", model, "--pairs", pairs, "--output", out / f"c{name}.jsonl"]
    yield ["score_xcoax.py", "--model-path", model, "--pairs", pairs, "--output", out / f"c{name}.jsonl"]  # it is there now
    for source in (fields, folder / f"table{name}.csv", folder / f"bad{name}.jsonl", folder / f"kind{name}.bin", folder):
        yield ["preprocess_xcoax.py", "--input", source, "--data-dir", out / "d", "--vocab-size", 400, "--workers", 1]
        yield ["preprocess_instruct.py", "--input", source, "--data-dir", out / "d", "--tokenizer", dataset, "--workers", 1]
    for file, change in (("meta.json", {"order": sequence}), ("meta.json", {"content": sequence}), ("meta.json", {"vocab_size": sequence})):
        data = shutil.copytree(dataset, folder / f"data{name}", dirs_exist_ok=True)
        (data / file).write_text(json.dumps(json.loads((data / file).read_text(encoding="utf-8")) | change), encoding="utf-8")
        yield ["train_xcoax.py", "--data-dir", data, "--out-dir", out / "e"]
    edits: list[tuple[str, dict[str, Any]]] = [("config.json", {"architectures": [sequence]}), ("config.json", {"hidden_act": sequence})]
    for file, edit in (*edits, ("backgpt.json", {"order": sequence})):
        hf = folder / f"hf{name}"
        shutil.rmtree(hf, ignore_errors=True)
        hf.mkdir()
        write_hugging_face_folder(load_checkpoint(sound), hf, torch.float32, "")
        (hf / file).write_text(json.dumps(json.loads((hf / file).read_text(encoding="utf-8")) | edit), encoding="utf-8")
        yield ["export_xcoax.py", "--model-path", hf, "--out-dir", out / "f"]
    (hf / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": f"../{sequence}.safetensors"}}), encoding="utf-8")
    yield ["export_xcoax.py", "--model-path", hf, "--out-dir", out / "f"]
    yield ["train_xcoax.py", "xcoax", f"extra{sequence}.pt"]
    yield ["train_xcoax.py", f"no{sequence}"]
    yield ["train_xcoax.py", "--like", hf, "--out-dir", out / "g"]


@pytest.mark.parametrize("count", [1, pytest.param(len(SEQUENCES), marks=pytest.mark.faults)])
def test_no_message_drives_the_terminal(
    trials: Callable[..., Trials], checkpoints: dict[str, Path], dataset_folder: Path, tmp_path: Path, count: int
) -> None:
    tried = trials("escape sequences in names and settings")
    with sealed_in(tmp_path) as sealed:
        for number, (name, sequence) in enumerate([*SEQUENCES.items()][2 : 2 + count] if count == 1 else SEQUENCES.items()):
            folder = tmp_path / str(number)
            folder.mkdir()
            for command in hostile_messages(folder, sequence, checkpoints, dataset_folder):
                with tried.one(f"{name}: {command[0]} {command[1:]}") as trial:
                    result = call_script(*command, cwd=folder)
                    assert "Traceback" not in result.stderr, result.stderr
                    assert not unsafe(result.stdout + result.stderr), (unsafe(result.stdout + result.stderr), result)
                    trial.refused = result.returncode != 0
                    sealed.check()
            shutil.rmtree(folder)
