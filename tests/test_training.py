"""The training loop: golden losses, resuming to the same bits, signals, full disks, memory that runs out, losses that explode."""

import dataclasses
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from checkpoint import load_checkpoint
from config import IGNORE, TRAIN_PRESETS, ModelConfig, TrainConfig
from disk import claim
from errors import Stopped, UserError
from evaluation import measure_loss
from metrics import draw_loss, read_metrics
from model import GPT
from shards import Rows, Windows, open_dataset
from tests.conftest import ROOT, fails_with, run_script
from tokenizer import Tokenizer
from training import Task, Trainer, require_room

TINY = (
    *("--n-layer", 1, "--n-head", 2, "--n-embed", 16, "--block-size", 16, "--batch-size", 2, "--grad-accum", 2, "--no-compile"),
    *(
        "--eval-tokens",
        256,
        "--warmup-steps",
        3,
        "--lr",
        3e-3,
        "--device",
        "cpu",
        "--dtype",
        "float32",
        "--log-every",
        1,
        "--sample-tokens",
        8,
    ),
)


def train(folder: Path, out: Path, *flags: object) -> subprocess.CompletedProcess[str]:
    return run_script("train_xcoax.py", "--data-dir", folder, "--out-dir", out, *TINY, *flags)


def whole_command(folder: Path, out: Path) -> list[str]:
    """The command of the run that the others are compared with."""
    flags = ["--data-dir", folder, "--out-dir", out, *TINY, "--max-steps", 40, "--eval-every", 8, "--dropout", 0.1, "--optimizer", "muon"]
    return [sys.executable, str(ROOT / "train_xcoax.py"), *map(str, flags)]


def weights(out: Path, name: str = "last_checkpoint.pt") -> dict[str, torch.Tensor]:
    return load_checkpoint(out / name).weights


def assert_same_bits(ours: Path, theirs: Path) -> None:
    for name in ("last_checkpoint.pt", "best_checkpoint.pt"):
        first, second = weights(ours, name), weights(theirs, name)
        assert first.keys() == second.keys()
        for key in first:
            assert torch.equal(first[key], second[key]), key


@pytest.fixture(scope="module")
def whole(dataset_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 40 steps that nothing disturbed."""
    out = tmp_path_factory.mktemp("out") / "whole"
    result = subprocess.run(whole_command(dataset_folder, out), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return out


def test_a_run_learns_and_leaves_what_it_promised(whole: Path) -> None:
    rows = read_metrics(whole)
    validation = [row["val_loss"] for row in rows if "val_loss" in row]
    assert len(validation) == 6  # before the first step, then every eighth
    assert validation[-1] < validation[0] - 0.3
    assert {"step", "tokens", "loss", "lr", "grad_norm", "tokens_per_second", "tflops"} <= rows[1].keys()
    assert all(row["sample"].endswith("The end.") for row in rows if "sample" in row)  # the prompt is what a person reads last
    best, last = load_checkpoint(whole / "best_checkpoint.pt"), load_checkpoint(whole / "last_checkpoint.pt")
    assert best.val_loss == min(validation[1:])
    assert (last.step, last.tokens, last.order, last.val_loss) == (40, rows[-1]["tokens"], "backward", validation[-1])
    assert 0.99 * 40 * 4 * 16 < last.tokens <= 40 * 4 * 16  # the last window of the stream is shorter
    assert best.resuming is None
    assert (whole / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((whole / "config.json").read_text())["max_steps"] == 40
    assert not list(whole.glob("*.part"))


def test_the_checkpoint_alone_gives_the_loss_that_was_reported(whole: Path, dataset_folder: Path) -> None:
    best = load_checkpoint(whole / "best_checkpoint.pt")
    model = best.make_model(torch.device("cpu"))
    windows = Windows(open_dataset(dataset_folder).stream("val"), 16, best.tokenizer.end_of_text)
    rows = windows.read(windows.spread(256 // 16))
    assert measure_loss(model, [rows], best.tokenizer.bytes_per_id, torch.float32).nats_per_token == pytest.approx(best.val_loss, abs=1e-6)


def test_killed_and_resumed_is_the_same_to_the_last_bit(dataset_folder: Path, whole: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle, the same command again: weights, best checkpoint and metrics end like the undisturbed run's."""
    out = tmp_path / "out"
    command = whole_command(dataset_folder, out)
    for step in (9, 19):  # each a few steps after a checkpoint, whose work is lost
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(f"step {step}/"):
                process.kill()
        assert process.wait() == -signal.SIGKILL
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "going on from" in result.stdout
    assert "at step 16" in result.stdout
    assert_same_bits(out, whole)

    def lasting(folder: Path) -> list[dict[str, object]]:
        return [{key: row[key] for key in row if key not in ("tokens_per_second", "tflops")} for row in read_metrics(folder)]

    assert lasting(out) == lasting(whole)


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_the_run_goes_on_to_the_same_bits(
    dataset_folder: Path, whole: Path, tmp_path: Path, number: signal.Signals, exit_code: int
) -> None:
    out = tmp_path / "out"
    command = whole_command(dataset_folder, out)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step 11/"):
            process.send_signal(number)
            break
    _, errors = process.communicate(timeout=60)
    assert process.returncode == exit_code, errors
    assert "Traceback" not in errors
    assert "The same command goes on" in errors
    assert load_checkpoint(out / "last_checkpoint.pt").step >= 11
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert_same_bits(out, whole)


def test_a_finished_run_says_so_and_more_steps_go_on(dataset_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert train(dataset_folder, out, "--max-steps", 4).returncode == 0
    before = (out / "last_checkpoint.pt").read_bytes()
    result = train(dataset_folder, out, "--max-steps", 4)
    assert result.returncode == 0
    assert "at step 4 of 4 already" in result.stdout
    assert (out / "last_checkpoint.pt").read_bytes() == before
    result = train(dataset_folder, out, "--max-steps", 6)
    assert "set otherwise: max_steps was 4, now 6" in result.stdout
    assert load_checkpoint(out / "last_checkpoint.pt").step == 6
    result = train(dataset_folder, out, "--max-steps", 8, "--n-layer", 2)
    fails_with(result, 1, "n_layer was 1, now 2", "--out-dir")


def test_resuming_with_another_tokenizer_or_order_is_refused(dataset_folder: Path, whole: Path, tmp_path: Path) -> None:
    source = dataset_folder.parent / "documents.jsonl"
    flags = ["preprocess_xcoax.py", "--input", source, "--vocab-size", 400, "--val-share", 0.1, "--workers", 1]
    assert run_script(*flags, "--data-dir", tmp_path / "twin", "--order", "forward", "--tokenizer", dataset_folder).returncode == 0
    fails_with(train(tmp_path / "twin", whole, "--max-steps", 50), 1, "order was 'backward', now 'forward'")
    fails_with(train(dataset_folder, tmp_path / "o", "--order", "forward"), 2, "--order forward", "is backward")
    assert run_script(*flags, "--data-dir", tmp_path / "other", "--sample-bytes", 4000).returncode == 0
    fails_with(train(tmp_path / "other", whole, "--max-steps", 50, "--dropout", 0.1), 1, "tokenizer was")


def test_no_data_gives_the_command(tmp_path: Path) -> None:
    fails_with(train(tmp_path / "none", tmp_path / "out"), 1, "no finished dataset in", "python preprocess_xcoax.py --data-dir")


def test_a_disk_that_fills_up_leaves_the_old_checkpoint_whole(dataset_folder: Path, tmp_path: Path) -> None:
    """A limit on the size of a file stands in for the full disk: the write fails in the same place with an OSError."""
    out = tmp_path / "out"
    assert train(dataset_folder, out, "--max-steps", 4, "--eval-every", 4).returncode == 0
    before = (out / "last_checkpoint.pt").read_bytes()

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    flags = ["--data-dir", dataset_folder, "--out-dir", out, *TINY, "--max-steps", 8, "--eval-every", 4]
    command = [sys.executable, str(ROOT / "train_xcoax.py"), *map(str, flags)]
    result = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, check=False)
    fails_with(result, 1, "cannot save the checkpoint of step 8", "the one of before is whole", "Make room")
    assert (out / "last_checkpoint.pt").read_bytes() == before
    assert not list(out.glob("*.part"))


def test_plot_on_demand(whole: Path, tmp_path: Path) -> None:
    (whole / "loss.png").unlink()
    assert run_script("train_xcoax.py", "--out-dir", whole, "--plot").returncode == 0
    assert (whole / "loss.png").is_file()
    fails_with(run_script("train_xcoax.py", "--out-dir", tmp_path, "--plot"), 1, "nothing was trained there yet")


class Sequences:
    """A task in memory: count upwards. Learnt by every model that works."""

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size

    def draw(self, first_row: int, rows: int) -> Rows:
        starts = np.random.default_rng(first_row).integers(0, 200, size=(rows, 1))
        ids = starts + np.arange(self.block_size + 1)
        return Rows(ids[:, :-1].copy(), ids[:, 1:].copy())

    def task(self, dataset_folder: Path) -> Task:
        tokenizer = Tokenizer.load(dataset_folder)
        return Task(tokenizer, "backward", self.draw, lambda batch: [self.draw(7, 4)[:batch]], lambda model, step: "")


def make_trainer(dataset_folder: Path, out: Path, dtype: torch.dtype = torch.float32, **changes: object) -> Trainer:
    shape = ModelConfig(n_layer=1, n_head=2, n_embed=16, block_size=8, vocab_size=400)
    preset = dataclasses.replace(
        TRAIN_PRESETS["xcoax"], model=shape, out_dir=str(out), batch_size=4, grad_accum=1, max_steps=10, warmup_steps=2
    )
    config: TrainConfig = dataclasses.replace(preset, **{"lr": 1e-2, "eval_every": 100, **changes})  # type: ignore[arg-type]
    out.mkdir(exist_ok=True)
    torch.manual_seed(0)
    return Trainer(config, GPT(shape), Sequences(8).task(dataset_folder), torch.device("cpu"), dtype)


def test_micro_batches_add_up_to_the_whole_batch(dataset_folder: Path, tmp_path: Path) -> None:
    losses = []
    for micro_batch in (4, 2, 1, 3):
        trainer = make_trainer(dataset_folder, tmp_path)
        trainer.micro_batch = micro_batch
        losses.append([trainer.take_step(Sequences(8).draw(step, 4))["loss"] for step in range(6)])
    for row in losses[1:]:
        assert row == pytest.approx(losses[0], abs=1e-4)


def test_out_of_memory_halves_the_micro_batch_and_keeps_the_rows(
    dataset_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class SmallMemory(GPT):
        def forward(self, ids: torch.Tensor, targets: torch.Tensor | None = None) -> torch.Tensor:
            if len(ids) > room:
                raise torch.OutOfMemoryError("out of memory")
            return super().forward(ids, targets)

    plain, small = make_trainer(dataset_folder, tmp_path), make_trainer(dataset_folder, tmp_path)
    small.model.__class__ = SmallMemory
    room = 1
    rows = Sequences(8).draw(0, 4)
    assert small.take_step(rows)["loss"] == pytest.approx(plain.take_step(rows)["loss"], abs=1e-5)
    assert small.micro_batch == 1
    assert "1 sequences in a micro-batch now, 4 micro-batches in a step" in capsys.readouterr().out
    for ours, theirs in zip(small.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)
    room = 0
    with pytest.raises(UserError, match="one sequence of 8 tokens does not fit"):
        small.take_step(rows)


def test_a_run_starts_where_not_even_the_first_evaluation_fits(
    dataset_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class SmallMemory(GPT):
        def forward(self, ids: torch.Tensor, targets: torch.Tensor | None = None) -> torch.Tensor:
            if len(ids) > 2:
                raise torch.OutOfMemoryError("out of memory")
            return super().forward(ids, targets)

    trainer = make_trainer(dataset_folder, tmp_path, max_steps=3)
    trainer.model.__class__ = SmallMemory
    trainer.run()
    assert trainer.step == 3
    assert trainer.micro_batch == 2
    assert capsys.readouterr().out.count("out of memory") == 1


def test_a_loss_that_is_no_number_stops_the_run_and_changes_nothing(dataset_folder: Path, tmp_path: Path) -> None:
    trainer = make_trainer(dataset_folder, tmp_path)
    trainer.model.norm.weight.data.fill_(torch.nan)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    with pytest.raises(UserError, match=r"step 1: the loss is nan.*lower --lr"):
        trainer.take_step(Sequences(8).draw(0, 4))
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value.nan_to_num(), before[name].nan_to_num()), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_number_type_learns(dataset_folder: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    trainer = make_trainer(dataset_folder, tmp_path, dtype, max_steps=40)
    losses = [trainer.take_step(Sequences(8).draw(step, 4))["loss"] for step in range(40)]
    assert losses[-1] < losses[0] - 0.5
    assert trainer.model.embedding.weight.dtype == torch.float32


def test_targets_that_are_ignored_weigh_nothing(dataset_folder: Path, tmp_path: Path) -> None:
    """The loss is a mean over counted targets of the whole step, however they fall into micro-batches."""
    rows = Sequences(8).draw(0, 4)
    rows.targets[0, 1:] = IGNORE
    rows.targets[3, :] = IGNORE
    first, second = make_trainer(dataset_folder, tmp_path), make_trainer(dataset_folder, tmp_path)
    second.micro_batch = 1
    assert first.take_step(rows)["loss"] == pytest.approx(second.take_step(rows)["loss"], abs=1e-5)
    assert first.tokens == 17


def test_golden_losses(dataset_folder: Path, tmp_path: Path) -> None:
    """Numbers you can see: whoever changes the arithmetic of a step changes these."""
    trainer = make_trainer(dataset_folder, tmp_path)
    losses = [trainer.take_step(Sequences(8).draw(step, 4))["loss"] for step in range(10)]
    assert losses == pytest.approx(GOLDEN_LOSSES, abs=5e-3)


GOLDEN_LOSSES = [5.9960, 5.9399, 5.9086, 5.9592, 5.8900, 5.9240, 5.8762, 5.8732, 5.8999, 5.8557]


def test_memory_does_not_grow_over_a_run(dataset_folder: Path, tmp_path: Path) -> None:
    import psutil

    trainer = make_trainer(dataset_folder, tmp_path)
    for step in range(50):
        trainer.take_step(Sequences(8).draw(step, 4))
    before = psutil.Process().memory_info().rss
    for step in range(300):
        trainer.take_step(Sequences(8).draw(step, 4))
    assert psutil.Process().memory_info().rss - before < 8 << 20


def test_tensorboard_on_request(dataset_folder: Path, tmp_path: Path) -> None:
    result = train(dataset_folder, tmp_path / "out", "--max-steps", 2, "--tensorboard")
    assert result.returncode == 0, result.stderr
    assert list((tmp_path / "out" / "tensorboard").glob("events.out.tfevents.*"))


def test_the_picture_of_an_empty_run(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "tokens": 5, "loss": 2.0}\n{"step": 2, "tok')
    assert draw_loss(tmp_path).is_file()
    assert len(read_metrics(tmp_path)) == 1


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="torch.compile needs a C++ compiler on a CPU")
def test_compiled_and_eager_runs_agree(dataset_folder: Path, tmp_path: Path) -> None:
    result = subprocess.run(
        [*whole_command(dataset_folder, tmp_path / "out"), "--max-steps", "9", "--dropout", "0", "--compile"],
        capture_output=True,
        text=True,
    )
    eager = subprocess.run(
        [*whole_command(dataset_folder, tmp_path / "eager"), "--max-steps", "9", "--dropout", "0"], capture_output=True, text=True
    )
    assert "torch.compile does not work" not in result.stdout, result.stdout
    assert (result.returncode, eager.returncode) == (0, 0), result.stderr
    compiled, plain = (load_checkpoint(tmp_path / name / "last_checkpoint.pt") for name in ("out", "eager"))
    assert compiled.weights.keys() == plain.weights.keys()  # compiling in place keeps the names
    assert compiled.val_loss == pytest.approx(plain.val_loss, abs=1e-4)


def test_compiling_where_it_does_not_work_is_one_line(dataset_folder: Path, tmp_path: Path) -> None:
    flags = [flag for flag in TINY if flag != "--no-compile"]
    environment = {**os.environ, "CXX": "/no/compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "train_xcoax.py", "--data-dir", dataset_folder, "--out-dir", tmp_path / "out", *flags, "--max-steps", 1]
    result = subprocess.run(list(map(str, command)), cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("torch.compile does not work here, going on without it") == 1


def test_weights_that_lead_to_no_number_are_not_saved(dataset_folder: Path, tmp_path: Path) -> None:
    trainer = make_trainer(dataset_folder, tmp_path, max_steps=4, eval_every=2)
    trainer.run()
    before = (tmp_path / "last_checkpoint.pt").read_bytes()
    again = make_trainer(dataset_folder, tmp_path, max_steps=8, eval_every=2)
    again.resume(load_checkpoint(tmp_path / "last_checkpoint.pt", mapped=False))
    again.step = 6  # at an evaluation
    again.model.norm.weight.data.fill_(torch.nan)
    with pytest.raises(UserError, match="step 6: the validation loss is nan; nothing after step 4 is saved"):
        again.run()
    assert (tmp_path / "last_checkpoint.pt").read_bytes() == before


def test_a_best_checkpoint_lost_between_two_writes_is_made_again(dataset_folder: Path, tmp_path: Path) -> None:
    make_trainer(dataset_folder, tmp_path, max_steps=4, eval_every=4).run()
    (tmp_path / "best_checkpoint.pt").unlink()
    again = make_trainer(dataset_folder, tmp_path, max_steps=8, eval_every=4)
    again.resume(load_checkpoint(tmp_path / "last_checkpoint.pt", mapped=False))
    assert load_checkpoint(tmp_path / "best_checkpoint.pt").step == 4


def test_a_best_checkpoint_of_an_unknown_run_is_not_adopted(dataset_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert train(dataset_folder, out, "--max-steps", 2).returncode == 0
    (out / "last_checkpoint.pt").unlink()
    fails_with(train(dataset_folder, out, "--max-steps", 2), 1, "best_checkpoint.pt is of a run that left no last_checkpoint.pt")


def test_other_batches_on_resuming_are_refused(dataset_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert train(dataset_folder, out, "--max-steps", 2).returncode == 0
    fails_with(train(dataset_folder, out, "--max-steps", 4, "--batch-size", 3), 1, "rows in a step was 4, now 6")
    result = train(dataset_folder, out, "--max-steps", 3, "--batch-size", 1, "--grad-accum", 4)
    assert result.returncode == 0, result.stderr


def test_float16_that_never_becomes_finite_stops(dataset_folder: Path, tmp_path: Path) -> None:
    trainer = make_trainer(dataset_folder, tmp_path, torch.float16)
    for parameter in trainer.model.parameters():
        parameter.register_hook(lambda gradient: gradient * torch.inf)  # type: ignore[no-untyped-call]  # torch's gap
    with pytest.raises(UserError, match="gradient's norm"):
        for step in range(60):
            trainer.take_step(Sequences(8).draw(step, 4))
    assert 10 < trainer.step < 40  # the scale was lowered first


def test_two_runs_cannot_share_a_folder(dataset_folder: Path, tmp_path: Path) -> None:
    with claim(tmp_path / "out", "--out-dir"):
        fails_with(train(dataset_folder, tmp_path / "out"), 1, "another process is writing", "--out-dir")
    (tmp_path / "file").write_text("")
    fails_with(train(dataset_folder, tmp_path / "file"), 1, "cannot write", "--out-dir")


def test_when_the_reader_of_the_output_leaves_the_work_is_saved(dataset_folder: Path, tmp_path: Path) -> None:
    """As `| head` does, or a `| tee` that gets the same Ctrl-C."""
    out = tmp_path / "out"
    process = subprocess.Popen(
        [*whole_command(dataset_folder, out), "--max-steps", "4000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step 11/"):
            process.stdout.close()
            break
    assert process.stderr is not None
    errors = process.stderr.read()
    assert process.wait(60) == 128 + signal.SIGPIPE, errors
    assert "Traceback" not in errors
    assert load_checkpoint(out / "last_checkpoint.pt").step >= 11


def test_a_signal_before_the_first_step_promises_nothing(dataset_folder: Path, tmp_path: Path) -> None:
    trainer = make_trainer(dataset_folder, tmp_path)
    trainer.signals.received = signal.SIGINT
    with pytest.raises(Stopped, match="stopped at step 0, before there was anything to save"):
        trainer.run()
    assert not (tmp_path / "last_checkpoint.pt").exists()


def test_room_is_asked_for_only_where_it_is_needed(dataset_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(dataset_folder, tmp_path, max_steps=2)
    size = 4 * trainer.model.count_parameters()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=4 * size))
    with pytest.raises(UserError, match="the checkpoints need"):
        require_room(tmp_path, trainer.model)
    trainer.run()
    require_room(tmp_path, trainer.model)


def test_the_validation_loss_does_not_depend_on_the_batch_size(dataset_folder: Path, tmp_path: Path) -> None:
    losses = []
    for batch_size in (1, 3, 64):
        out = tmp_path / str(batch_size)
        result = train(dataset_folder, out, "--max-steps", 1, "--batch-size", batch_size, "--eval-tokens", 1 << 20)
        assert result.returncode == 0, result.stderr
        losses.append(next(row["val_loss"] for row in read_metrics(out) if "val_loss" in row))  # before the first step
    assert losses == pytest.approx([losses[0]] * 3, abs=1e-5)
