"""train_xcoax.py as a user runs it: kills, signals, full disks, wrong folders, and the same bits in the end."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from checkpoint import load_checkpoint
from disk import claim
from evaluation import measure_loss
from metrics import read_metrics
from shards import Windows, open_dataset
from tests.conftest import ROOT, fails_with, run_script

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


def test_tensorboard_on_request(dataset_folder: Path, tmp_path: Path) -> None:
    result = train(dataset_folder, tmp_path / "out", "--max-steps", 2, "--tensorboard")
    assert result.returncode == 0, result.stderr
    assert list((tmp_path / "out" / "tensorboard").glob("events.out.tfevents.*"))


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


def test_the_validation_loss_does_not_depend_on_the_batch_size(dataset_folder: Path, tmp_path: Path) -> None:
    losses = []
    for batch_size in (1, 3, 64):
        out = tmp_path / str(batch_size)
        result = train(dataset_folder, out, "--max-steps", 1, "--batch-size", batch_size, "--eval-tokens", 1 << 20)
        assert result.returncode == 0, result.stderr
        losses.append(next(row["val_loss"] for row in read_metrics(out) if "val_loss" in row))  # before the first step
    assert losses == pytest.approx([losses[0]] * 3, abs=1e-5)
