"""Checkpoints that carry code: none runs, whichever script reads the file, and whatever takes the place of what."""

import json
import pickle
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from exporting.hugging_face_export import write_hugging_face_folder
from formats.checkpoint import load_checkpoint
from formats.named_model import load_named_model
from preprocessing.given_tokenizer import load_given_tokenizer
from tests.conftest import ROOT, call_script, make_documents, make_pairs, write_jsonl, write_pairs
from tests.faults.in_children import refused
from tests.faults.sealed import Sealed, sealed_in
from tests.faults.trials import Trials
from tests.faults.tricks import Call, calls, containers, pickles, repacked

CODE = "checkpoints that carry code"
OUTSIDE = "models that name or link to files elsewhere"
FOLDERS = "Hugging Face folders that carry code"

# torch runs each of them without its guard: what a campaign finds harmless must be able to do harm.
CONTROL = """
import json, sys, time, warnings
from pathlib import Path
import torch
from tests.faults.tricks import containers, pickles
warnings.simplefilter("ignore")
folder = Path(sys.argv[1])
canary = folder / "canary"
report = open(folder / "control.jsonl", "w")
for name, data in pickles(canary, folder).items():
    for container, path in containers(Path(sys.argv[2]), folder / "control.pt", data):
        try:
            torch.load(path, weights_only=False)
        except Exception:
            pass
        deadline = time.monotonic() + (0.02 if container in sys.argv[3:] else 20)
        while not canary.exists() and time.monotonic() < deadline:
            time.sleep(0.002)  # some start a process and do not wait for it
        print(json.dumps([name, container, canary.exists()]), file=report, flush=True)
        if not canary.exists() and container not in sys.argv[3:]:
            sys.exit()
        canary.unlink(missing_ok=True)
"""
# Here torch reads the sound data.pkl, or nothing: they are tried because another reader could find the hostile one.
HARMLESS = ("a second data.pkl first", "another local file")


@pytest.fixture
def sealed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sealed]:
    with sealed_in(tmp_path) as sealed:
        yield sealed
        if request.node.get_closest_marker("faults"):
            time.sleep(1)  # some start a process and do not wait for it
        sealed.check()


@pytest.fixture(scope="module")
def exported(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound Hugging Face folder."""
    folder = tmp_path_factory.mktemp("exported")
    write_hugging_face_folder(load_checkpoint(checkpoints["tuning"]), folder, torch.float32, "")
    return folder


def try_to_read(trials: Trials, sealed: Sealed, what: str, *reads: Callable[[], object]) -> None:
    """One trial for each way to read a file."""
    for number, read in enumerate(reads):
        with trials.one(f"{what}, reader {number}") as trial:
            trial.refused = refused(read)
            sealed.check()


def readers(path: Path) -> list[Callable[[], object]]:
    """Every function that opens a checkpoint: mapped, whole, and for its tokenizer."""
    return [
        lambda: load_named_model(str(path)).make_model(torch.device("cpu")),
        lambda: load_checkpoint(path, mapped=False),
        lambda: load_given_tokenizer.__wrapped__(str(path)),
    ]


@pytest.mark.faults
def test_the_tricks_run_where_nothing_stops_them(trials: Callable[..., Trials], checkpoints: dict[str, Path], tmp_path: Path) -> None:
    control = trials("control: the same files, opened by torch without its guard, do run")
    command = [sys.executable, "-c", CONTROL, str(tmp_path), str(checkpoints["tuning"]), *HARMLESS]
    subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=300, check=True)
    rows = [json.loads(line) for line in (tmp_path / "control.jsonl").read_text().splitlines()]
    assert {container for _, container, has_run in rows if not has_run} <= set(HARMLESS), [row for row in rows if not row[2]]
    for name, container, has_run in rows:
        if container not in HARMLESS:
            with control.one(f"{name}, {container}"):
                assert has_run
    control.note = f"not those with {' or '.join(HARMLESS)}: torch itself finds no code there"


@pytest.mark.parametrize("is_long", [False, pytest.param(True, marks=pytest.mark.faults)])
def test_no_pickle_in_a_checkpoint_runs(trials: Callable[..., Trials], sealed: Sealed, checkpoints: dict[str, Path], is_long: bool) -> None:
    tried = trials(CODE)
    with warnings.catch_warnings(action="ignore"):
        for name, data in pickles(sealed.canary, sealed.folder).items():
            for number, (container, path) in enumerate(containers(checkpoints["tuning"], sealed.folder / "best_checkpoint.pt", data)):
                if is_long or not number:
                    try_to_read(tried, sealed, f"{name}, {container}", *readers(path)[: None if is_long else 1])
    assert tried.right == 0


@pytest.mark.parametrize("count", [2, pytest.param(100, marks=pytest.mark.faults)])
def test_no_value_of_a_checkpoint_runs(trials: Callable[..., Trials], sealed: Sealed, checkpoints: dict[str, Path], count: int) -> None:
    """Everything else in the file is sound: a call stands for one value, a setting, a tensor or its storage."""
    tried = trials(CODE)
    path = sealed.folder / "best_checkpoint.pt"
    content = torch.load(checkpoints["tuning"], weights_only=True)
    evil = calls(sealed.canary, sealed.folder)
    places: list[tuple[str, dict[str, Any]]] = [(key, {**content, key: value}) for key in content for value in [evil["os.system"]]]
    places += [("model", {**content, "model": {**content["model"], "norm.weight": value}}) for value in evil.values()]
    places += [("tokenizer", {**content, "tokenizer": pickle.dumps(value, 2)}) for value in evil.values()]
    places += [(f"optimizer: {name}", {**content, "optimizer": {"state": value}}) for name, value in evil.items()]
    for place, hostile in places[:count]:
        torch.save(hostile, path, pickle_protocol=2)
        try_to_read(tried, sealed, f"a call as {place}", *readers(path))
    assert tried.right == 0


def as_checkpoint(folder: Path, canary: Path, sound: Path, exported: Path) -> Path:
    return repacked(sound, folder / "evil.pt", pickles(canary, folder)["os.system"])


def as_bare_pickle(folder: Path, canary: Path, sound: Path, exported: Path) -> Path:
    (folder / "evil.pt").write_bytes(pickles(canary, folder)["exec"])
    return folder / "evil.pt"


def as_legacy(folder: Path, canary: Path, sound: Path, exported: Path) -> Path:
    torch.save(Call(exec, f"open({str(canary)!r}, 'w')"), folder / "evil.pt", _use_new_zipfile_serialization=False)
    return folder / "evil.pt"


def as_script_module(folder: Path, canary: Path, sound: Path, exported: Path) -> Path:
    with warnings.catch_warnings(action="ignore"):
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), folder / "evil.pt")
    return folder / "evil.pt"


def as_safetensors(folder: Path, canary: Path, sound: Path, exported: Path) -> Path:
    hf = shutil.copytree(exported, folder / "hf", dirs_exist_ok=True)
    (hf / "model.safetensors").write_bytes(pickles(canary, folder)["os.system"])
    return hf


def as_pytorch_model(folder: Path, canary: Path, sound: Path, exported: Path) -> Path:
    hf = shutil.copytree(exported, folder / "hf", dirs_exist_ok=True)
    (hf / "model.safetensors").rename(hf / "was.safetensors.old")
    (hf / "pytorch_model.bin").write_bytes(pickles(canary, folder)["os.system"])
    return hf


def as_named_by_the_index(folder: Path, canary: Path, sound: Path, exported: Path) -> Path:
    hf = as_pytorch_model(folder, canary, sound, exported)
    (hf / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"model.norm.weight": "pytorch_model.bin"}}))
    return hf


def as_tokenizer(folder: Path, canary: Path, sound: Path, exported: Path) -> Path:
    hf = shutil.copytree(exported, folder / "hf", dirs_exist_ok=True)
    (hf / "tokenizer.model").write_bytes(pickles(canary, folder)["os.system"])
    return hf


def as_remote_code(folder: Path, canary: Path, sound: Path, exported: Path) -> Path:
    """This one is sound for us: its code is simply never looked at."""
    hf = shutil.copytree(exported, folder / "hf", dirs_exist_ok=True)
    for name in ("modeling_evil.py", "tokenization_evil.py", "reverse.py", "conftest.py", "sitecustomize.py", "__init__.py", "torch.py"):
        (hf / name).write_text(f"open({str(canary)!r}, 'w')")
    for name, changes in (
        ("config.json", {"auto_map": {"AutoModelForCausalLM": "modeling_evil.Evil"}, "trust_remote_code": True}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["tokenization_evil.Evil", None]}, "trust_remote_code": True}),
        ("generation_config.json", {"custom_generate": "modeling_evil.py"}),
    ):
        content = json.loads((hf / name).read_text(encoding="utf-8"))
        (hf / name).write_text(json.dumps(content | changes), encoding="utf-8")
    return hf


def as_links_out(folder: Path, canary: Path, sound: Path, exported: Path) -> Path:
    hf = shutil.copytree(exported, folder / "hf", dirs_exist_ok=True)
    for name in ("model.safetensors", "tokenizer.model"):
        (hf / name).rename(folder / name)
        (hf / name).symlink_to(folder / name)
    return hf


def as_named_outside(folder: Path, canary: Path, sound: Path, exported: Path) -> Path:
    hf = shutil.copytree(exported, folder / "hf", dirs_exist_ok=True)
    shutil.copy(hf / "model.safetensors", folder / "model.safetensors")
    names = ("../model.safetensors", str(folder / "model.safetensors"), "hf://owner/name/model.safetensors", "./../hf/../model.safetensors")
    weight_map = {f"model.layers.{number}": name for number, name in enumerate(names)}
    (hf / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return hf


def as_names_of_the_hub(folder: Path, canary: Path, sound: Path, exported: Path) -> Path:
    """Sound, but for its settings, which name models and data elsewhere."""
    content = torch.load(sound, weights_only=True)
    places = dict.fromkeys(("init_from", "model_path", "data_dir", "dataset", "hellaswag", "text"), "hf://owner/name")
    torch.save({**content, "train_config": {**places, "input": ["https://example.org/a.jsonl"]}}, folder / "hub.pt")
    return folder / "hub.pt"


FORMS = {
    "a pickle in the archive": (CODE, as_checkpoint),
    "a bare pickle": (CODE, as_bare_pickle),
    "torch's format before zip": (CODE, as_legacy),
    "TorchScript": (CODE, as_script_module),
    "a pickle named model.safetensors": (FOLDERS, as_safetensors),
    "pytorch_model.bin": (FOLDERS, as_pytorch_model),
    "an index that names a .bin": (FOLDERS, as_named_by_the_index),
    "a pickle named tokenizer.model": (FOLDERS, as_tokenizer),
    "auto_map and Python files": (FOLDERS, as_remote_code),
    "links out of the folder": (OUTSIDE, as_links_out),
    "names of files outside": (OUTSIDE, as_named_outside),
    "names of places on the network": (OUTSIDE, as_names_of_the_hub),
}


def commands(path: Path, folder: Path, dataset: Path, sound: Path) -> dict[str, list[object]]:
    """Every script that reads a model, with the model in every place where one can be named."""
    texts = write_jsonl(folder / "texts.jsonl", make_documents(60))
    pairs = write_pairs(folder / "pairs.jsonl", make_pairs(9))
    out = folder / "out"
    resumed = folder / "resumed"
    if path.is_file():
        resumed.mkdir(exist_ok=True)
        shutil.copy(path, resumed / "last_checkpoint.pt")
    small = ["--max-steps", 1, "--device", "cpu", "--no-compile"]
    made: dict[str, list[object]] = {
        "sample": ["sample_xcoax.py", "--model-path", path, "--prompt", "x", "--max-new-tokens", 2],
        "sample, instructions": ["sample_xcoax_instruct.py", "--model-path", path, "--response", "x", "--max-new-tokens", 2],
        "sample a file": ["sample_xcoax_instruct.py", "--model-path", path, "--input", pairs, "--output", out / "rows.jsonl"],
        "score": ["score_xcoax.py", "--model-path", path, "--pairs", pairs, "--output", out / "scores.jsonl"],
        "finetune": [
            "finetune_xcoax.py",
            "--model-path",
            path,
            "--data-dir",
            dataset,
            "--out-dir",
            out / "tuned",
            "--epochs",
            1,
            *small[2:],
        ],
        "train --init-from": ["train_xcoax.py", "--init-from", path, "--data-dir", dataset, "--out-dir", out / "trained", *small],
        "evaluate": ["evaluate_xcoax.py", "--model-path", path, "--out-dir", out / "card", "--hellaswag", ""],
        "evaluate --against": ["evaluate_xcoax.py", "--model-path", sound, "--against", path, "--out-dir", out / "card", "--hellaswag", ""],
        "export": ["export_xcoax.py", "--model-path", path, "--out-dir", out / "hf", "--no-verify"],
        "export gguf": ["export_xcoax.py", "--model-path", path, "--out-dir", out / "gguf", "--format", "gguf"],
        "preprocess --tokenizer": ["preprocess_xcoax.py", "--input", texts, "--tokenizer", path, "--data-dir", out / "a", "--workers", 1],
        "pairs --tokenizer": ["preprocess_instruct.py", "--input", pairs, "--tokenizer", path, "--data-dir", out / "b", "--workers", 1],
    }
    if path.is_file():
        made["resume"] = ["train_xcoax.py", "demo", "--data-dir", dataset, "--out-dir", resumed, "--block-size", 64, *small]
    return made


@pytest.mark.parametrize("chosen", [["score"], pytest.param(None, marks=pytest.mark.faults)])
def test_no_script_runs_what_a_model_carries(
    trials: Callable[..., Trials],
    sealed: Sealed,
    checkpoints: dict[str, Path],
    exported: Path,
    dataset_folder: Path,
    chosen: list[str] | None,
) -> None:
    for number, (form, (kind, make)) in enumerate(FORMS.items()):
        folder = sealed.folder / str(number)
        folder.mkdir()
        path = make(folder, sealed.canary, checkpoints["tuning"], exported)
        tried = trials(kind)
        for name, command in commands(path, folder, dataset_folder, checkpoints["tuning"]).items():
            if chosen and name not in chosen:
                continue
            with tried.one(f"{name}: {form}") as trial:
                result = call_script(*command, cwd=path if path.is_dir() else folder)
                assert "Traceback" not in result.stderr, result.stderr
                trial.refused = result.returncode != 0
                assert not trial.refused or result.stderr.strip().count("\n") == 0, result.stderr
                is_tokenizer = "--tokenizer" in name and path.is_dir() and make not in (as_tokenizer, as_links_out)  # all that is read
                is_sound = is_tokenizer or make in (as_remote_code, as_names_of_the_hub)
                named = path.name in result.stderr or "last_checkpoint.pt" in result.stderr
                assert is_sound or (trial.refused and named), result.stdout + result.stderr
                sealed.check()
        shutil.rmtree(folder)
