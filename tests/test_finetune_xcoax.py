"""finetune_xcoax.py as a user runs it: what it reports, what it refuses, kills and signals, and the same bits in the end."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from checkpoint import load_checkpoint
from metrics import read_metrics
from tests.conftest import ROOT, fails_with, make_pairs, run_script, write_pairs

SHAPE = ("--n-layer", 1, "--n-head", 2, "--n-embed", 32, "--block-size", 64, "--no-compile", "--device", "cpu", "--dtype", "float32")
LOOP = ("--batch-size", 2, "--grad-accum", 2, "--log-every", 1, "--no-compile", "--device", "cpu", "--dtype", "float32", "--lr", 3e-3)


@pytest.fixture(scope="module")
def base(dataset_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained checkpoint, by the real script."""
    out = tmp_path_factory.mktemp("base")
    flags = [*SHAPE, "--batch-size", 2, "--grad-accum", 1, "--max-steps", 20, "--eval-tokens", 256, "--lr", 3e-3, "--warmup-steps", 2]
    result = run_script("train_xcoax.py", "--data-dir", dataset_folder, "--out-dir", out, *flags, "--eval-every", 10)
    assert result.returncode == 0, result.stderr
    return out / "best_checkpoint.pt"


@pytest.fixture(scope="module")
def pairs(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished folder of pairs, with the tokenizer of the checkpoint."""
    folder = tmp_path_factory.mktemp("pairs")
    source = write_pairs(folder / "pairs.jsonl", make_pairs(150))
    flags = ["--tokenizer", base, "--vocab-size", 400, "--block-size", 64, "--val-share", 0.2, "--workers", 1]
    result = run_script("preprocess_instruct.py", "--input", source, "--data-dir", folder / "data", *flags)
    assert result.returncode == 0, result.stderr
    return folder / "data"


def command(base: Path, pairs: Path, out: Path, *flags: object) -> list[str]:
    everything = ["finetune_xcoax.py", "--model-path", base, "--data-dir", pairs, "--out-dir", out, *LOOP, *flags]
    return [sys.executable, *map(str, everything)]


def finetune(base: Path, pairs: Path, out: Path, *flags: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(base, pairs, out, *flags), cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def whole(base: Path, pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run of two epochs that nothing disturbed, and what it printed."""
    out = tmp_path_factory.mktemp("out") / "whole"
    result = finetune(base, pairs, out, "--epochs", 2, "--eval-every", 10)
    assert result.returncode == 0, result.stderr
    return out, result.stdout


def test_it_learns_and_reports_what_it_takes_from_the_response(whole: tuple[Path, str], base: Path) -> None:
    out, printed = whole
    rows = [row for row in read_metrics(out) if "val_loss" in row]
    assert rows[-1]["val_loss"] < rows[0]["val_loss"] - 0.5
    assert {"bits_per_byte", "val_loss_responses_shuffled", "bits_per_byte_responses_shuffled"} <= rows[0].keys()
    assert rows[-1]["val_loss"] != rows[-1]["val_loss_responses_shuffled"]
    assert "(responses shuffled: " in printed
    assert printed.count("    | response:  ") == 3 * len(rows)
    assert printed.count("    | generated: ") == printed.count("    | true:      Repeat ") == 3 * len(rows)
    best, before = load_checkpoint(out / "best_checkpoint.pt"), load_checkpoint(base)
    assert (best.stage, before.stage) == ("tuning", "pretraining")
    assert (best.model_config, best.tokenizer.sha256, best.order) == (before.model_config, before.tokenizer.sha256, before.order)
    assert best.val_loss == min(row["val_loss"] for row in rows[1:])
    assert (out / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_an_epoch_is_every_pair_once(whole: tuple[Path, str], pairs: Path) -> None:
    """Two epochs of rows, up to the end of the last step, and each token of them is counted as read."""
    from layout import Layout
    from packing import Examples
    from shards import open_dataset

    dataset, last = open_dataset(pairs, "pairs"), load_checkpoint(whole[0] / "last_checkpoint.pt")
    lengths = Examples(dataset, "train", Layout(last.tokenizer, last.order)).lengths
    assert f"{len(lengths)} pairs in " in whole[1]
    assert 2 * lengths.sum() <= last.tokens <= 2 * lengths.sum() + 3 * 64
    assert f"2 epochs are {last.step} steps of 4 rows" in whole[1]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_stopped_and_resumed_it_comes_to_the_same_bits(
    base: Path, pairs: Path, whole: tuple[Path, str], tmp_path: Path, number: signal.Signals
) -> None:
    line = command(base, pairs, tmp_path / "out", "--epochs", 2, "--eval-every", 10)
    process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for text in process.stdout:
        if text.startswith("step 13/"):
            process.send_signal(number)
            break
    _, errors = process.communicate(timeout=60)
    assert process.returncode in (-signal.SIGKILL, 130), errors
    assert "Traceback" not in errors
    result = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "going on from" in result.stdout
    for name in ("last_checkpoint.pt", "best_checkpoint.pt"):
        ours, theirs = load_checkpoint(tmp_path / "out" / name).weights, load_checkpoint(whole[0] / name).weights
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_more_epochs_go_on_and_other_beginnings_are_refused(base: Path, pairs: Path, whole: tuple[Path, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole[0], out)
    result = finetune(base, pairs, out, "--epochs", 2)
    assert "already. To go on, give more --epochs" in result.stdout
    fails_with(finetune(base, pairs, out, "--epochs", 3, "--loss-on", "all"), 1, "--loss-on was 'instruction', now 'all'")
    last = base.with_name("last_checkpoint.pt")
    trained_on = tmp_path / "base" / "best_checkpoint.pt"
    trained_on.parent.mkdir()
    content = torch.load(last, weights_only=True)
    torch.save({**content, "step": 21}, trained_on)
    fails_with(finetune(trained_on, pairs, out, "--epochs", 3), 1, "the pretrained checkpoint was 'step 20", "now 'step 21")
    content["model"]["norm.weight"][0] += 1e-6
    torch.save(content, trained_on)
    fails_with(finetune(trained_on, pairs, out, "--epochs", 3), 1, "the pretrained checkpoint was 'step 20")
    fails_with(finetune(base, pairs, out, "--epochs", 3, "--eval-pairs", 7), 1, "--eval-pairs was 1000, now 7")
    result = finetune(base, pairs, out, "--epochs", 2.2)
    assert result.returncode == 0, result.stderr
    assert "set otherwise: " in result.stdout
    assert "epochs was 2.0, now 2.2" in result.stdout


def test_a_tuned_model_can_be_tuned_further(pairs: Path, whole: tuple[Path, str], tmp_path: Path) -> None:
    result = finetune(whole[0] / "best_checkpoint.pt", pairs, tmp_path / "out", "--epochs", 0.1, "--loss-on", "all")
    assert result.returncode == 0, result.stderr
    first = next(row["val_loss"] for row in read_metrics(tmp_path / "out") if "val_loss" in row)
    assert first == pytest.approx(load_checkpoint(whole[0] / "best_checkpoint.pt").val_loss, abs=1e-5)


def test_pretraining_does_not_go_on_from_a_tuned_run(whole: tuple[Path, str], dataset_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(whole[0], tmp_path / "out")
    flags = ["--data-dir", dataset_folder, "--out-dir", tmp_path / "out", *SHAPE, "--batch-size", 2, "--grad-accum", 2]
    fails_with(run_script("train_xcoax.py", *flags, "--max-steps", 99), 1, "is of a run of tuning, and this is pretraining")


def test_shards_that_are_damaged_are_noticed(base: Path, pairs: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(pairs, data)
    shard = data / "train_00000.bin"
    shard.write_bytes(b"\x2c\x01" * (shard.stat().st_size // 2))
    fails_with(finetune(base, data, tmp_path / "out"), 1, "are damaged: they hold 0 pairs", "python preprocess_instruct.py")


def test_what_does_not_belong_together_is_refused(base: Path, pairs: Path, dataset_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    missing = finetune(Path("out/xcoax/best_checkpoint.pt"), pairs, out)
    if not (ROOT / "out/xcoax/best_checkpoint.pt").exists():
        fails_with(missing, 1, "no checkpoint at out/xcoax/best_checkpoint.pt. Run: python train_xcoax.py")
    fails_with(finetune(base, tmp_path / "none", out), 1, "no finished dataset in", "Run: python preprocess_instruct.py --data-dir")
    fails_with(finetune(base, dataset_folder, out), 2, "holds documents, made by preprocess_xcoax.py for train_xcoax.py")
    half = tmp_path / "half"
    shutil.copytree(pairs, half)
    (half / "meta.json").unlink()
    (half / "unfinished").mkdir()
    fails_with(finetune(base, half, out), 1, "it was begun: the same command goes on with it", "preprocess_instruct.py")
    source = pairs.parent / "pairs.jsonl"

    def instruct(name: str, *flags: object) -> Path:
        common = ["--input", source, "--data-dir", tmp_path / name, "--vocab-size", 400, "--val-share", 0.2, "--workers", 1]
        result = run_script("preprocess_instruct.py", *common, *flags)
        assert result.returncode == 0, result.stderr
        return tmp_path / name

    forward = instruct("forward", "--tokenizer", base, "--block-size", 64, "--order", "forward")
    fails_with(finetune(base, forward, out), 2, "are forward, the model of", "is backward")
    long = instruct("long", "--tokenizer", base)
    fails_with(finetune(base, long, out), 2, "a context of 1024 tokens", "has 64", "--block-size 64")
    texts = dataset_folder.parent / "documents.jsonl"
    flags = ["--data-dir", tmp_path / "texts", "--vocab-size", 400, "--sample-bytes", 4000, "--val-share", 0.1]
    assert run_script("preprocess_xcoax.py", "--input", texts, *flags).returncode == 0
    other = instruct("other", "--tokenizer", tmp_path / "texts", "--block-size", 64)
    fails_with(finetune(base, other, out), 2, "were made with tokenizer", "has tokenizer", f"--tokenizer {base}")
    fails_with(finetune(base, pairs, out, "--epochs", 0), 2, "--epochs 0")
    assert not out.exists()


def test_few_pairs_are_enough_and_one_held_out_has_nothing_to_be_shuffled_with(base: Path, tmp_path: Path) -> None:
    source = write_pairs(tmp_path / "pairs.jsonl", make_pairs(4))
    flags = ["--tokenizer", base, "--vocab-size", 400, "--block-size", 64, "--workers", 1]
    assert run_script("preprocess_instruct.py", "--input", source, "--data-dir", tmp_path / "data", *flags).returncode == 0
    result = finetune(base, tmp_path / "data", tmp_path / "out", "--epochs", 1)
    assert result.returncode == 0, result.stderr
    assert "responses shuffled" not in result.stdout
    assert "fewer rows than a step takes" in result.stdout
