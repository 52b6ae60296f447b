"""Over training: a row and a point for each numbered checkpoint."""

import shutil
from pathlib import Path

from evaluation.recovery import GAIN, OWN
from tests.conftest import call_script, fails_with, make_pairs, write_pairs
from tests.evaluation.conftest import FEW, rows_of_report
from tests.training.runs import pretrain


def test_each_numbered_checkpoint_is_a_row(dataset_folder: Path, tmp_path: Path) -> None:
    """And the last one, which has the weights of the last checkpoint, scores what that scores."""
    out = tmp_path / "run"
    assert pretrain(dataset_folder, out, "--max-steps", 8, "--keep-every", 4, "--eval-every", 8).returncode == 0
    flags = ("--model-path", out / "last_checkpoint.pt", "--data-dir", dataset_folder, "--hellaswag", "", "--over-training")
    result = call_script("evaluate_xcoax.py", *flags)
    assert result.returncode == 0, result.stderr
    report = rows_of_report(out)
    rows = report["Over training"]
    assert list(rows) == ["step 4", "step 8"]
    assert rows["step 4"]["training tokens"] == f"{4 * 4 * 64:,}"
    name = f"held-out documents of {dataset_folder.name}"
    bits = [row[f"{name}, bits per byte"]["value"] for row in rows.values()]
    assert bits[0] > bits[1] == report[f"Language: {name}"]["pretrained, backward"]["bits per byte"]["value"]
    assert (out / "report_training_bits.png").read_bytes().startswith(b"\x89PNG")
    assert not (out / "report_training_shares.png").exists()


def copy_checkpoint(checkpoint: Path, folder: Path, *names: str) -> None:
    """Put a checkpoint into a folder under these names."""
    folder.mkdir(exist_ok=True)
    for name in names:
        shutil.copy(checkpoint, folder / name)


def test_a_tuned_run_has_its_instructions(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    copy_checkpoint(checkpoints["tuning"], tmp_path / "run", "best_checkpoint.pt", "checkpoint_000001.pt")
    source = write_pairs(tmp_path / "pairs.jsonl", make_pairs(30, seed=5))
    result = call_script(
        "evaluate_xcoax.py", "--model-path", tmp_path / "run", "--pairs", source, *FEW, "--over-training", "--candidates", 5
    )
    assert result.returncode == 0, result.stderr
    report = rows_of_report(tmp_path / "run")
    [row] = report["Over training"].values()
    ranking = report["Ranking: the true instruction among others"]
    assert row["first among 5 others, share"] == ranking[f"5 others: {GAIN}"]["recall@1"]
    assert row["instructions, given its own response, bits per byte"] == report["Instructions, given a response"][OWN]["bits per byte"]
    assert (tmp_path / "run" / "report_training_shares.png").is_file()


def test_a_run_without_numbered_checkpoints_is_refused(checkpoints: dict[str, Path], dataset_folder: Path, tmp_path: Path) -> None:
    flags = ("--model-path", checkpoints["pretraining"], "--data-dir", dataset_folder, "--out-dir", tmp_path, "--hellaswag", "")
    fails_with(call_script("evaluate_xcoax.py", *flags, "--over-training"), 1, "no checkpoint like checkpoint_000500.pt", "--keep-every")


def test_a_checkpoint_of_another_run_is_refused(checkpoints: dict[str, Path], dataset_folder: Path, tmp_path: Path) -> None:
    copy_checkpoint(checkpoints["tuning"], tmp_path, "best_checkpoint.pt")
    copy_checkpoint(checkpoints["pretraining"], tmp_path, "checkpoint_000001.pt")
    flags = ("--model-path", tmp_path, "--data-dir", dataset_folder, "--hellaswag", "", "--documents", 5, "--over-training")
    fails_with(call_script("evaluate_xcoax.py", *flags), 1, "is of another run than")
