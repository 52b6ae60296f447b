"""Tuning as a task: what it reports, what it resumes, and which data and checkpoints it refuses."""

import shutil
from pathlib import Path

import pytest
import torch

from config import FinetuneConfig
from formats.checkpoint import load_checkpoint
from formats.shards import open_dataset
from tests.conftest import ROOT, fails_with, make_pairs, write_pairs
from tests.preprocessing.in_process import run_here
from tests.training.runs import TUNING, Run, resumed_step, tune
from tokens.prompt_format import PromptFormat
from training.examples import Examples
from training.metrics import read_metrics
from training.tuning import Tuning


def test_tuning_learns_and_reports_what_the_response_contributes(tuned: Run, base: Path) -> None:
    rows = [row for row in read_metrics(tuned.folder) if "val_loss" in row]
    assert rows[-1]["val_loss"] < rows[0]["val_loss"] - 0.5
    assert {"bits_per_byte", "val_loss_responses_shuffled", "bits_per_byte_responses_shuffled"} <= rows[0].keys()
    assert rows[-1]["val_loss"] != rows[-1]["val_loss_responses_shuffled"]
    assert "(responses shuffled: " in tuned.printed
    assert tuned.printed.count("    | response:  ") == 3 * len(rows)
    assert tuned.printed.count("    | generated: ") == tuned.printed.count("    | true:      Repeat ") == 3 * len(rows)
    best, before = load_checkpoint(tuned.folder / "best_checkpoint.pt"), load_checkpoint(base)
    assert (best.stage, before.stage) == ("tuning", "pretraining")
    assert (best.model_config, best.tokenizer.sha256, best.order) == (before.model_config, before.tokenizer.sha256, before.order)
    assert best.val_loss == min(row["val_loss"] for row in rows[1:])
    assert (tuned.folder / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_an_epoch_is_every_pair_once(tuned: Run, pairs: Path) -> None:
    """The run reads every token of two epochs, and at most the sequences that complete its last step."""
    dataset, last = open_dataset(pairs, "pairs"), load_checkpoint(tuned.folder / "last_checkpoint.pt")
    lengths = Examples(dataset, "train", PromptFormat(last.tokenizer, last.order)).lengths
    assert f"{len(lengths)} pairs packed into " in tuned.printed
    assert 2 * lengths.sum() <= last.tokens <= 2 * lengths.sum() + 3 * 64
    assert f"2 epochs, {last.step} steps of 4 sequences" in tuned.printed


def test_a_finished_run_says_so_and_continues_with_more_epochs(base: Path, pairs: Path, tuned: Run, tmp_path: Path) -> None:
    out = Path(shutil.copytree(tuned.folder, tmp_path / "out"))
    result = tune(base, pairs, out, *TUNING)
    assert "To train longer, raise --epochs" in result.stdout
    result = tune(base, pairs, out, *TUNING, "--epochs", 2.2)
    assert resumed_step(result) == load_checkpoint(tuned.folder / "last_checkpoint.pt").step
    assert "changed settings: " in result.stdout
    assert "epochs was 2.0, now 2.2" in result.stdout


def test_a_different_base_or_loss_cannot_resume(base: Path, pairs: Path, tuned: Run, tmp_path: Path) -> None:
    out = Path(shutil.copytree(tuned.folder, tmp_path / "out"))
    fails_with(tune(base, pairs, out, "--epochs", 3, "--loss-on", "all"), 1, "--loss-on was 'instruction', now 'all'")
    fails_with(tune(base, pairs, out, "--epochs", 3, "--eval-pairs", 7), 1, "--eval-pairs was 1000, now 7")
    step = load_checkpoint(base).step
    changed_base = tmp_path / "base" / "best_checkpoint.pt"
    changed_base.parent.mkdir()
    content = torch.load(base, weights_only=True)
    torch.save({**content, "step": step + 1}, changed_base)
    result = tune(changed_base, pairs, out, "--epochs", 3)
    fails_with(result, 1, f"the pretrained checkpoint was 'step {step} (", f"now 'step {step + 1} (")
    content["model"]["norm.weight"][0] += 1e-6
    torch.save(content, changed_base)
    fails_with(tune(changed_base, pairs, out, "--epochs", 3), 1, f"the pretrained checkpoint was 'step {step} (", f"now 'step {step} (")


def test_a_tuned_model_can_be_tuned_further(pairs: Path, tuned: Run, tmp_path: Path) -> None:
    result = tune(tuned.folder / "best_checkpoint.pt", pairs, tmp_path, "--epochs", 0.1, "--loss-on", "all")
    assert result.returncode == 0, result.stderr
    first = next(row["val_loss"] for row in read_metrics(tmp_path) if "val_loss" in row)
    assert first == pytest.approx(load_checkpoint(tuned.folder / "best_checkpoint.pt").val_loss, abs=1e-5)


def test_a_model_in_bfloat16_is_tuned_in_float32(base: Path, pairs: Path, tmp_path: Path) -> None:
    """Published weights are in bfloat16."""
    content = torch.load(base, weights_only=True)
    content["model"] = {name: weights.bfloat16() for name, weights in content["model"].items()}
    (tmp_path / "small").mkdir()
    torch.save(content, tmp_path / "small" / "best_checkpoint.pt")
    result = tune(tmp_path / "small" / "best_checkpoint.pt", pairs, tmp_path / "out", "--epochs", 0.5)
    assert result.returncode == 0, result.stderr
    assert {weights.dtype for weights in load_checkpoint(tmp_path / "out" / "best_checkpoint.pt").weights.values()} == {torch.float32}


def test_damaged_shards_are_refused(base: Path, pairs: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(pairs, tmp_path / "data"))
    shard = data / "train_00000.bin"
    shard.write_bytes(b"\x2c\x01" * (shard.stat().st_size // 2))
    fails_with(tune(base, data, tmp_path / "out"), 1, "are damaged: they do not begin with a boundary", "python preprocess_instruct.py")


def test_missing_or_wrong_inputs_are_refused_before_anything_is_written(
    base: Path, pairs: Path, dataset_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    if not (ROOT / "out/xcoax/best_checkpoint.pt").exists():
        result = tune(Path("out/xcoax/best_checkpoint.pt"), pairs, out)
        fails_with(result, 1, "no checkpoint at out/xcoax/best_checkpoint.pt: no such file", "make demo", ": python train_xcoax.py")
    fails_with(tune(base, dataset_folder, out), 2, "holds documents, made by preprocess_xcoax.py for train_xcoax.py")
    half = Path(shutil.copytree(pairs, tmp_path / "half"))
    (half / "meta.json").unlink()
    (half / "unfinished").mkdir()
    fails_with(tune(base, half, out), 1, "unfinished: run the same command again to resume", "preprocess_instruct.py")
    assert not out.exists()


def test_pairs_made_for_a_different_model_are_refused(base: Path, pairs: Path, dataset_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def make(name: str, *flags: object) -> Path:
        source = pairs.parent / "pairs.jsonl"
        common = ["--input", source, "--data-dir", tmp_path / name, "--vocab-size", 400, "--val-share", 0.2]
        result = run_here("preprocess_instruct.py", *common, *flags)
        assert result.returncode == 0, result.stderr
        return tmp_path / name

    forward = make("forward", "--tokenizer", base, "--block-size", 64, "--order", "forward")
    fails_with(tune(base, forward, out), 2, "are forward, the model of", "is backward")
    long = make("long", "--tokenizer", base)
    fails_with(tune(base, long, out), 2, "a context of 1024 tokens", "has 64", "--block-size 64")
    texts = dataset_folder.parent / "documents.jsonl"
    flags = ["--data-dir", tmp_path / "texts", "--vocab-size", 400, "--sample-bytes", 4000, "--val-share", 0.1]
    assert run_here("preprocess_xcoax.py", "--input", texts, *flags).returncode == 0
    other = make("other", "--tokenizer", tmp_path / "texts", "--block-size", 64)
    fails_with(tune(base, other, out), 2, "were made with tokenizer", "has tokenizer", f"--tokenizer {base}")
    assert not out.exists()


def test_a_few_pairs_are_enough_and_a_single_held_out_pair_has_no_control(base: Path, tmp_path: Path) -> None:
    source = write_pairs(tmp_path / "pairs.jsonl", make_pairs(4))
    flags = ["--tokenizer", base, "--vocab-size", 400, "--block-size", 64]
    assert run_here("preprocess_instruct.py", "--input", source, "--data-dir", tmp_path / "data", *flags).returncode == 0
    result = tune(base, tmp_path / "data", tmp_path / "out", "--epochs", 1)
    assert result.returncode == 0, result.stderr
    assert "responses shuffled" not in result.stdout
    assert "fewer sequences than one step takes" in result.stdout


def test_pairs_cut_for_a_shorter_context_are_mentioned(base: Path, pairs: Path, tmp_path: Path) -> None:
    flags = ["--tokenizer", base, "--vocab-size", 400, "--block-size", 48, "--val-share", 0.2]
    source = pairs.parent / "pairs.jsonl"
    assert run_here("preprocess_instruct.py", "--input", source, "--data-dir", tmp_path / "data", *flags).returncode == 0
    result = tune(base, tmp_path / "data", tmp_path / "out", "--epochs", 0.1)
    assert result.returncode == 0, result.stderr
    assert "the pairs were cut for a context of 48, though this model has a larger one" in result.stdout


@pytest.mark.parametrize(("flag", "dropout"), [(None, 0.1), (0.0, 0.0), (0.4, 0.4)])
def test_dropout_is_that_of_the_base_unless_set(base: Path, pairs: Path, flag: float | None, dropout: float) -> None:
    before = load_checkpoint(base)
    assert before.model_config.dropout == 0.1
    tuning = Tuning(FinetuneConfig(dropout=flag), before, open_dataset(pairs, "pairs"))
    model = tuning.base.make_model(torch.device("cpu"))
    assert tuning.config.model.dropout == model.config.dropout == dropout
    assert all(torch.equal(value, before.weights[name]) for name, value in model.state_dict().items())
