"""Starting and resuming runs: the files of a run, what may change on resuming, compiling, disk space."""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest
import torch

from formats.checkpoint import load_checkpoint
from model import GPT
from presets import TRAIN_PRESETS
from system.errors import UserError
from system.files import lock_folder
from tests.conftest import ROOT, fails_with
from tests.preprocessing.in_process import run_here
from tests.training.counting import make_trainer
from tests.training.runs import PRETRAINING, Run, pretrain, pretraining_command, resumed_step
from training.metrics import read_metrics
from training.optimizer import Optimizers
from training.run import long_step, require_disk_space, require_memory


@contextlib.contextmanager
def compiling_with(backend: str | Callable[..., object]) -> Iterator[None]:
    """Runs compile their model with this backend of torch.compile."""
    compile_in_place = GPT.compile
    compiled = []

    def compile_with_backend(model: GPT, *, dynamic: bool) -> None:
        compile_in_place(model, backend=backend, dynamic=dynamic)
        compiled.append(model)

    with mock.patch.object(GPT, "compile", compile_with_backend), mock.patch("training.run.compile_problem", return_value=None):
        yield
    torch.compiler.reset()
    assert compiled


def test_a_run_learns_and_leaves_its_files(pretrained: Run) -> None:
    folder = pretrained.folder
    rows = read_metrics(folder)
    validation = [row["val_loss"] for row in rows if "val_loss" in row]
    assert len(validation) == 6  # before the first step, then after every eighth
    assert validation[-1] < validation[0] - 0.3
    assert {"step", "tokens", "loss", "lr", "grad_norm", "tokens_per_second", "tflops"} <= rows[1].keys()
    assert all(row["sample"].endswith("The end.") for row in rows if "sample" in row)  # the prompt is the ending
    best, last = load_checkpoint(folder / "best_checkpoint.pt"), load_checkpoint(folder / "last_checkpoint.pt")
    assert best.val_loss == min(validation[1:])
    assert (last.step, last.tokens, last.order, last.val_loss) == (40, rows[-1]["tokens"], "backward", validation[-1])
    assert 0.99 * 40 * 4 * 64 < last.tokens <= 40 * 4 * 64  # the last window of the stream may be shorter
    assert best.resume_state is None
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((folder / "config.json").read_text())["max_steps"] == 40
    assert not list(folder.glob("*.part"))
    assert re.search(r"^finished in \d+ (min \d+ )?s of training: lowest validation loss ", pretrained.printed.splitlines()[-1])


def test_a_finished_run_says_so_and_continues_with_more_steps(dataset_folder: Path, tmp_path: Path) -> None:
    assert pretrain(dataset_folder, tmp_path, "--max-steps", 4).returncode == 0
    before = (tmp_path / "last_checkpoint.pt").read_bytes()
    result = pretrain(dataset_folder, tmp_path, "--max-steps", 4)
    assert result.returncode == 0
    assert "is already at step 4 of 4. To train longer, raise --max-steps" in result.stdout
    assert (tmp_path / "last_checkpoint.pt").read_bytes() == before
    result = pretrain(dataset_folder, tmp_path, "--max-steps", 6)
    assert resumed_step(result) == 4
    assert "changed settings: max_steps was 4, now 6" in result.stdout
    assert "the schedule now ends at step 6, no longer at 4: the learning rate " in result.stdout
    assert load_checkpoint(tmp_path / "last_checkpoint.pt").step == 6


def test_a_different_model_or_different_batches_cannot_resume(dataset_folder: Path, tmp_path: Path) -> None:
    assert pretrain(dataset_folder, tmp_path, "--max-steps", 2).returncode == 0
    fails_with(pretrain(dataset_folder, tmp_path, "--max-steps", 8, "--n-layer", 2), 1, "n_layer was 1, now 2", "--out-dir")
    fails_with(pretrain(dataset_folder, tmp_path, "--max-steps", 8, "--seed", 1), 1, "seed was 0, now 1")
    fails_with(pretrain(dataset_folder, tmp_path, "--max-steps", 4, "--batch-size", 3), 1, "sequences per step was 4, now 6")
    result = pretrain(dataset_folder, tmp_path, "--max-steps", 3, "--batch-size", 1, "--grad-accum", 4)  # the same batches
    assert resumed_step(result) == 2


def test_a_different_tokenizer_or_word_order_cannot_resume(dataset_folder: Path, pretrained: Run, tmp_path: Path) -> None:
    source = dataset_folder.parent / "documents.jsonl"
    flags = ["preprocess_xcoax.py", "--input", source, "--vocab-size", 400, "--val-share", 0.1]
    assert run_here(*flags, "--data-dir", tmp_path / "twin", "--order", "forward", "--tokenizer", dataset_folder).returncode == 0
    result = pretrain(tmp_path / "twin", pretrained.folder, *PRETRAINING, "--max-steps", 50)
    fails_with(result, 1, "order was 'backward', now 'forward'")
    assert run_here(*flags, "--data-dir", tmp_path / "other", "--sample-bytes", 4000).returncode == 0
    fails_with(pretrain(tmp_path / "other", pretrained.folder, *PRETRAINING, "--max-steps", 50), 1, "tokenizer was")


def test_pretraining_does_not_resume_a_tuning_run(dataset_folder: Path, tuned: Run, tmp_path: Path) -> None:
    shutil.copytree(tuned.folder, tmp_path / "out")
    result = pretrain(dataset_folder, tmp_path / "out", "--max-steps", 99)
    fails_with(result, 1, "comes from tuning, and this is pretraining. Use another --out-dir")


def test_checkpoints_without_what_resuming_needs_are_not_overwritten(dataset_folder: Path, tmp_path: Path) -> None:
    assert pretrain(dataset_folder, tmp_path, "--max-steps", 2).returncode == 0
    last = tmp_path / "last_checkpoint.pt"
    last.unlink()
    fails_with(
        pretrain(dataset_folder, tmp_path, "--max-steps", 2), 1, "best_checkpoint.pt belongs to a run that left no last_checkpoint.pt"
    )
    shutil.copy(tmp_path / "best_checkpoint.pt", last)
    fails_with(pretrain(dataset_folder, tmp_path, "--max-steps", 2), 1, "last_checkpoint.pt holds no optimizer state")


def test_two_runs_cannot_share_a_folder(dataset_folder: Path, tmp_path: Path) -> None:
    with lock_folder(tmp_path / "out", "--out-dir"):
        fails_with(pretrain(dataset_folder, tmp_path / "out"), 1, "another process is writing", "--out-dir")
    (tmp_path / "file").write_text("")
    fails_with(pretrain(dataset_folder, tmp_path / "file"), 1, "cannot write", "--out-dir")


def test_compiled_and_eager_runs_agree(dataset_folder: Path, tmp_path: Path) -> None:
    """aot_eager traces as the default backend does, but needs no C++ compiler and takes seconds."""
    with compiling_with("aot_eager"):
        assert_compiled_and_eager_runs_agree(dataset_folder, tmp_path)


@pytest.mark.long
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="torch.compile needs a C++ compiler on a CPU")
def test_a_run_compiled_with_the_default_backend_agrees(dataset_folder: Path, tmp_path: Path) -> None:
    assert_compiled_and_eager_runs_agree(dataset_folder, tmp_path)
    torch.compiler.reset()


def assert_compiled_and_eager_runs_agree(data: Path, folder: Path) -> None:
    losses, names = [], []
    for flag in ("--compile", "--no-compile"):
        result = pretrain(data, folder / flag, "--max-steps", 9, "--eval-every", 9, flag)
        assert result.returncode == 0, result.stderr
        assert "torch.compile does not work" not in result.stdout
        last = load_checkpoint(folder / flag / "last_checkpoint.pt")
        losses.append(last.val_loss)
        names.append(last.weights.keys())
    assert names[0] == names[1]  # compiling in place keeps the names
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_without_a_compiler_a_run_says_so_in_one_line_and_continues(dataset_folder: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "CXX": "/no/compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    command = pretraining_command(dataset_folder, tmp_path / "out", "--compile", "--max-steps", 1)
    line = [sys.executable, *map(str, command)]
    result = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("torch.compile does not work here, continuing without it: ") == 1


def test_an_error_of_the_compiler_ends_the_run_in_one_line(dataset_folder: Path, tmp_path: Path) -> None:
    def broken_backend(*_: object) -> object:
        raise ValueError("the backend is broken")

    with compiling_with(broken_backend):
        result = pretrain(dataset_folder, tmp_path, "--compile", "--max-steps", 1)
    fails_with(result, 1, "torch.compile failed: ", "Add --no-compile")


def test_an_error_that_is_not_the_compilers_stays_as_it_is(dataset_folder: Path, tmp_path: Path) -> None:
    with mock.patch.object(GPT, "forward", side_effect=RuntimeError("a bug")), pytest.raises(RuntimeError, match="a bug"):
        pretrain(dataset_folder, tmp_path, "--max-steps", 1)


def test_a_model_that_does_not_fit_into_the_machine_is_refused_before_it_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.run.machine_memory", lambda: 2 * 10**9)
    require_memory(TRAIN_PRESETS["xcoax"].model, torch.device("cuda"))
    with pytest.raises(UserError, match="a model of 161 M parameters needs 3 GB of memory here, and this machine has 2 GB. Use fewer"):
        require_memory(TRAIN_PRESETS["xcoax"].model, torch.device("cpu"))


def test_a_run_starts_only_if_its_checkpoints_fit_on_the_disk(
    dataset_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(dataset_folder, tmp_path, max_steps=2)
    weights = 4 * trainer.model.count_parameters()  # bytes
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=4 * weights))
    with pytest.raises(UserError, match="the checkpoints need"):
        require_disk_space(trainer.config, trainer.model)
    trainer.run()
    require_disk_space(trainer.config, trainer.model)  # the files that are already there will be replaced
    with pytest.raises(UserError, match="the checkpoints need"):
        require_disk_space(dataclasses.replace(trainer.config, keep_every=1, max_steps=9), trainer.model)


def test_running_out_of_memory_in_the_optimizer_step_ends_in_one_line(dataset_folder: Path, tmp_path: Path) -> None:
    """A smaller micro-batch would not help: activations are free by then."""
    message = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ... 1.20 GiB is free. Including non-PyTorch memory, this ..."
    with mock.patch.object(Optimizers, "step", side_effect=torch.OutOfMemoryError(message)):
        result = pretrain(dataset_folder, tmp_path, *PRETRAINING)
    fails_with(
        result,
        1,
        "Tried to allocate 2.00 GiB. GPU 0 has ... 1.20 GiB is free. Try a lower --batch-size, or a smaller model, or --device cpu",
    )


@pytest.mark.parametrize(("preset", "device", "warns"), [("xcoax", "cpu", True), ("xcoax", "cuda", False), ("demo", "cpu", False)])
def test_a_step_of_minutes_on_a_cpu_is_announced(preset: str, device: str, warns: bool) -> None:
    config = TRAIN_PRESETS[preset]
    with torch.device("meta"):
        model = GPT(config.model)
    with mock.patch("training.run.usable_processors", return_value=4):
        text = "".join(long_step(config, model, torch.device(device)))
    assert ("a step of 273 TFLOP may take 11 minutes on 4 CPU cores" in text) == warns, text
    assert bool(text) == warns
